"""Parameters kept beside a corpus: made once, anew when stale, in step with the crops."""

import logging
import os
import signal
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from codec import audio
from codec.config_files import parse_config
from codec.data import analysis, targets
from codec.data.analysis import analyse, silence
from codec.data.batches import batches
from codec.data.corpus import load_corpus, training_crops
from codec.data.crops import RandomCrops
from codec.data.manifest import Entry, load_entries
from codec.data.targets import FOLDER, Targets, make_targets
from codec.errors import ConfigError, DataError
from codec.nn.parameters import ENVELOPE, F0

RATE = 16000
HOP = 80
ROOT = Path(__file__).parents[3]


def glide(path: Path, seconds: float, rate: int = RATE, low: float = 100.0) -> None:
    """A buzz that rises by an octave a second, so that every frame has a pitch of its own."""
    time = np.arange(round(seconds * rate)) / rate
    phase = 2 * np.pi * low * (2**time - 1) / np.log(2)
    wave = 0.02 * sum(np.cos(k * phase) for k in range(1, 12))
    audio.write_wav(path, wave[None].astype(np.float32), rate)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    glide(folder / "long.wav", 1.5)
    glide(folder / "a" / "low.wav", 0.8, 8000, 150.0)
    glide(folder / "a" / "short.wav", 0.123, low=230.0)
    return folder


@pytest.fixture(scope="module")
def entries(corpus: Path) -> list[Entry]:
    return load_entries(corpus)


@pytest.fixture(scope="module")
def made(entries: list[Entry]) -> Targets:
    return make_targets(entries, sample_rate=RATE, jobs=1)


@pytest.fixture
def analysed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Lengths of the waves that were analysed since the test began."""
    lengths: list[int] = []

    def counted(wave: np.ndarray, sample_rate: int) -> np.ndarray:
        lengths.append(wave.size)
        return analyse(wave, sample_rate)

    monkeypatch.setattr(analysis, "analyse", counted)
    return lengths


def crops_of(entries: list[Entry], made: Targets | None, **options: object) -> RandomCrops:
    chosen: dict[str, object] = {"sample_rate": RATE, "segment": 4000, "seed": 3, **options}
    return RandomCrops(entries, targets=made, **chosen)  # type: ignore[arg-type]


def whole(entry: Entry) -> tuple[np.ndarray, np.ndarray]:
    """A file's wave (samples,) and its parameters."""
    wave = audio.read(entry.path, sample_rate=RATE)[0][0]
    return wave, analyse(wave, RATE)


