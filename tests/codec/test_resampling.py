"""Resampling: lengths, accuracy, and pieces that equal the whole."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codec.resampling import Resampler, Window, resample, resample_stream, resampled_length

PAIRS = [(48000, 16000), (44100, 16000), (8000, 16000), (22050, 24000), (12345, 16000)]


@pytest.mark.parametrize(("old", "new"), PAIRS)
def test_tones_keep_their_phase_and_length(old: int, new: int) -> None:
    samples = old + 13
    wave = 0.5 * np.sin(2 * np.pi * 440 * np.arange(samples) / old)[None].astype(np.float32)
    out = resample(wave, old, new)
    assert out.shape == (1, resampled_length(samples, old, new))
    expected = 0.5 * np.sin(2 * np.pi * 440 * np.arange(out.shape[1]) / new)
    assert np.abs(out[0] - expected)[200:-200].max() < 1e-4


@pytest.mark.parametrize("old", [48000, 44100])
def test_what_the_new_rate_cannot_hold_is_removed(old: int) -> None:
    wave = np.sin(2 * np.pi * 9000 * np.arange(old) / old)[None].astype(np.float32)
    assert np.abs(resample(wave, old, 16000)[0, 500:-500]).max() < 1e-3


@settings(max_examples=25, deadline=None)
@given(
    pair=st.sampled_from(PAIRS),
    samples=st.integers(1, 12000),
    start=st.floats(0, 1),
    seconds=st.floats(0.001, 0.5),
)
def test_a_window_is_the_slice_of_the_whole_bit_for_bit(
    pair: tuple[int, int], samples: int, start: float, seconds: float
) -> None:
    old, new = pair
    wave = np.random.default_rng(samples).uniform(-0.5, 0.5, (2, samples)).astype(np.float32)
    whole = resample(wave, old, new)
    window = Window.of(old, new, start, seconds)
    first = round(start * new)
    expected = whole[:, first : first + round(seconds * new)]
    np.testing.assert_array_equal(window.resample(window.take(wave)), expected)


@settings(max_examples=15, deadline=None)
@given(pair=st.sampled_from(PAIRS), cuts=st.lists(st.integers(0, 5000), max_size=5))
def test_how_a_stream_is_cut_makes_no_difference(pair: tuple[int, int], cuts: list[int]) -> None:
    old, new = pair
    wave = np.random.default_rng(0).uniform(-0.5, 0.5, (1, 5000)).astype(np.float32)
    pieces = np.split(wave, sorted(cuts), axis=1)
    streamed = np.concatenate(list(resample_stream(iter(pieces), old, new)), axis=1)
    np.testing.assert_array_equal(streamed, resample(wave, old, new))


@pytest.mark.parametrize("pair", [*PAIRS, (16000, 16000)])
def test_pushing_gives_what_the_whole_gives(pair: tuple[int, int]) -> None:
    wave = np.random.default_rng(0).uniform(-0.5, 0.5, (2, 9001)).astype(np.float32)
    resampler = Resampler(*pair, channels=2)
    pieces = [resampler.push(wave[:, begin : begin + 1000]) for begin in range(0, 9001, 1000)]
    found = np.concatenate([*pieces, resampler.finish()], axis=1)
    np.testing.assert_array_equal(found, resample(wave, *pair))


def test_nothing_pushed_gives_nothing() -> None:
    assert Resampler(8000, 16000, channels=3).finish().shape == (3, 0)
    assert list(resample_stream(iter([]), 8000, 16000)) == []
