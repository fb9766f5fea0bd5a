"""Random crops: determined by seed and index, never silent, never clipped."""

import logging
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from codec import audio
from codec.data.crops import RandomCrops
from codec.data.manifest import Entry
from codec.errors import DataError

RATE = 16000


def make(
    path: Path, seconds: float, rate: int = RATE, channels: int = 1, level: float = 0.1
) -> Entry:
    rng = np.random.default_rng(len(path.name))
    wave = rng.uniform(-level, level, (channels, round(seconds * rate))).astype(np.float32)
    (audio.write_flac if path.suffix == ".flac" else audio.write_wav)(path, wave, rate)
    return Entry(path, seconds)


@pytest.fixture
def entries(tmp_path: Path) -> list[Entry]:
    return [
        make(tmp_path / "long.wav", 3.0),
        make(tmp_path / "stereo44.flac", 1.5, 44100, channels=2),
        make(tmp_path / "low.wav", 1.0, 8000),
        make(tmp_path / "short.flac", 0.05),
    ]


def crops(entries: list[Entry], **settings: object) -> RandomCrops:
    chosen: dict[str, object] = {"sample_rate": RATE, "segment": 4000, "seed": 3, **settings}
    return RandomCrops(entries, **chosen)  # type: ignore[arg-type]


def test_a_crop_depends_on_seed_and_index_alone(entries: list[Entry]) -> None:
    first = crops(entries, gain_db=(-6, 6))
    forwards = [first[index].wave for index in range(20)]
    again = crops(entries, gain_db=(-6, 6))
    backwards = [again[index].wave for index in reversed(range(20))][::-1]
    assert all(torch.equal(a, b) for a, b in zip(forwards, backwards, strict=True))
    assert all(crop.shape == (1, 4000) and crop.dtype == torch.float32 for crop in forwards)
    assert not torch.equal(forwards[0], forwards[1])
    other = crops(entries, seed=4, gain_db=(-6, 6))
    assert not any(torch.equal(forwards[i], other[i].wave) for i in range(20))
    assert crops(entries)[10**12].wave.shape == (1, 4000)


@pytest.mark.parametrize("megabytes", [100, 0.1], ids=["all", "some"])
def test_the_cache_changes_nothing(entries: list[Entry], megabytes: float) -> None:
    plain, cached = crops(entries), crops(entries, cache_mb=megabytes)
    for index in [*range(30), *range(30)]:
        assert torch.equal(plain[index].wave, cached[index].wave), index


def test_the_cache_saves_decoding(entries: list[Entry], monkeypatch: pytest.MonkeyPatch) -> None:
    cached = crops(entries, cache_mb=100)
    before = [cached[index].wave for index in range(30)]

    def closed(*_: object) -> None:
        raise RuntimeError("a file was opened")

    monkeypatch.setattr("codec.data.crops.AudioReader", closed)
    assert all(torch.equal(cached[i].wave, before[i]) for i in range(30))
    with pytest.raises(RuntimeError, match="opened"):
        crops(entries)[0]


def test_long_files_are_drawn_more_often(tmp_path: Path) -> None:
    entries = [make(tmp_path / "a.wav", 3.0, level=0.1), make(tmp_path / "bb.wav", 1.0, level=0.5)]
    data = crops(entries, cache_mb=10, segment=160)
    loud = sum(float(data[index].wave.abs().max()) > 0.15 for index in range(400))
    assert 70 <= loud <= 130  # 100 expected, 8.7 standard deviation


def test_crops_come_from_all_over_the_file(tmp_path: Path) -> None:
    ramp = np.linspace(0.1, 0.9, RATE, dtype=np.float32)
    audio.write_wav(tmp_path / "ramp.wav", ramp, RATE)
    data = crops([Entry(tmp_path / "ramp.wav", 1.0)], segment=16)
    starts = np.array([float(data[index].wave[0, 0]) for index in range(200)])
    assert starts.min() < 0.15 and starts.max() > 0.85
    assert np.histogram(starts, 4, (0.1, 0.9))[0].min() > 25


def test_short_files_end_in_zeros(tmp_path: Path) -> None:
    crop = crops([make(tmp_path / "short.wav", 0.1)])[0].wave
    assert crop[0, 1600:].abs().max() == 0 and crop[0, :1600].abs().max() > 0


