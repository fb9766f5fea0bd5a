"""What the analysis finds in sounds that are known."""

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from codec.data import analysis
from codec.data.analysis import analyse, frames_of, silence
from codec.extras import MissingPackageError
from codec.nn.parameters import APERIODICITY, ENVELOPE, F0, PARAMETERS

RATE = 16000
HOP = 80


def buzz(f0: NDArray[np.float64], level: float = 0.1, rate: int = RATE) -> NDArray[np.float32]:
    """Harmonics of a pitch that is given for every sample, weaker towards the top."""
    phase = 2 * np.pi * np.cumsum(f0) / rate
    harmonics = range(1, int(0.45 * rate / f0.max()))
    return (level * sum(np.cos(k * phase) / k for k in harmonics)).astype(np.float32)


@given(st.integers(1, 3000))
@settings(max_examples=15, deadline=None)
def test_frames_cover_the_wave(samples: int) -> None:
    found = analyse(np.zeros(samples, np.float32), RATE)
    assert found.shape == (PARAMETERS, -(-samples // HOP)) and found.dtype == np.float32
    assert frames_of(samples, RATE) == found.shape[1]
    assert np.isfinite(found).all()


@pytest.mark.parametrize("rate", [8000, 16000, 24000])
def test_a_steady_voice(rate: int) -> None:
    found = analyse(buzz(np.full(rate // 2, 140.0), rate=rate), rate)[:, 10:-10]
    np.testing.assert_allclose(found[F0], 140, rtol=0.01)
    assert found[APERIODICITY].max() < -7 and found[APERIODICITY].min() >= -60


def test_a_frame_tells_of_the_middle_of_its_hop() -> None:
    time = np.arange(RATE) / RATE
    found = analyse(buzz(100 * 2**time), RATE)[F0]
    middles = (np.arange(200) + 0.5) * 0.005
    # Half a hop is 0.17 % of pitch: ten times what the mean may be off.
    voiced = slice(10, -10)
    off = np.log2(found[voiced] / (100 * 2 ** middles[voiced]))
    assert abs(float(off.mean())) < 0.00025 and float(np.abs(off).max()) < 0.01


def test_silence_and_noise_have_no_voice() -> None:
    for level in (0.0, 0.1):
        wave = level * np.random.default_rng(1).standard_normal(2 * RATE)
        found = analyse(wave.astype(np.float32), RATE)
        assert (found[F0] > 0).mean() < 0.03
        assert found[APERIODICITY].mean() > -1
    assert silence(RATE).shape == (PARAMETERS,)
    assert silence(RATE)[F0] == 0
    assert silence(RATE)[:ENVELOPE] == pytest.approx(-23.3, abs=0.4)


@given(st.floats(0.25, 8))
@settings(max_examples=5, deadline=None)
def test_a_gain_moves_the_envelope(gain: float) -> None:
    wave = buzz(np.linspace(90, 180, RATE // 2))
    wave += 0.003 * np.random.default_rng(0).standard_normal(wave.size).astype(np.float32)
    one, other = analyse(wave, RATE), analyse((gain * wave).astype(np.float32), RATE)
    shift = (other - one)[:ENVELOPE, 10:-10]
    assert np.median(shift) == pytest.approx(2 * np.log(gain), abs=0.02)
    assert np.quantile(np.abs(shift - 2 * np.log(gain)), 0.95) < 0.1


def test_it_is_the_same_every_time() -> None:
    wave = buzz(np.linspace(200, 120, 4000))
    assert np.array_equal(analyse(wave, RATE), analyse(wave.copy(), RATE))


def test_long_recordings_are_analysed_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    wave = buzz(np.linspace(100, 200, 5 * RATE))
    whole = analyse(wave, RATE)
    monkeypatch.setattr(analysis, "_AT_ONCE", 130)
    monkeypatch.setattr(analysis, "_CONTEXT", 100)
    pieces = analyse(wave, RATE)
    assert pieces.shape == whole.shape
    np.testing.assert_allclose(pieces[F0], whole[F0], rtol=0.01)
    assert np.abs(pieces[:ENVELOPE] - whole[:ENVELOPE]).mean() < 0.02


@pytest.mark.parametrize("rate", [11025, 4000])
def test_rates_without_whole_hops_are_refused(rate: int) -> None:
    with pytest.raises(ValueError, match=str(rate)):
        analyse(np.zeros(1000, np.float32), rate)


@pytest.mark.parametrize("shape", [(0,), (1, 1000)])
def test_anything_but_one_wave_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="a wave of"):
        analyse(np.zeros(shape, np.float32), RATE)


def test_without_pyworld_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    analysis._world.cache_clear()
    monkeypatch.setitem(sys.modules, "pyworld", None)
    with pytest.raises(MissingPackageError, match=r"^pyworld is not installed: pip install") as e:
        analyse(np.zeros(1000, np.float32), RATE)
    assert "\n" not in str(e.value)
