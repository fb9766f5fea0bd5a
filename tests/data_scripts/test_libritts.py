"""LibriTTS in the layout of its archives and of the hub."""

import io
import sys
import tarfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from codec import audio
from data_scripts import libritts
from data_scripts.prepare import prepare


def sound() -> bytes:
    file = io.BytesIO()
    audio.write_wav(file, np.full((1, 4800), 0.1, np.float32), 24000)
    return file.getvalue()


def test_archives(tmp_path: Path) -> None:
    name = "LibriTTS/dev-clean/84/121123/84_121123_000007_000001"
    files = {
        f"{name}.normalized.txt": b"Maximilien.\n",
        f"{name}.original.txt": b"MAXIMILIEN",
        f"{name}.wav": sound(),
        "LibriTTS/train-other-500/9/1/9_1_000000_000000.wav": sound(),
        "LibriTTS/train-other-500/9/1/9_1_000000_000001.wav": sound()[:2000],
    }
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
        for path, data in files.items():
            info = tarfile.TarInfo(path)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    texts: dict[str, str] = {}
    found = list(libritts.from_archives([tmp_path / "a.tar.gz"], texts, []))
    assert [(u.key, u.split, u.speaker) for u in found] == [
        ("dev-clean/84/84_121123_000007_000001", "valid", "libri-84"),
        ("train-other-500/9/9_1_000000_000000", "train", "libri-9"),
        ("train-other-500/9/9_1_000000_000001", "train", "libri-9"),
    ]
    assert texts == {"dev-clean/84/84_121123_000007_000001": "Maximilien."}
    again = libritts.from_archives([tmp_path / "a.tar.gz"], texts, [])
    report = prepare(again, tmp_path / "out", source="LibriTTS", texts=texts)
    assert report.written >= 2
    assert audio.probe(tmp_path / "out" / f"{found[0].key}.flac").samples == 3200


def test_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    row = {
        "audio": {"bytes": sound(), "path": "x.wav"},
        "text_normalized": "Hello.",
        "speaker_id": "84",
        "id": "84_1_0_0",
    }
    stream = SimpleNamespace(cast_column=lambda *_: [row])
    fake = SimpleNamespace(load_dataset=lambda *_, **__: stream, Audio=lambda decode: decode)
    monkeypatch.setitem(sys.modules, "datasets", fake)
    (found,) = libritts.from_hub(["clean:test.clean"], "a/b")
    assert (found.key, found.split, found.text) == (
        "clean-test.clean/84/84_1_0_0",
        "test",
        "Hello.",
    )
    assert found.load() == sound()