def test_silent_crops_are_drawn_again(tmp_path: Path) -> None:
    quiet = Entry(tmp_path / "quiet.wav", 1.0)
    audio.write_wav(quiet.path, np.zeros(RATE, np.float32), RATE)
    data = crops([quiet, make(tmp_path / "loud.wav", 1.0)], silence_db=-50)
    silent = sum(float(data[index].wave.abs().max()) == 0 for index in range(100))
    assert silent <= 2  # one in 1024 stays silent
    kept = crops([quiet, make(tmp_path / "loud.wav", 1.0)], silence_db=-500)
    assert sum(float(kept[index].wave.abs().max()) == 0 for index in range(100)) == 0


def test_of_silent_crops_alone_the_loudest_is_kept(tmp_path: Path) -> None:
    steps = np.repeat(np.arange(10), RATE // 10).astype(np.float32) * 1e-4
    audio.write_wav(tmp_path / "quiet.wav", steps, RATE)
    data = crops([Entry(tmp_path / "quiet.wav", 1.0)], silence_db=-20, segment=160)
    levels = [float(data[index].wave.abs().mean()) for index in range(20)]
    assert np.mean(levels) > 7e-4  # of ten draws the loudest; one draw gives 4.5e-4


def test_gain_stays_in_its_range(tmp_path: Path) -> None:
    audio.write_wav(tmp_path / "a.wav", np.full(RATE, 0.25, np.float32), RATE)
    data = crops([Entry(tmp_path / "a.wav", 1.0)], gain_db=(-12, 3))
    gains = np.array([20 * np.log10(float(data[index].wave[0, 0]) / 0.25) for index in range(200)])
    assert gains.min() >= -12.001 and gains.max() <= 3.001
    assert gains.min() < -11 and gains.max() > 2


def test_gain_never_clips(tmp_path: Path) -> None:
    entry = make(tmp_path / "a.wav", 1.0, level=0.9)
    data = crops([entry], gain_db=(20, 20))
    peaks = [float(data[index].wave.abs().max()) for index in range(10)]
    assert max(peaks) == pytest.approx(1.0, abs=1e-6) and min(peaks) == pytest.approx(1.0, abs=1e-6)
    ratio = data[0].wave / crops([entry])[0].wave
    assert ratio.nan_to_num(nan=float(ratio[0, 0])).std() < 1e-4  # scaled, not flattened


def test_undecodable_files_are_warned_of_once_and_others_drawn(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    good = make(tmp_path / "good.wav", 1.0)
    (tmp_path / "bad.flac").write_bytes(b"no audio")
    mixed = [good, Entry(tmp_path / "bad.flac", 1.0), Entry(tmp_path / "gone.wav", 1.0)]
    with caplog.at_level(logging.WARNING):
        data = crops(mixed)
        found = [data[index].wave for index in range(40)]
    assert all(float(crop.abs().max()) > 0 for crop in found)
    assert caplog.text.count("bad.flac") == 1 and caplog.text.count("gone.wav") == 1
    again = crops(mixed)
    assert torch.equal(again[39].wave, found[39])


def test_a_corpus_that_cannot_be_decoded_ends_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"only files that cannot be decoded.*gone\.wav"):
        crops([Entry(tmp_path / "gone.wav", 1.0)])[0]
    with pytest.raises(DataError, match="no audio files"):
        crops([])


def test_a_file_shorter_than_the_manifest_says_gives_what_there_is(tmp_path: Path) -> None:
    entry = make(tmp_path / "a.wav", 0.5)
    data = crops([Entry(entry.path, 0.6)], segment=1600)
    assert all(float(data[index].wave.abs().max()) > 0 for index in range(20))


def test_crops_travel_to_workers(entries: list[Entry]) -> None:
    data = crops(entries)
    assert torch.equal(pickle.loads(pickle.dumps(data))[5].wave, data[5].wave)


@pytest.mark.parametrize(
    "wrong", [{"segment": 0}, {"sample_rate": 0}, {"gain_db": (3, -3)}], ids=lambda w: next(iter(w))
)
def test_impossible_settings_are_refused(entries: list[Entry], wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        crops(entries, **wrong)
