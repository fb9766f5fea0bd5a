import math

import numpy as np
import pytest

from codec.evaluation.signals import f0, flutter, pauses, periodicity, voicing
from tests.support.syllables import RATE, noisy, voiced

FRAME = 320


def fluttering(wave: np.ndarray, depth_db: float, frame: int = FRAME) -> np.ndarray:
    """Louder in one half of each frame than in the other, by so much."""
    place = np.arange(len(wave)) % frame / frame
    return (wave * 10 ** (depth_db * np.cos(2 * np.pi * place) / 40)).astype(np.float32)


def hiss(seconds: float, level: float = 0.1, seed: int = 1) -> np.ndarray:
    return noisy(np.zeros(round(seconds * RATE), np.float32), level, seed)


@pytest.mark.parametrize("depth", [3.0, 8.0])
def test_flutter_is_the_span_of_power_within_a_frame(depth):
    wave = hiss(10)
    span = flutter(wave, fluttering(wave, depth), RATE, frame_seconds=0.02)
    assert span == pytest.approx(depth, rel=0.25)
    assert flutter(wave, wave, RATE, frame_seconds=0.02) == 0


def test_flutter_is_that_of_the_frame_asked_for():
    wave = hiss(10)
    slow = fluttering(wave, 8, frame=400)
    assert flutter(wave, slow, RATE, frame_seconds=0.025) > 6
    assert abs(flutter(wave, slow, RATE, frame_seconds=0.02)) < 0.5


def test_flutter_is_not_one_loud_syllables():
    wave = hiss(8)
    loud = wave.copy()
    loud[RATE : RATE + 160] *= 30
    assert abs(flutter(wave, loud, RATE, frame_seconds=0.02)) < 1


def test_flutter_below_1_khz_is_pitch():
    wave = np.sin(2 * np.pi * 300 * np.arange(4 * RATE) / RATE)
    plain, other = (0.2 * low + hiss(4, 0.01) for low in (wave, fluttering(wave, 8)))
    assert abs(flutter(plain, other, RATE, frame_seconds=0.02)) < 1


def with_pauses() -> np.ndarray:
    """Syllables over a noise 45 dB under them."""
    return noisy(voiced(4), 3e-4)


@pytest.mark.parametrize("decibels", [-10.0, 6.0, 15.0])
def test_pauses_tell_how_much_louder_they_became(decibels):
    wave = with_pauses()
    pause = np.sin(2 * np.pi * 1.5 * np.arange(len(wave)) / RATE) < 0.02
    other = (wave * 10 ** (decibels * pause / 20)).astype(np.float32)
    assert pauses(wave, other, RATE) == pytest.approx(decibels, abs=0.5)


def test_pauses_of_digital_silence_do_not_count_without_end():
    wave, empty = with_pauses(), voiced(4)
    assert -30 < pauses(wave, empty, RATE) < -10
    assert 10 < pauses(empty, wave, RATE) < 30


def test_speech_without_pauses_has_none():
    assert math.isnan(pauses(hiss(3), hiss(3), RATE))


def test_a_voice_with_noise_for_harmonics_is_less_periodic():
    """Harmonics of 1 to 4 kHz give way to noise of their power, and the other way round."""
    time = np.arange(3 * RATE) / RATE
    low = sum(np.sin(2 * np.pi * 120 * n * time + n) for n in range(1, 9))
    high = sum(np.sin(2 * np.pi * 120 * n * time + n * n) for n in range(9, 33))
    spectrum = np.fft.rfft(np.random.default_rng(0).standard_normal(len(time)))
    spectrum[: len(time) // 16], spectrum[len(time) // 4 :] = 0, 0
    noise = np.fft.irfft(spectrum)
    noise *= high.std() / noise.std()
    clear, hoarse = ((0.02 * (low + one)).astype(np.float32) for one in (high, noise))
    assert periodicity(clear, clear, RATE) == 0
    assert periodicity(clear, hoarse, RATE) < -0.4
    assert periodicity(hoarse, clear, RATE) > 0.4


def tone(hz: float) -> np.ndarray:
    time = np.arange(2 * RATE) / RATE
    return sum(0.05 * np.sin(2 * np.pi * n * hz * time) for n in (1, 2, 3)).astype(np.float32)


def test_f0_is_the_error_in_cents():
    assert f0(tone(120), tone(120), RATE) == 0
    assert f0(tone(120), tone(120 * 2 ** (50 / 1200)), RATE) == pytest.approx(50, abs=3)
    assert f0(tone(120), tone(240), RATE) == pytest.approx(1200, abs=30)
    assert math.isnan(f0(tone(120), hiss(2), RATE))


def test_voicing_is_the_share_of_frames_that_are_told_wrongly():
    assert voicing(tone(120), hiss(2), RATE) > 0.9
    assert voicing(tone(120), tone(130), RATE) < 0.02
    half = tone(120)
    half[RATE:] = hiss(1, 0.05)
    assert voicing(tone(120), half, RATE) == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("sample_rate", [8_000, 24_000])
def test_other_rates_are_resampled(sample_rate):
    wave = noisy(voiced(3, sample_rate), 1e-3)
    assert f0(wave, wave, sample_rate) == 0
    assert flutter(wave, wave, sample_rate, frame_seconds=0.02) == 0
