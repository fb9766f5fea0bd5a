import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codec.errors import SottoError
from codec.evaluation.judges import DEFAULT
from codec.evaluation.metrics import buzz, mel_distance, pesq_nb, pesq_wb, stoi
from codec.evaluation.pool import score_pair
from tests.support.syllables import RATE, noisy, voiced

ALL = [pesq_nb, pesq_wb, stoi, mel_distance, buzz]
names = pytest.mark.parametrize("metric", ALL, ids=lambda metric: metric.__name__)


def test_equal_recordings_get_the_best_scores():
    wave = voiced(2)
    scores = score_pair(wave, wave, RATE)
    assert scores["pesq_nb"] == pytest.approx(4.549, abs=0.01)
    assert scores["pesq_wb"] == pytest.approx(4.644, abs=0.01)
    assert scores["stoi"] == pytest.approx(1, abs=1e-3)
    assert scores["mel_distance"] == scores["buzz"] == 0


@pytest.mark.parametrize("sample_rate", [8_000, 16_000, 24_000, 44_100])
def test_more_noise_scores_worse_at_any_rate(sample_rate):
    wave = voiced(2, sample_rate)
    little, much = (score_pair(wave, noisy(wave, level), sample_rate) for level in (2e-3, 3e-2))
    for metric in ("pesq_nb", "pesq_wb", "stoi"):
        assert little[metric] > much[metric]
    assert little["mel_distance"] < much["mel_distance"]


@names
def test_each_metric_is_what_score_pair_says(metric):
    wave = voiced(1.5)
    scores = score_pair(wave, noisy(wave, 1e-2), RATE)
    assert metric(wave, noisy(wave, 1e-2), RATE) == scores[metric.__name__]


@pytest.mark.parametrize("gain", [0.5, 0.1])
def test_mel_distance_of_a_gain_is_that_gain_in_decibels(gain):
    # Noise only, so that no band lies under the floor of 80 dB.
    wave = noisy(np.zeros(RATE, np.float32), 0.1)
    expected = -20 * math.log10(gain)
    assert mel_distance(wave, gain * wave, RATE) == pytest.approx(expected, rel=1e-3)


def test_mel_distance_does_not_hear_what_is_80_db_down():
    wave = voiced(1)
    assert mel_distance(wave, noisy(wave, 1e-9), RATE) < 1e-3


def repeating(wave: np.ndarray, frame: int) -> np.ndarray:
    """Noise that says the same in each frame, as loud as `wave` is there."""
    pattern = np.resize(np.random.default_rng(2).standard_normal(frame), len(wave))
    loudness = np.sqrt(np.convolve(wave**2, np.full(frame, 1 / frame), "same"))
    return (pattern * loudness).astype(np.float32)


@pytest.mark.parametrize("frame_ms", [12.5, 20, 26.7, 40])
@pytest.mark.parametrize("sample_rate", [16_000, 24_000])
def test_what_repeats_with_every_frame_buzzes(frame_ms, sample_rate):
    wave = voiced(4, sample_rate)
    noise = repeating(wave, round(frame_ms * sample_rate / 1000))
    assert buzz(wave, noise, sample_rate) > 0.6
    little, much = (buzz(wave, wave + part * noise, sample_rate) for part in (0.1, 0.5))
    assert 0 < 2 * little < much < 0.5


def test_neither_noise_nor_pitch_buzzes():
    wave = voiced(4)
    assert abs(buzz(wave, noisy(wave, 0.03), RATE)) < 0.07
    assert abs(buzz(wave, voiced(4, seed=3), RATE)) < 0.07
    assert abs(buzz(repeating(wave, 320), repeating(wave, 320), RATE)) == 0


def test_a_buzz_of_minutes_is_that_of_its_parts():
    wave = voiced(4)
    noise = repeating(wave, 320)
    assert buzz(np.tile(wave, 20), np.tile(noise, 20), RATE) == pytest.approx(
        buzz(wave, noise, RATE), abs=0.02
    )


def test_a_buzz_is_as_large_when_quiet():
    wave = voiced(3)
    noise = repeating(wave, 320)
    assert buzz(wave, 0.01 * noise, RATE) == pytest.approx(buzz(wave, noise, RATE), abs=1e-3)


def test_trailing_samples_are_cut():
    wave = voiced(1.5)
    longer = np.concatenate([wave, np.full(300, 0.5, np.float32)])
    assert score_pair(wave, longer, RATE) == score_pair(wave, wave, RATE)
    assert score_pair(longer, wave, RATE) == score_pair(wave, wave, RATE)


@names
def test_a_lost_half_is_no_trailing_sample(metric):
    with pytest.raises(SottoError, match="32000 samples and the decoded recording 16000"):
        metric(voiced(2), voiced(1), RATE)


@names
@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("side", ["reference", "decoded"])
def test_nan_is_an_error_that_names_the_side(metric, bad, side):
    pair = {"reference": voiced(1), "decoded": voiced(1)}
    pair[side][100] = bad
    with pytest.raises(SottoError, match=f"the {side} recording holds NaN"):
        metric(pair["reference"], pair["decoded"], RATE)


@names
@pytest.mark.parametrize("samples", [0, 1, 200, 900])
def test_a_few_samples_are_undefined(metric, samples):
    wave = noisy(np.zeros(samples, np.float32), 0.1)
    assert math.isnan(metric(wave, wave, RATE))


@names
def test_a_silent_reference_is_undefined(metric):
    silent = np.zeros(RATE, np.float32)
    assert math.isnan(metric(silent, voiced(1), RATE))
    assert math.isnan(metric(silent, silent, RATE))


def test_silence_for_speech_is_far_by_mel_and_undefined_else():
    scores = score_pair(voiced(1), np.zeros(RATE, np.float32), RATE)
    assert scores["mel_distance"] > 10
    assert (
        math.isnan(scores["pesq_nb"])
        and math.isnan(scores["pesq_wb"])
        and math.isnan(scores["stoi"])
    )


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 9000), st.sampled_from([8_000, 16_000, 22_050]), st.floats(0, 1))
def test_no_length_or_level_raises(samples, sample_rate, level):
    wave = noisy(np.zeros(samples, np.float32), level)
    scores = score_pair(wave, noisy(wave, 0.01, seed=2), sample_rate)
    for metric in DEFAULT:
        value = scores[metric]
        assert math.isnan(value) or -1 <= value < 500


def test_many_utterances_do_not_end_the_process():
    # In one piece the ITU's program overruns its table of 50 utterances here.
    wave = np.tile(np.repeat([1.0, 0.0], 4000), 160)[: 60 * RATE].astype(np.float32)
    wave *= noisy(np.zeros(len(wave), np.float32), 0.1)
    score = pesq_nb(wave, noisy(wave, 1e-3), RATE)
    assert 1 < score < 4.5
