import numpy as np
import pytest

from codec.evaluation.pitch import track_pitch
from tests.support.syllables import RATE, noisy, voiced


def cents(hz: np.ndarray, expected: np.ndarray | float) -> np.ndarray:
    return 1200 * np.abs(np.log2(hz / expected))


def pulses(hz: np.ndarray) -> np.ndarray:
    """Equal harmonics below 4 kHz of a pitch given for every sample."""
    phase = 2 * np.pi * np.cumsum(hz) / RATE
    harmonics = range(1, int(4000 / hz.max()))
    return (0.02 * sum(np.cos(n * phase) for n in harmonics)).astype(np.float32)


@pytest.mark.parametrize("hz", [65.0, 100.0, 142.7, 233.0, 341.0, 480.0])
def test_a_steady_voice_has_its_pitch(hz):
    pitch = track_pitch(pulses(np.full(RATE, hz)))
    assert pitch.hz.shape == (101,)
    inner = pitch.hz[5:-5]
    assert (inner > 0).all()
    assert cents(inner, hz).max() < 8


def test_a_gliding_voice_is_followed():
    hz = 120 * 2 ** np.sin(2 * np.pi * 0.5 * np.arange(2 * RATE) / RATE)
    pitch = track_pitch(pulses(hz))
    assert cents(pitch.hz[5:-5], hz[160 * np.arange(5, len(pitch.hz) - 5)]).max() < 40


def test_a_pure_tone_has_a_pitch_and_noise_and_silence_have_none():
    time = np.arange(RATE) / RATE
    tone = (0.1 * np.sin(2 * np.pi * 200 * time)).astype(np.float32)
    assert cents(track_pitch(tone).hz[5:-5], 200).max() < 5
    assert track_pitch(noisy(np.zeros(RATE, np.float32), 0.1)).voiced.mean() < 0.05
    assert not track_pitch(np.zeros(RATE, np.float32)).voiced.any()


def test_syllables_are_voiced_and_pauses_are_not():
    wave = noisy(voiced(4), 1e-4)
    pitch = track_pitch(wave)
    time = np.arange(len(pitch.hz)) * 0.01
    syllable = np.sin(2 * np.pi * 1.5 * time)
    assert pitch.voiced[syllable > 0.3].mean() > 0.98
    assert pitch.voiced[syllable < -0.3].mean() < 0.02
    expected = 120 + 20 * np.sin(2 * np.pi * 0.7 * time)
    told = pitch.voiced & (syllable > 0.3)
    assert np.median(cents(pitch.hz[told], expected[told])) < 8


def test_noise_of_a_tenth_does_not_move_the_pitch():
    clean = pulses(np.full(RATE, 150.0))
    assert cents(track_pitch(noisy(clean, 0.1 * clean.std())).hz[5:-5], 150).max() < 20


def test_minutes_are_tracked_in_pieces():
    wave = pulses(np.full(20 * RATE, 100.0))
    assert cents(track_pitch(wave).hz[5:-5], 100).max() < 5


@pytest.mark.parametrize("samples", [1, 100, 160, 700])
def test_a_few_samples_have_as_many_frames(samples):
    assert len(track_pitch(np.ones(samples, np.float32)).hz) == samples // 160 + 1
