"""The synthetic corpus: the same for a seed, spoken, and called synthetic."""

import builtins
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from codec import audio
from codec.data.manifest import load_entries
from codec.errors import DataError
from data_scripts import espeak
from data_scripts.sentences import SENTENCES
from data_scripts.synthesise import VOICES, synthesise

pytest.importorskip("espeakng_loader", reason="espeakng-loader (extra 'data') is not installed")

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("synthetic") / "corpus"
    synthesise(out, minutes=2, seed=3)
    return out


def content(folder: Path) -> dict[str, bytes]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_the_same_seed_makes_the_same_bytes_in_another_process(
    corpus: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "data_scripts.synthesise", str(tmp_path / "again")]
    subprocess.run([*command, "--minutes", "2", "--seed", "3"], check=True, cwd=ROOT)
    assert content(tmp_path / "again") == content(corpus)


def test_another_seed_makes_another_corpus(corpus: Path, tmp_path: Path) -> None:
    synthesise(tmp_path / "other", minutes=0.2, seed=4)
    texts = [json.loads(line)["text"] for line in (corpus / "manifest.jsonl").open("rb")]
    others = [json.loads(x)["text"] for x in (tmp_path / "other" / "manifest.jsonl").open("rb")]
    assert texts[: len(others)] != others


def test_files_are_speech_at_16_khz(corpus: Path) -> None:
    entries = load_entries(corpus)
    assert 120 <= sum(entry.seconds for entry in entries) < 165
    for entry in entries:
        wave, rate = audio.read(entry.path)
        assert rate == 16000 and wave.shape == (1, round(entry.seconds * 16000))
        assert -34 < 20 * np.log10(np.sqrt(np.mean(wave**2))) < -19
        envelope = np.abs(wave[0])
        loud = np.flatnonzero(envelope > 0.05 * envelope.max())
        assert loud[0] < 3200 and loud[-1] > wave.shape[1] - 3200  # trimmed


def test_it_is_called_synthetic(corpus: Path) -> None:
    for entry in load_entries(corpus):
        assert entry.details["synthetic"] is True
        assert "synthetic" in entry.details["source"]
        assert entry.details["lang"] in SENTENCES
    assert json.loads((corpus / "synthetic.json").read_text())["synthetic"] is True


def test_no_voice_is_in_two_splits(corpus: Path) -> None:
    names = [voice for voices in VOICES.values() for voice in voices]
    assert len(names) == len(set(names))
    speakers = {
        split: {entry.speaker for entry in load_entries(corpus, split=split)} for split in VOICES
    }
    assert all(speakers.values())
    assert sum(map(len, speakers.values())) == len(set().union(*speakers.values()))


def test_a_corpus_that_is_there_is_left_alone(corpus: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("data_scripts.synthesise._fill", None)
    assert synthesise(corpus, minutes=2, seed=3) == corpus / "manifest.jsonl"
    with pytest.raises(TypeError):  # other parameters: it would have to be made anew
        synthesise(corpus, minutes=1, seed=3)
    assert (corpus / "manifest.jsonl").exists()


def test_other_peoples_folders_are_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(DataError, match="not empty and no synthetic corpus"):
        synthesise(tmp_path, minutes=1)
    with pytest.raises(DataError, match="minutes"):
        synthesise(tmp_path / "x", minutes=0)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_every_language_has_every_voice() -> None:
    code = (
        "from data_scripts.espeak import Synthesiser, Prompt\n"
        "from data_scripts.sentences import SENTENCES\n"
        "from data_scripts.synthesise import VOICES\n"
        "speaker = Synthesiser()\n"
        "for lang, sentences in SENTENCES.items():\n"
        "    for text in sentences: speaker.say(Prompt(text.format(n=5), lang, rate=400))\n"
        "for voices in VOICES.values():\n"
        "    for voice in voices: speaker.say(Prompt('a', f'de+{voice}', rate=400))\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_without_espeak_the_way_to_install_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    importing = builtins.__import__

    def refuse(name: str, *rest: Any) -> Any:
        if name == "espeakng_loader":
            raise ImportError(name)
        return importing(name, *rest)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(DataError, match=r"pip install 'sotto\[data\]'"):
        espeak.Synthesiser()
