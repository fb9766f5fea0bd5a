"""The command that analyses corpora before training."""

import subprocess
import sys
from pathlib import Path

import numpy as np

from codec import audio
from codec.data.manifest import Entry, write_manifest

ROOT = Path(__file__).parents[2]


def run(*arguments: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "data_scripts.parameters", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


def test_it_analyses_what_training_and_validation_take(tmp_path: Path) -> None:
    entries = []
    for split in ("train", "valid", "test"):
        path = tmp_path / "corpus" / f"{split}.wav"
        audio.write_wav(path, np.zeros((1, 3200), np.float32), 16000)
        entries.append(Entry(path, 0.2, split))
    write_manifest(tmp_path / "corpus" / "manifest.jsonl", entries)
    result = run(tmp_path / "corpus", "--out", tmp_path / "out", "--jobs", 1)
    assert result.returncode == 0, result.stderr
    made = {path.name for path in (tmp_path / "out").rglob("*.wav.parameters")}
    assert made == {"train.wav.parameters", "valid.wav.parameters"}
    assert "2 files" in result.stderr
    assert {path.name for path in (tmp_path / "corpus").iterdir()} >= {"test.wav"}
    assert not (tmp_path / "corpus" / ".sotto-parameters").exists()


def test_what_cannot_be_used_is_said_in_one_line(tmp_path: Path) -> None:
    result = run(tmp_path / "nowhere")
    assert result.returncode == 1 and "error: " in result.stderr
    assert "Traceback" not in result.stderr
    audio.write_wav(tmp_path / "a.wav", np.zeros((1, 3200), np.float32), 16000)
    result = run(tmp_path, "--sample-rate", 11025)
    assert result.returncode == 1 and "11025" in result.stderr
    assert "Traceback" not in result.stderr
