"""Common Voice in the layout of its archives and of the hub."""

import io
import sys
import tarfile
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest

from codec import audio
from codec.errors import DataError
from data_scripts import common_voice
from data_scripts.prepare import prepare, split_of_speaker


def mp3(seconds: float = 0.5) -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format="mp3") as out:
        stream = out.add_stream("libmp3lame", rate=32000, layout="mono")
        wave = np.random.default_rng(0).uniform(-0.3, 0.3, (1, round(32000 * seconds)))
        frame = av.AudioFrame.from_ndarray(wave.astype(np.float32), format="fltp", layout="mono")
        frame.sample_rate = 32000
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return file.getvalue()


TABLE = (
    "client_id\tpath\tsentence\tup_votes\tlocale\n"
    'aaaa\tcommon_voice_de_1.mp3\tEr sagte: "Guten Tag".\t2\tde\n'
    "bbbb\tcommon_voice_de_2.mp3\tZwei.\t2\tde\n"
)


def pack(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(f"cv-corpus-17.0-2024-03-15/de/{name}")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


@pytest.mark.parametrize("table_first", [True, False], ids=["table-first", "table-last"])
def test_validated_clips_are_taken(table_first: bool, tmp_path: Path) -> None:
    table = {"validated.tsv": TABLE.encode()}
    clips = {
        "clips/common_voice_de_1.mp3": mp3(),
        "clips/common_voice_de_2.mp3": b"damaged",
        "clips/common_voice_de_3.mp3": mp3(),  # not validated
    }
    files = table | clips if table_first else clips | table
    archive = pack(tmp_path / "de.tar.gz", files)
    found = common_voice.from_archives([archive], [])
    report = prepare(found, tmp_path / "out", source="Common Voice")
    assert report.written == 1
    assert report.problems[0].startswith("de/common_voice_de_2: ")
    text = (tmp_path / "out" / "manifest.jsonl").read_text("utf-8")
    assert '"speaker": "cv-aaaa"' in text and '"lang": "de"' in text
    assert 'Er sagte: \\"Guten Tag\\".' in text
    assert f'"split": "{split_of_speaker("aaaa")}"' in text
    info = audio.probe(tmp_path / "out" / "de" / "common_voice_de_1.flac")
    assert info.sample_rate == 16000 and info.seconds == pytest.approx(0.5, abs=0.1)


def test_another_archive_is_refused_in_one_line(tmp_path: Path) -> None:
    archive = pack(tmp_path / "x.tar.gz", {"clips/a.mp3": b""})
    with pytest.raises(DataError, match=r"not a Common Voice archive \(no validated\.tsv in it\)"):
        list(common_voice.from_archives([archive], []))


def test_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    row = {
        "client_id": "c" * 128,
        "path": "common_voice_fr_9.mp3",
        "audio": {"bytes": mp3(), "path": "fr_train_0/common_voice_fr_9.mp3"},
        "sentence": "Bonjour.",
        "locale": "fr",
    }
    stream = SimpleNamespace(cast_column=lambda *_: [row])
    fake = SimpleNamespace(load_dataset=lambda *_, **__: stream, Audio=lambda decode: decode)
    monkeypatch.setitem(sys.modules, "datasets", fake)
    (found,) = common_voice.from_hub(["fr:validated"], "a/b")
    assert (found.key, found.lang, found.text) == ("fr/common_voice_fr_9", "fr", "Bonjour.")
    assert found.speaker == "cv-cccccccccccccccc"
    assert found.split == split_of_speaker("c" * 128)
