"""Commands on folders and on several files."""

import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from codec import audio
from codec.codec import Codec
from infer import cli
from infer.commands_audio import ByModel
from infer.files import encode_file
from infer.planning import Item

Wav = Callable[..., Path]

pytestmark = pytest.mark.usefixtures("quiet_environment")


def succeed(*arguments: object) -> str:
    result = CliRunner().invoke(cli.app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


def shape(path: Path) -> tuple[int, int, int]:
    """Channels, samples, rate."""
    wave, rate = audio.read(path)
    return (*wave.shape, rate)  # type: ignore[return-value]


def below(folder: Path) -> list[str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return sorted(path.relative_to(folder).as_posix() for path in files)


@pytest.fixture
def folder(wav: Wav, tmp_path: Path) -> Path:
    """Three files, one of them in a folder below, and what is no audio."""
    for name in ("in/a.wav", "in/b.wav", "in/sub/c.wav"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        wav(name, 2000)
    (tmp_path / "in/notes.txt").touch()
    return tmp_path / "in"


def test_a_folder_there_and_back(model: Path, folder: Path, tmp_path: Path) -> None:
    coded, back = tmp_path / "sc", tmp_path / "back"
    out = succeed("encode", folder, coded, "--model", model)
    assert "3 files encoded: 0.75 s of audio in " in out and "times real time; " in out
    assert below(coded) == ["a.sc", "b.sc", "sub/c.sc"]
    out = succeed("decode", coded, back, "--model", model, "--format", "flac")
    assert "3 files decoded" in out
    assert below(back) == ["a.flac", "b.flac", "sub/c.flac"]
    assert shape(back / "a.flac") == (1, 2000, 8000)


def test_what_is_there_is_skipped_unless_forced(model: Path, folder: Path, tmp_path: Path) -> None:
    coded = tmp_path / "sc"
    succeed("encode", folder, coded, "--model", model)
    (coded / "a.sc").write_text("mine")
    (coded / "b.sc").unlink()
    out = succeed("encode", folder, coded, "--model", model)
    assert "1 file encoded" in out and "2 files skipped" in out
    assert (coded / "a.sc").read_text() == "mine" and (coded / "b.sc").stat().st_size > 40
    assert "3 files encoded" in succeed("encode", folder, coded, "--model", model, "--force")
    assert (coded / "a.sc").stat().st_size > 40


def test_a_bad_file_is_told_last_and_does_not_stop_the_others(
    model: Path, folder: Path, tmp_path: Path
) -> None:
    (folder / "aa.wav").write_text("no audio at all")
    (folder / "b.mp3").write_text("takes the place of b.wav")
    result = run("encode", folder, tmp_path / "sc", "--model", model)
    assert result.exit_code == 1
    assert below(tmp_path / "sc") == ["a.sc", "sub/c.sc"]
    assert "2 files encoded" in result.stdout
    lines = result.stderr.splitlines()
    assert lines[0] == "3 files failed"
    assert all(line.startswith("error: ") for line in lines[1:]) and len(lines) == 4
    for name in ("aa.wav", "b.mp3", "b.wav"):
        assert any(f"{folder / name}" in line for line in lines)


def test_processes_do_the_same(model: Path, folder: Path, tmp_path: Path) -> None:
    coded = tmp_path / "sc"
    succeed("encode", folder, coded, "--model", model)
    (coded / "bad.sc").write_text("no .sc file")
    for jobs in (1, 2):
        result = run("trim", coded, tmp_path / f"{jobs}", "--codebooks", 1, "--jobs", jobs)
        assert result.exit_code == 1 and "3 files trimmed" in result.stdout
        assert "bad.sc is not a .sc file" in result.stderr
    assert below(tmp_path / "1") == below(tmp_path / "2") == ["a.sc", "b.sc", "sub/c.sc"]


def test_a_model_goes_to_other_processes_by_its_name(
    model: Path, codec: Codec, folder: Path, tmp_path: Path
) -> None:
    options = {"n_quantizers": 2}
    start = ByModel(encode_file, model, "cpu", options, codec)
    sent = pickle.loads(pickle.dumps(start))
    assert len(pickle.dumps(start)) < 1000 and sent.codec is None
    for number, one in enumerate((start, sent)):
        one()(Item(folder / "a.wav", tmp_path / f"{number}.sc"), lambda share: None)
    assert (tmp_path / "0.sc").read_bytes() == (tmp_path / "1.sc").read_bytes()


def test_nothing_is_left_of_an_earlier_run_that_was_killed(
    model: Path, folder: Path, tmp_path: Path
) -> None:
    coded = tmp_path / "sc"
    coded.mkdir()
    for name in (".a.sc.01234567.part", ".a.sc.89abcdef.part", ".other.sc.01234567.part"):
        (coded / name).write_text("half")
    succeed("encode", folder, coded, "--model", model)
    assert below(coded) == [".other.sc.01234567.part", "a.sc", "b.sc", "sub/c.sc"]


def test_a_disk_that_fills_up_ends_it(
    model: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync, written = os.fsync, []

    def full(number: int) -> None:
        written.append(number)
        if len(written) == 2:
            raise OSError(28, "No space left on device")
        fsync(number)

    monkeypatch.setattr(os, "fsync", full)
    result = run("encode", folder, tmp_path / "sc", "--model", model)
    assert result.exit_code == 1 and below(tmp_path / "sc") == ["a.sc"]
    assert "b.sc cannot be written: No space left on device" in result.stderr
    assert "1 file not done" in result.stderr


def test_info_and_verify_take_folders(model: Path, folder: Path, tmp_path: Path) -> None:
    coded = tmp_path / "sc"
    succeed("encode", folder, coded, "--model", model)
    assert succeed("info", coded, folder).count("duration") == 6
    assert succeed("verify", coded).count("whole") == 3
    data = bytearray((coded / "b.sc").read_bytes())
    data[90] ^= 1
    (coded / "b.sc").write_bytes(data)
    (coded / "a.sc").write_bytes((coded / "a.sc").read_bytes()[:-1])
    result = run("verify", coded)
    assert result.exit_code == 1
    assert result.stdout.count("whole") == 1 and result.stdout.count("damaged") == 2
    assert "b.sc: 0:00.00 to 0:00.25" in result.stderr and "a.sc: " in result.stderr


def test_trim_and_cut_take_folders(model: Path, folder: Path, tmp_path: Path) -> None:
    coded, small, short = tmp_path / "sc", tmp_path / "small", tmp_path / "short"
    succeed("encode", folder, coded, "--model", model)
    assert "3 files trimmed" in succeed("trim", coded, small, "--kbps", 1.2)
    assert "1 of 6 bits" in succeed("info", small / "sub/c.sc")
    assert "3 files cut" in succeed("cut", coded, short, "--from", 0.1, "--to", 0.2)
    assert "800 samples" in succeed("info", short / "sub/c.sc")
