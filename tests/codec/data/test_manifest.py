"""Manifests and folder scans."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest
from rich.progress import Progress

from codec import audio
from codec.data.manifest import (
    Entry,
    assign_splits,
    load_entries,
    read_manifest,
    scan_folder,
    write_manifest,
)
from codec.errors import DataError


def make(path: Path, seconds: float = 0.1) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = np.full((1, round(8000 * seconds)), 0.1, np.float32)
    (audio.write_flac if path.suffix == ".flac" else audio.write_wav)(path, samples, 8000)
    return path


def manifest(folder: Path, *lines: object) -> Path:
    path = folder / "manifest.jsonl"
    text = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    path.write_text("\n".join(text) + "\n", encoding="utf-8")
    return path


def test_a_folder_is_searched_in_the_same_order_everywhere(tmp_path: Path) -> None:
    for name in ("b.wav", "a/z.FLAC", "a/c.wav", "a-b/d.wav"):
        make(tmp_path / name, 0.25).rename(tmp_path / name)
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / ".hidden.wav").write_bytes(b"x")
    with Progress(disable=True) as progress:
        entries = scan_folder(tmp_path, progress)
        assert progress.tasks[0].completed == 4
    names = [entry.path.relative_to(tmp_path).as_posix() for entry in entries]
    assert names == ["a-b/d.wav", "a/c.wav", "a/z.FLAC", "b.wav"]
    assert all(entry.seconds == 0.25 for entry in entries)


def test_unreadable_files_are_reported_and_passed_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make(tmp_path / "good.wav")
    (tmp_path / "bad.mp3").write_text("no audio")
    with caplog.at_level(logging.WARNING):
        entries = scan_folder(tmp_path)
    assert [entry.path.name for entry in entries] == ["good.wav"]
    assert "1 of 2 files cannot be read" in caplog.text and "bad.mp3" in caplog.text


def test_folders_without_audio_end_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no audio files found \(looked for \.wav \.flac"):
        load_entries(tmp_path)
    (tmp_path / "bad.mp3").write_text("no audio")
    with pytest.raises(DataError, match=r"none of its 1 audio files can be read.*bad\.mp3"):
        load_entries(tmp_path)
    with pytest.raises(DataError, match="nowhere: there is no such"):
        load_entries(tmp_path / "nowhere")
    with pytest.raises(DataError, match="no such folder"):
        scan_folder(tmp_path / "nowhere")


def test_a_manifest_comes_back_as_it_was_written(tmp_path: Path) -> None:
    entries = [
        Entry(make(tmp_path / "in" / "ü.wav"), 0.1, "train", "anna", {"lang": "de", "text": "ü"}),
        Entry(make(tmp_path / "b.wav"), 0.1),
    ]
    write_manifest(tmp_path / "manifest.jsonl", entries)
    first = json.loads((tmp_path / "manifest.jsonl").read_text("utf-8").splitlines()[0])
    assert first["path"] == "in/ü.wav"
    assert read_manifest(tmp_path / "manifest.jsonl") == entries


def test_a_manifest_is_trusted_on_durations_and_measured_without(tmp_path: Path) -> None:
    make(tmp_path / "a.wav", 0.5)
    path = manifest(tmp_path, {"path": "a.wav", "seconds": 7}, {"path": "a.wav"}, "")
    assert [entry.seconds for entry in read_manifest(path)] == [7.0, 0.5]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"path": "a.wav", "sec', "line 2: not a line of JSON"),
        ("[1, 2]", 'line 2: not an object with a "path"'),
        ('{"seconds": 1}', 'line 2: not an object with a "path"'),
        ('{"path": "a.wav", "seconds": -1}', 'line 2: "seconds" must be'),
        ('{"path": "a.wav", "seconds": "long"}', 'line 2: "seconds" must be'),
        ('{"path": "a.wav", "seconds": NaN}', 'line 2: "seconds" must be'),
    ],
)
def test_a_damaged_line_is_named(line: str, message: str, tmp_path: Path) -> None:
    make(tmp_path / "a.wav")
    path = manifest(tmp_path, {"path": "a.wav", "seconds": 1}, line)
    with pytest.raises(DataError) as error:
        read_manifest(path)
    assert message in str(error.value) and "manifest.jsonl" in str(error.value)
    assert "\n" not in str(error.value)


def test_missing_files_are_reported_unless_all_are(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make(tmp_path / "a.wav")
    lines = [{"path": f"{name}.wav", "seconds": 1} for name in "abcdefgh"]
    with caplog.at_level(logging.WARNING):
        assert len(read_manifest(manifest(tmp_path, *lines))) == 1
    assert "7 of its files are missing" in caplog.text and "and 2 more" in caplog.text
    with pytest.raises(DataError, match=r"none of its 1 files is there, such as .*b\.wav"):
        read_manifest(manifest(tmp_path, lines[1]))
    with pytest.raises(DataError, match="empty"):
        read_manifest(manifest(tmp_path, ""))


def test_splits_are_taken_from_the_manifest(tmp_path: Path) -> None:
    make(tmp_path / "a.wav")
    lines = [{"path": "a.wav", "seconds": n + 1, "split": s} for n, s in enumerate("xyx")]
    manifest(tmp_path, *lines)
    assert [entry.seconds for entry in load_entries(tmp_path, split="x")] == [1, 3]
    assert len(load_entries(tmp_path / "manifest.jsonl")) == 3
    with pytest.raises(DataError, match=r"no files of split 'valid' \(its splits: x, y\)"):
        load_entries(tmp_path, split="valid")


def test_a_folder_without_splits_is_split_the_same_way_every_time(tmp_path: Path) -> None:
    for number in range(20):
        make(tmp_path / f"{number}.wav")
    splits = {
        split: {entry.path for entry in load_entries(tmp_path, split=split)}
        for split in ("train", "valid", "test")
    }
    assert [len(paths) for paths in splits.values()] == [18, 1, 1]
    assert len(set().union(*splits.values())) == 20
    assert {e.path for e in load_entries(tmp_path, split="valid")} == splits["valid"]


def test_nobody_is_in_two_splits(tmp_path: Path) -> None:
    entries = [Entry(tmp_path / f"{n}.wav", 1.0, None, f"s{n % 10}") for n in range(100)]
    chosen: dict[str | None, set[str | None]] = {}
    for entry in assign_splits(entries, tmp_path, share=0.2):
        chosen.setdefault(entry.split, set()).add(entry.speaker)
    assert {split: len(speakers) for split, speakers in chosen.items()} == {
        "train": 6,
        "valid": 2,
        "test": 2,
    }


def test_too_few_files_are_shared_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make(tmp_path / "a.wav")
    with caplog.at_level(logging.WARNING):
        assert len(load_entries(tmp_path, split="valid")) == 1
    assert "only 1 files or speakers" in caplog.text