def close(found: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize("cache_mb", [0, 10])
def test_a_crop_and_its_parameters_are_of_one_place(
    entries: list[Entry], made: Targets, cache_mb: float
) -> None:
    crops = crops_of(entries, made, cache_mb=cache_mb)
    files = [whole(entry) for entry in entries]
    quiet = silence(RATE)[:, None]
    seen = set()
    for index in range(25):
        wave, parameters = crops[index]
        assert parameters is not None and parameters.shape == (66, 50)
        heard = wave[0].numpy()
        places = [
            (number, hop)
            for number, (file, _) in enumerate(files)
            for hop in range(len(file) // HOP)
            if np.array_equal(file[hop * HOP :][:HOP], heard[:HOP])
        ]
        assert len(places) == 1  # a whole hop of one file, and of no other
        number, hop = places[0]
        expected = files[number][1][:, hop : hop + 50]
        close(parameters[:, : expected.shape[1]].numpy(), expected)
        close(
            parameters[:, expected.shape[1] :].numpy(),
            np.repeat(quiet, 50, 1)[:, expected.shape[1] :],
        )
        seen.add(number)
    assert seen >= {0, 1}


@given(index=st.integers(0, 10**9), gain_db=st.floats(-30, 3))
@settings(max_examples=20, deadline=None)
def test_a_gain_moves_the_envelope_of_what_is_there(
    entries: list[Entry], made: Targets, index: int, gain_db: float
) -> None:
    plain = crops_of(entries, made)[index]
    moved = crops_of(entries, made, gain_db=(gain_db, gain_db), silence_db=-200)[index]
    assert plain.parameters is not None and moved.parameters is not None
    peak = int(plain.wave.abs().argmax())
    gain = float(moved.wave[0, peak] / plain.wave[0, peak])
    shift = moved.parameters - plain.parameters
    there = (plain.parameters[F0] > 0) | (plain.wave.reshape(50, HOP).abs().amax(1) > 0)
    torch.testing.assert_close(
        shift[:ENVELOPE, there],
        torch.full_like(shift[:ENVELOPE, there], 2 * np.log(gain)),
        atol=1e-3,
        rtol=0,
    )
    assert float(shift[:, ~there].abs().sum()) == 0 and float(shift[ENVELOPE:].abs().sum()) == 0


def test_without_targets_crops_are_what_they_were(entries: list[Entry], made: Targets) -> None:
    plain = crops_of(entries, None)
    assert plain[0].parameters is None
    snapped = crops_of(entries, made)
    # The same draws, moved by less than a hop.
    for index in range(10):
        lengths = [int((crop.wave != 0).sum()) for crop in (plain[index], snapped[index])]
        assert abs(lengths[0] - lengths[1]) <= HOP


def test_made_once(corpus: Path, entries: list[Entry], made: Targets, analysed: list[int]) -> None:
    again = make_targets(entries, sample_rate=RATE)
    assert not analysed and len(again) == len(made) == 3
    assert (corpus / FOLDER / str(RATE) / "a" / "low.wav.parameters").is_file()
    assert len(load_entries(corpus)) == 3  # what is kept there is no audio


@pytest.fixture
def own(tmp_path: Path) -> list[Entry]:
    """Two files of a test's own, analysed."""
    for name in ("one", "two"):
        glide(tmp_path / "corpus" / f"{name}.wav", 0.3)
    entries = load_entries(tmp_path / "corpus")
    make_targets(entries, sample_rate=RATE, jobs=1)
    return entries


def test_a_changed_file_is_analysed_anew(own: list[Entry], analysed: list[int]) -> None:
    glide(own[0].path, 0.4)
    assert make_targets(own, sample_rate=RATE, jobs=1).frames(own[0].path) == 80
    assert analysed == [6400]
    os.utime(own[1].path, ns=(0, 0))  # of the same size
    make_targets(own, sample_rate=RATE, jobs=1)
    assert analysed == [6400, 4800]


def test_another_analysis_makes_them_anew(
    own: list[Entry], analysed: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(analysis, "ANALYSIS_VERSION", analysis.ANALYSIS_VERSION + 1)
    make_targets(own, sample_rate=RATE, jobs=1)
    assert sorted(analysed)[:2] == [4800, 4800]


def test_another_sample_rate_has_its_own(own: list[Entry], analysed: list[int]) -> None:
    low = make_targets(own, sample_rate=8000, jobs=1)
    assert low.frames(own[0].path) == 60 and sorted(analysed)[:2] == [2400, 2400]
    analysed.clear()
    make_targets(own, sample_rate=RATE, jobs=1)
    assert not analysed
    with pytest.raises(ValueError, match="8000"):
        crops_of(own, low)
    with pytest.raises(ValueError, match="multiple of 80"):
        crops_of(own, make_targets(own, sample_rate=RATE), segment=4001)


@given(cut=st.floats(0, 1, exclude_max=True))
@settings(max_examples=20, deadline=None)
def test_a_partial_file_is_not_taken_for_a_whole_one(
    tmp_path_factory: pytest.TempPathFactory, cut: float
) -> None:
    place, key = tmp_path_factory.mktemp("part") / "x.parameters", targets._Key(1, RATE, 5, 6)
    targets._write(place, key, np.zeros((66, 10), np.float32))
    assert targets._count(place, key) == 10
    data = place.read_bytes()
    place.write_bytes(data[: int(cut * len(data))])
    assert targets._count(place, key) is None


def test_killed_midway_it_goes_on(tmp_path: Path) -> None:
    for number in range(12):
        glide(tmp_path / f"{number}.wav", 2.0)
    command = [sys.executable, "-m", "data_scripts.parameters", str(tmp_path), "--jobs", "1"]
    running = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
    folder = tmp_path / FOLDER
    while not list(folder.rglob("[0-9]*.parameters")):
        assert running.poll() is None
        time.sleep(0.02)
    running.send_signal(signal.SIGKILL)
    running.wait()
    kept = {path: path.stat().st_mtime_ns for path in folder.rglob("[0-9]*.parameters")}
    assert 1 <= len(kept) < 12
    made = make_targets(load_entries(tmp_path), sample_rate=RATE, jobs=1)
    assert len(made) == 12
    assert all(path.stat().st_mtime_ns == changed for path, changed in kept.items())


def test_several_processes_make_the_same(corpus: Path, made: Targets, tmp_path: Path) -> None:
    entries = load_entries(corpus)
    elsewhere = make_targets(entries, sample_rate=RATE, out=tmp_path / "out", jobs=2)
    for entry in entries:
        frames = made.frames(entry.path)
        assert elsewhere.frames(entry.path) == frames
        both = [one.read(entry.path, 0, frames) for one in (made, elsewhere)]
        assert np.array_equal(*both)
    assert len(list((tmp_path / "out").rglob("*.wav.parameters"))) == 3


def test_bad_files_are_warned_of_and_left_out(
    own: list[Entry], caplog: pytest.LogCaptureFixture
) -> None:
    bad = Entry(own[0].path.with_name("bad.wav"), 0.3, root=own[0].root)
    bad.path.write_text("no audio")
    gone = Entry(own[0].path.with_name("gone.wav"), 0.3, root=own[0].root)
    with caplog.at_level(logging.WARNING):
        made = make_targets([*own, bad, gone], sample_rate=RATE, jobs=1)
    assert len(made) == 2 and caplog.text.count("bad.wav") == 1 and "gone.wav" in caplog.text
    assert bad.path not in made
    crops = crops_of([*own, bad, gone], made)
    assert all(crops[index].parameters is not None for index in range(10))
    with pytest.raises(DataError, match=r"none of the 1 audio files.*bad\.wav"):
        make_targets([bad], sample_rate=RATE)


def test_files_outside_the_corpus_are_kept_in_it(own: list[Entry], tmp_path: Path) -> None:
    glide(tmp_path / "far" / "away.wav", 0.2)
    manifest = tmp_path / "corpus" / "manifest.jsonl"
    manifest.write_text('{"path": "../far/away.wav"}\n{"path": "one.wav"}\n')
    make_targets(load_entries(manifest), sample_rate=RATE, jobs=1)
    found = [path.name for path in (tmp_path / "corpus" / FOLDER).rglob("away*")]
    assert found == ["away.wav.parameters"]
    assert not (tmp_path / "far" / FOLDER).exists()


def test_where_nothing_can_be_written_one_line_says_what_would_do(own: list[Entry]) -> None:
    root = own[0].path.parent.parent
    (root / "file").write_text("")
    with pytest.raises(DataError, match=r"cannot be kept there.*data\.parameters") as error:
        make_targets(own, sample_rate=RATE, out=root / "file")
    assert "\n" not in str(error.value)


def test_parameters_that_vanish_are_reported(own: list[Entry]) -> None:
    made = make_targets(own, sample_rate=RATE)
    for path in own[0].path.parent.rglob("*.parameters"):
        path.unlink()
    with pytest.raises(DataError, match=r"parameters: was changed or removed"):
        made.read(own[0].path, 0, 5)


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_the_same_with_workers_and_resumed(
    entries: list[Entry], made: Targets, workers: int
) -> None:
    crops = crops_of(entries, made, gain_db=(-6, 3))
    expected = list(islice(batches(crops, batch_size=3), 4))
    found = list(islice(batches(crops, batch_size=3, start_step=2, workers=workers), 2))
    for one, other in zip(expected[2:], found, strict=True):
        assert one.parameters is not None and other.parameters is not None
        assert one.parameters.shape == (3, 66, 50)
        assert torch.equal(one.wave, other.wave) and torch.equal(one.parameters, other.parameters)


VOICE = {
    "sample_rate": 8000,
    "default_kbps": 1.5,
    "strides": [40, 8],
    "encoder": {"kind": "voice"},
    "decoder": {"kind": "voice"},
}
JUDGES = {"stft": None, "parameters": {}}
# Of losses on the wave: what adversarial ones there are by default would want a judge of waves.
NO_GAME = {"adversarial": {"weight": 0.0}, "feature_matching": {"weight": 0.0}}


def config_of(data: dict[str, object], weight: float = 1.0) -> object:
    values = {
        "model": VOICE,
        "data": {"segment_samples": 3200, **data},
        "discriminators": JUDGES,
        "losses": {"parameters": {"weight": weight}, **NO_GAME},
    }
    return parse_config(values, source="test")


@pytest.mark.parametrize("source", ["files", "random", "fixed"])
def test_a_config_asks_for_parameters(corpus: Path, source: str, tmp_path: Path) -> None:
    data: dict[str, object] = {"source": source, "path": str(corpus), "parameters": str(tmp_path)}
    config = config_of(data)
    crop = training_crops(config, load_corpus(config))[2]
    assert crop.wave.shape == (1, 3200) and crop.parameters is not None
    assert crop.parameters.shape == (66, 80) and crop.parameters.dtype == torch.float32
    assert bool(list(tmp_path.iterdir())) == (source == "files")
    if source != "files":
        assert np.array_equal(crop.parameters.numpy(), analyse(crop.wave[0].numpy(), 8000))
    config = config_of(data, weight=0.0)
    assert training_crops(config, load_corpus(config))[2].parameters is None


def test_a_segment_without_whole_hops_is_refused() -> None:
    values = {
        "model": VOICE,
        "data": {"segment_samples": 3200, "source": "random"},
        "discriminators": JUDGES,
        "losses": {"parameters": {"weight": 1.0}, **NO_GAME},
    }
    config = parse_config(values, source="test")
    odd = config.model_copy(
        update={"data": config.data.model_copy(update={"segment_samples": 3210})}
    )
    with pytest.raises(ConfigError, match=r"3210.*3200 would do"):
        training_crops(odd, load_corpus(odd))
