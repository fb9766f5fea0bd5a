"""Converting a corpus: resumable, whole files and lines, damage reported and passed over."""

import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from codec import audio
from codec.data.manifest import load_entries
from codec.errors import AudioError, DataError
from data_scripts.prepare import Utterance, convert, prepare, run, safe_path, split_of_speaker


def sound(seconds: float = 1.0, rate: int = 22050, channels: int = 2) -> bytes:
    wave = np.random.default_rng(0).uniform(-0.3, 0.3, (channels, round(seconds * rate)))
    file = io.BytesIO()
    audio.write_flac(file, wave.astype(np.float32), rate)
    return file.getvalue()


SOUND = sound()


def utterance(key: str, data: bytes = SOUND, split: str = "train") -> Utterance:
    return Utterance(key, lambda: data, split, f"speaker-{key}", "en", f"text {key}")


def lines(out: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]


def test_files_are_mono_16_khz_and_listed(tmp_path: Path) -> None:
    report = prepare([utterance("b/2"), utterance("a/1", split="test")], tmp_path, source="S")
    assert (report.written, report.kept, report.problems) == (2, 0, [])
    assert [line["path"] for line in lines(tmp_path)] == ["a/1.flac", "b/2.flac"]
    first = lines(tmp_path)[0]
    assert first["split"] == "test" and first["speaker"] == "speaker-a/1"
    assert first["lang"] == "en" and first["text"] == "text a/1" and first["source"] == "S"
    info = audio.probe(tmp_path / "a/1.flac")
    assert (info.sample_rate, info.channels, info.seconds) == (16000, 1, pytest.approx(1.0))
    assert report.seconds == pytest.approx(2.0)
    assert len(load_entries(tmp_path, split="test")) == 1


def test_what_is_there_is_neither_loaded_nor_written_again(tmp_path: Path) -> None:
    prepare([utterance("a")], tmp_path, source="S")
    before = (tmp_path / "a.flac").stat().st_mtime_ns

    def never() -> bytes:
        raise RuntimeError("loaded")

    again = [Utterance("a", never, "train", "s", "en"), utterance("b")]
    report = prepare(again, tmp_path, source="S")
    assert (report.written, report.kept) == (1, 1)
    assert (tmp_path / "a.flac").stat().st_mtime_ns == before
    assert len(lines(tmp_path)) == 2 and report.seconds == pytest.approx(2.0)


def test_an_interrupted_run_goes_on(tmp_path: Path) -> None:
    whole = [utterance(f"{number:02d}") for number in range(30)]

    def stopped() -> Iterator[Utterance]:
        yield from whole[:17]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(stopped(), tmp_path / "a", source="S")
    done = len(lines(tmp_path / "a"))
    assert 0 < done < 30
    with (tmp_path / "a" / "manifest.jsonl").open("a") as file:
        file.write('{"path": "17.flac", "sec')  # and the machine went down in the middle of a line
    report = prepare(whole, tmp_path / "a", source="S")
    assert (report.kept, report.written) == (done, 30 - done)
    prepare(whole, tmp_path / "b", source="S")
    for file in sorted((tmp_path / "b").iterdir()):
        assert (tmp_path / "a" / file.name).read_bytes() == file.read_bytes()
    assert len(list((tmp_path / "a").iterdir())) == 31


def test_a_line_without_its_file_is_made_again(tmp_path: Path) -> None:
    prepare([utterance("a"), utterance("b")], tmp_path, source="S")
    (tmp_path / "a.flac").unlink()
    report = prepare([utterance("a"), utterance("b")], tmp_path, source="S")
    assert (report.written, report.kept, len(lines(tmp_path))) == (1, 1, 2)


