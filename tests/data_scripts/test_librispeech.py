"""LibriSpeech in the layout of its archives and of the hub."""

import io
import json
import sys
import tarfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from typer import Typer
from typer.testing import CliRunner

from codec import audio
from data_scripts import librispeech


def sound(level: float = 0.1) -> bytes:
    file = io.BytesIO()
    audio.write_flac(file, np.full((1, 3200), level, np.float32), 16000)
    return file.getvalue()


def pack(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


FILES = {
    "LibriSpeech/README.TXT": b"readme",
    "LibriSpeech/SPEAKERS.TXT": b"; comment",
    "LibriSpeech/train-clean-100/103/1240/103-1240-0000.flac": sound(),
    "LibriSpeech/train-clean-100/103/1240/103-1240-0001.flac": b"fLaC damaged",
    "LibriSpeech/train-clean-100/103/1240/103-1240.trans.txt": (
        b"103-1240-0000 CHAPTER ONE\n103-1240-0001 MISSUS RACHEL\n"
    ),
    "LibriSpeech/dev-clean/84/121123/84-121123.trans.txt": b"84-121123-0000 GO DO YOU HEAR\n",
    "LibriSpeech/dev-clean/84/121123/84-121123-0000.flac": sound(),
    "LibriSpeech/test-other/367/130732/367-130732-0000.flac": sound(),
}


def invoke(*arguments: object) -> Any:
    app = Typer()
    app.command()(librispeech.main)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def lines(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("kind", ["archive", "folder"])
def test_archives_and_folders(kind: str, tmp_path: Path) -> None:
    source = pack(tmp_path / "a.tar.gz", FILES)
    if kind == "folder":
        with tarfile.open(source) as archive:
            archive.extractall(tmp_path / "x", filter="data")
        source = tmp_path / "x"
    result = invoke(tmp_path / "out", "--archive", source)
    assert result.exit_code == 0, result.output
    assert "passed over: train-clean-100/103/103-1240-0001: " in result.output
    found = [(x["path"], x["split"], x["speaker"], x["text"]) for x in lines(tmp_path / "out")]
    assert found == [
        ("dev-clean/84/84-121123-0000.flac", "valid", "libri-84", "GO DO YOU HEAR"),
        ("test-other/367/367-130732-0000.flac", "test", "libri-367", None),
        ("train-clean-100/103/103-1240-0000.flac", "train", "libri-103", "CHAPTER ONE"),
    ]
    again = invoke(tmp_path / "out", "--archive", source)
    assert "0 files new, 3 there before" in again.output


def test_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = {"text": "HELLO", "speaker_id": 7, "chapter_id": 1, "id": "7-1-0", "file": "x"}
    rows = [
        {**row, "audio": {"bytes": sound(), "path": "7-1-0.flac"}},
        {**row, "id": "7-1-1", "audio": {"bytes": b"damaged", "path": "7-1-1.flac"}},
    ]
    stream = SimpleNamespace(cast_column=lambda *_: rows)
    fake = SimpleNamespace(load_dataset=lambda *_, **__: stream, Audio=lambda decode: decode)
    monkeypatch.setitem(sys.modules, "datasets", fake)
    result = invoke(tmp_path / "out", "--hub", "clean:validation")
    assert result.exit_code == 0, result.output
    assert "passed over: clean-validation/7/7-1-1: " in result.output
    (line,) = lines(tmp_path / "out")
    assert line["path"] == "clean-validation/7/7-1-0.flac"
    assert (line["split"], line["text"], line["speaker"]) == ("valid", "HELLO", "libri-7")


def test_one_source_must_be_given(tmp_path: Path) -> None:
    assert "--archive or --hub" in invoke(tmp_path).output
    assert invoke(tmp_path, "--archive", "a", "--hub", "b:c").exit_code == 2


def test_a_missing_archive_ends_in_one_line(tmp_path: Path) -> None:
    result = invoke(tmp_path / "out", "--archive", tmp_path / "nope.tar.gz")
    assert result.exit_code == 1
    assert "nope.tar.gz: there is no such archive or folder" in result.output.replace("\n", "")
