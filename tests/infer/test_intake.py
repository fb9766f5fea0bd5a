from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from codec import audio
from codec.audio_writing import AudioWriter
from codec.errors import AudioError
from codec.loudness import Loudness
from infer.intake import (
    MAX_GAIN_DB,
    MAX_RATE,
    TRAINED_LUFS,
    Channels,
    Intake,
    Survey,
    coded_length,
    survey,
)

Wav = Callable[..., Path]


def ignore(share: float) -> None:
    pass


def made(path: Path, wave: np.ndarray, sample_rate: int = 16_000) -> Path:
    with AudioWriter(path, sample_rate=sample_rate, channels=len(wave), bits=32) as writer:
        writer.write(wave.astype(np.float32))
    return path


def speech_like(seconds: float, level: float, sample_rate: int = 16_000) -> np.ndarray:
    """Noise that comes and goes, (1, samples)."""
    times = np.arange(round(seconds * sample_rate)) / sample_rate
    noise = np.random.default_rng(0).standard_normal(len(times))
    return (level * np.clip(noise, -3, 3) * (np.sin(3 * times) > -0.5))[None]


def taken(path: Path, channels: Channels, gain_db: float, sample_rate: int = 16_000) -> np.ndarray:
    with Intake(path, channels) as intake:
        return np.concatenate(list(intake.waves(sample_rate, gain_db)), axis=1)


@pytest.mark.parametrize("level", [0.003, 0.02, 0.2])
@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_one_gain_brings_a_file_to_the_level_of_training(
    tmp_path: Path, level: float, rate: int
) -> None:
    source = made(tmp_path / "x.wav", speech_like(6, level, rate), rate)
    found = survey(source, "mono", ignore)
    gain_db = found.gain_db(TRAINED_LUFS)
    assert found.samples == 6 * rate and gain_db == round(gain_db, 3)
    wave = taken(source, "mono", gain_db, rate)
    plain = taken(source, "mono", 0.0, rate)
    np.testing.assert_allclose(wave, plain * 10 ** (gain_db / 20), rtol=1e-5)
    loudness = Loudness(rate, 1)
    loudness.push(wave)
    assert loudness.lufs() == pytest.approx(TRAINED_LUFS, abs=0.01)


def test_each_kept_channel_gets_the_level_that_it_would_have_alone(tmp_path: Path) -> None:
    wave = speech_like(4, 0.02)
    alone = survey(made(tmp_path / "1.wav", wave), "mono", ignore)
    both = made(tmp_path / "2.wav", np.concatenate([wave, wave]))
    for channels in ("mono", "keep"):
        assert survey(both, channels, ignore).lufs == pytest.approx(alone.lufs, abs=0.01)


@pytest.mark.parametrize(
    ("lufs", "peak", "gain_db"),
    [
        pytest.param(-33.0, 0.1, 10.0, id="louder"),
        pytest.param(-13.0, 1.0, -10.0, id="softer"),
        pytest.param(-33.0, 0.5, 6.020, id="no-louder-than-full-scale"),
        pytest.param(-33.0, 1.0, 0.0, id="at-full-scale"),
        pytest.param(-69.0, 0.0001, MAX_GAIN_DB, id="no-more-than-so-much"),
        pytest.param(-np.inf, 0.0, 0.0, id="silence"),
        pytest.param(-np.inf, 0.1, 0.0, id="too-short-or-soft-to-measure"),
        pytest.param(np.nan, 0.1, 0.0, id="not-a-number"),
    ],
)
def test_the_gain_has_its_limits(lufs: float, peak: float, gain_db: float) -> None:
    assert Survey(1000, lufs, peak).gain_db(-23.0) == pytest.approx(gain_db, abs=1e-9)


def test_no_gain_clips(tmp_path: Path) -> None:
    wave = speech_like(4, 0.005)
    wave[0, 1000] = 0.7
    source = made(tmp_path / "x.wav", wave)
    gain_db = survey(source, "mono", ignore).gain_db(TRAINED_LUFS)
    assert 0 < gain_db < 3.1
    assert np.abs(taken(source, "mono", gain_db)).max() <= 1.0


@pytest.mark.parametrize("seconds", [0.1, 3])
def test_silence_stays_silence(tmp_path: Path, seconds: float) -> None:
    source = made(tmp_path / "x.wav", np.zeros((1, round(seconds * 16_000))))
    found = survey(source, "mono", ignore)
    assert found.gain_db(TRAINED_LUFS) == 0.0 and not taken(source, "mono", 0.0).any()


@pytest.mark.parametrize(("channels", "rows"), [("mono", 1), ("keep", 3)])
def test_pieces_are_the_whole_file_resampled(wav: Wav, channels: Channels, rows: int) -> None:
    source = wav("x.wav", 100_001, sample_rate=22_050, channels=3)
    wave = taken(source, channels, 0.0)
    expected, _ = audio.read(source, sample_rate=16_000)
    if channels == "mono":
        expected = expected.mean(axis=0, keepdims=True)
    assert wave.shape == (rows, expected.shape[1])
    np.testing.assert_allclose(wave, expected, atol=2e-6)
    with Intake(source, channels) as intake:
        for _ in intake.waves(16_000, 0.0):
            pass
        assert intake.samples == 100_001 and intake.share(None) == 1.0


@pytest.mark.parametrize(
    ("rate", "channels", "reason"),
    [
        pytest.param(1, 1, "1 Hz", id="slow"),
        pytest.param(MAX_RATE + 1, 1, "768,001 Hz", id="fast"),
        pytest.param(8000, 256, "256 channels", id="wide"),
    ],
)
def test_what_no_file_can_hold_is_refused_by_its_name(
    wav: Wav, rate: int, channels: int, reason: str
) -> None:
    source = wav("odd.wav", 20, sample_rate=rate, channels=channels)
    with pytest.raises(AudioError, match=rf"odd\.wav: {reason} cannot be encoded"):
        Intake(source, "mono")


@pytest.mark.parametrize(("samples", "length"), [(1, 1), (2, 1), (3, 1), (5, 2), (44_100, 16_000)])
def test_the_least_audio_is_a_sample(wav: Wav, samples: int, length: int) -> None:
    wave = taken(wav("x.wav", samples, sample_rate=44_100), "keep", 0.0)
    assert wave.shape == (1, length) and length == coded_length(samples, 44_100, 16_000)
    assert coded_length(0, 44_100, 16_000) == 0