def test_damaged_files_are_reported_and_passed_over(tmp_path: Path) -> None:
    def unreadable() -> bytes:
        raise AudioError("cut off in the archive")

    given = [
        utterance("text", b"no audio"),
        utterance("cut", SOUND[: len(SOUND) // 2]),
        utterance("zeros", SOUND[:40000] + bytes(500) + SOUND[40500:]),
        utterance("empty", sound(0.0)),
        Utterance("gone", unreadable, "train", "s", "en"),
        utterance("good"),
    ]
    report = prepare(given, tmp_path, source="S")
    assert [line["path"] for line in lines(tmp_path)] == ["good.flac"]
    assert [problem.split(":")[0] for problem in report.problems] == [
        "text",
        "cut",
        "zeros",
        "empty",
        "gone",
    ]
    assert all("\n" not in problem for problem in report.problems)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["good.flac", "manifest.jsonl"]


def test_nothing_usable_ends_in_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="S: no usable recordings found: text: "):
        prepare([utterance("text", b"no audio")], tmp_path / "out", source="S")
    with pytest.raises(DataError, match=r"no usable recordings found$"):
        prepare([], tmp_path / "out", source="S")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_no_damaged_recording(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise AudioError("x.flac: cannot be written (No space left on device)")

    monkeypatch.setattr("data_scripts.prepare.write_flac", full)
    with pytest.raises(DataError, match="No space left"):
        prepare([utterance("a")], tmp_path, source="S")


def test_transcripts_may_come_after_the_audio(tmp_path: Path) -> None:
    texts: dict[str, str] = {}

    def found() -> Iterator[Utterance]:
        yield Utterance("a/ü 1", lambda: SOUND, "train", "s", "en")
        texts["a/ü 1"] = "late"

    prepare(found(), tmp_path, source="S", texts=texts)
    assert lines(tmp_path)[0]["text"] == "late"


def test_hours_and_duplicates(tmp_path: Path) -> None:
    given = [utterance(str(number // 2)) for number in range(20)]
    assert prepare(given, tmp_path / "a", source="S").written == 10
    report = prepare(given, tmp_path / "b", source="S", hours=2.5 / 3600)
    assert report.written == 3


@pytest.mark.parametrize(
    ("key", "path"),
    [
        ("../../etc/passwd", "etc/passwd.flac"),
        ("/abs/x", "abs/x.flac"),
        ("a\\..\\b", "a/b.flac"),
        ("C:/x y", "C_/x_y.flac"),
        (".hidden/..x", "hidden/x.flac"),
        ("dé/ü-1_2.3", "dé/ü-1_2.3.flac"),
    ],
)
def test_names_stay_in_their_folder(key: str, path: str) -> None:
    assert safe_path(key) == path


def test_a_name_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="file name"):
        safe_path("../..")


def test_speakers_are_split_by_name_alone() -> None:
    splits = [split_of_speaker(f"s{number}", share=0.1) for number in range(2000)]
    assert splits == [split_of_speaker(f"s{number}", share=0.1) for number in range(2000)]
    assert 150 < splits.count("valid") < 250 and 150 < splits.count("test") < 250


def test_convert_refuses_what_is_shorter_than_its_header_says(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="beginning to end"):
        convert(SOUND[: len(SOUND) * 2 // 3], tmp_path / "a.flac", 16000)
    assert not list(tmp_path.iterdir())


def test_run_reports_and_exits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = [utterance("good"), utterance("text", b"no audio")]
    run(tmp_path / "a", "S", lambda *_: given, None)
    shown = capsys.readouterr()
    assert "1 files new, 0 there before, 1 problems" in shown.out
    assert "passed over: text: " in shown.err
    with pytest.raises(SystemExit) as stop:
        run(tmp_path / "b", "S", lambda *_: [], None)
    assert stop.value.code == 1
    assert "error: S: no usable recordings found" in capsys.readouterr().err

    def interrupted(*_: object) -> Iterator[Utterance]:
        yield utterance("a")
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as stop:
        run(tmp_path / "c", "S", interrupted, None)
    assert stop.value.code == 130
