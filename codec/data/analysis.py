"""Analysis of speech into the parameters of a voice (`codec.nn.parameters`), by WORLD.

SwiftF0 (Nieradzik 2025) finds the pitch, refined by StoneMask (Morise et al. 2016), CheapTrick the
envelope (Morise 2015), D4C how much of the sound is noise (Morise 2016), as PyWorld has them.
"""

import functools
import warnings
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from codec.extras import needing
from codec.nn.parameters import (
    APERIODICITY,
    APERIODICITY_FLOOR,
    APERIODICITY_HZ,
    ENVELOPE,
    F0,
    FRAMES_PER_SECOND,
    HIGHEST_F0,
    LOWEST_F0,
    PARAMETERS,
    envelope_frequencies,
)
from codec.resampling import resample

Parameters = NDArray[np.float32]

ANALYSIS_VERSION = 2  # raised when the same wave gives other parameters

_NOISE = 1e-5  # deviation of what is added, so that digital silence has a finite logarithm
_PITCH_RATE = 16000  # the tracker's
# Of the tracker, above which there is voice. 21 recordings made again by `codec.nn.voice` had the
# best DistillMOS at 0.05 (3.68; 3.60 at 0.15), better than with Harvest (3.56), which takes five
# times as long.
_CONFIDENCE = 0.05
_LOWEST_RATE = 16000  # below, D4C has no band at 3 kHz, and its test for voice none to compare
# Memory grows with the wave: a recording of hours is cut; frames.
_AT_ONCE = 60 * FRAMES_PER_SECOND
_CONTEXT = FRAMES_PER_SECOND


def hop_samples(sample_rate: int) -> int:
    """Samples of a hop of 5 ms.

    Raises:
        ValueError: they are no whole number, as at 11,025 Hz.
    """
    if sample_rate < 8000 or sample_rate % FRAMES_PER_SECOND:
        raise ValueError(
            f"parameters need a sample rate from 8000 Hz on that is a multiple of "
            f"{FRAMES_PER_SECOND} Hz, not {sample_rate}"
        )
    return sample_rate // FRAMES_PER_SECOND


def frames_of(samples: int, sample_rate: int) -> int:
    """Frames that cover so many samples; the last may reach beyond them."""
    return -(-samples // hop_samples(sample_rate))


def analyse(wave: NDArray[np.float32], sample_rate: int) -> Parameters:
    """Parameters of a voice, every 5 ms.

    Takes 4 % of the wave's duration on one core. The same wave gives the same parameters.

    Args:
        wave: (samples,) float32 in [-1, 1], at least one sample.
        sample_rate: in Hz; 8,000 or more, and a multiple of 200.

    Returns:
        float32 (66, ceil(samples / hop)), rows as in `codec.nn.parameters`; frame t tells of the
        middle of its hop, (t + 0.5) * 5 ms.

    Raises:
        MissingPackageError: PyWorld or SwiftF0 is not installed.
        ValueError: not one wave, or a sample rate without whole hops.
    """
    world = _world()
    hop = hop_samples(sample_rate)
    if wave.ndim != 1 or not wave.size:
        raise ValueError(f"need a wave of (samples,), at least one, got {wave.shape}")
    frames = frames_of(wave.size, sample_rate)
    if sample_rate < _LOWEST_RATE:
        return _analyse_low(wave, sample_rate)
    # Whole hops, and not less than the tracker needs.
    noisy = np.zeros(max(frames * hop, sample_rate // 10))
    noisy[: wave.size] = wave
    noisy += _NOISE * np.random.default_rng(0).standard_normal(noisy.size)
    if frames <= _AT_ONCE + 2 * _CONTEXT:
        return _analyse(world, noisy, sample_rate)[:, :frames]
    pieces = []
    for first in range(0, frames, _AT_ONCE):
        begin = max(first - _CONTEXT, 0)
        piece = noisy[begin * hop : (first + _AT_ONCE + _CONTEXT) * hop]
        inside = slice(first - begin, first - begin + _AT_ONCE)
        pieces.append(_analyse(world, piece, sample_rate)[:, inside])
    return np.concatenate(pieces, axis=1)


@functools.cache
def silence(sample_rate: int) -> Parameters:
    """Parameters of digital silence, (66,) float32: the mean over a second of it."""
    return analyse(np.zeros(sample_rate, np.float32), sample_rate).mean(axis=1)


def _analyse_low(wave: NDArray[np.float32], sample_rate: int) -> Parameters:
    """`analyse` of a rate at which D4C does not work, by way of a multiple of it."""
    factor = -(-_LOWEST_RATE // sample_rate)
    high = sample_rate * factor
    found = analyse(resample(wave[None], sample_rate, high)[0], high)
    points, there = envelope_frequencies(sample_rate), envelope_frequencies(high)
    to_points = np.stack([np.interp(points, there, row) for row in np.eye(ENVELOPE)], axis=1)
    # The same power in a share of the band.
    found[:ENVELOPE] = to_points @ found[:ENVELOPE] - np.log(factor)
    return found


def _analyse(world: ModuleType, noisy: NDArray[np.float64], sample_rate: int) -> Parameters:
    """Parameters of a piece of whole hops, (66, hops)."""
    frames = noisy.size // hop_samples(sample_rate)
    times = (np.arange(frames) + 0.5) / FRAMES_PER_SECOND
    f0 = _pitch(world, noisy, sample_rate, frames)
    size = world.get_cheaptrick_fft_size(sample_rate, LOWEST_F0)  # 1024 at 16 kHz
    bands = world.d4c(noisy, f0, times, sample_rate, fft_size=size)
    aperiodicity = _at(APERIODICITY_HZ, 20 * np.log10(bands), sample_rate)
    power = world.cheaptrick(noisy, f0, times, sample_rate, fft_size=size)
    parameters = np.empty((PARAMETERS, frames), np.float32)
    parameters[:ENVELOPE] = _at(envelope_frequencies(sample_rate), np.log(power), sample_rate).T
    parameters[APERIODICITY] = np.clip(aperiodicity, APERIODICITY_FLOOR, 0.0)
    parameters[F0] = f0
    return parameters


def _pitch(
    world: ModuleType, wave: NDArray[np.float64], sample_rate: int, frames: int
) -> NDArray[np.float64]:
    """F0 in Hz at the middle of each hop, (frames,), 0 where there is none."""
    times = (np.arange(frames) + 0.5) / FRAMES_PER_SECOND
    heard = wave.astype(np.float32)
    if sample_rate != _PITCH_RATE:
        heard = resample(heard[None], sample_rate, _PITCH_RATE)[0]
    found = _tracker().detect(heard, _PITCH_RATE, fmin=LOWEST_F0, fmax=HIGHEST_F0)
    confidence = np.interp(times, found.timestamps, found.confidence)
    logs = np.log(np.clip(found.pitch_hz, LOWEST_F0, HIGHEST_F0))
    f0 = np.exp(np.interp(times, found.timestamps, logs))
    f0[confidence < _CONFIDENCE] = 0.0
    f0 = world.stonemask(wave, f0, times, sample_rate)
    return np.where(f0 > 0, np.clip(f0, LOWEST_F0, HIGHEST_F0), 0.0)


def _at(
    frequencies: NDArray[np.float64] | float, spectra: NDArray[np.float64], sample_rate: int
) -> NDArray[np.float64]:
    """Spectra (frames, bins) at frequencies in Hz (points,), linear between bins: (frames, points).

    One frequency gives (frames,).
    """
    last = spectra.shape[1] - 1
    places = np.asarray(frequencies) * (2 * last / sample_rate)
    below = np.minimum(np.floor(places).astype(int), last - 1)
    share = places - below
    return spectra[:, below] * (1 - share) + spectra[:, below + 1] * share


@functools.cache
def _tracker() -> Any:
    with needing("torch"):
        from swift_f0 import SwiftF0
    return SwiftF0(threads=1, spin=False)


@functools.cache
def _world() -> ModuleType:
    with needing("torch"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it imports pkg_resources, which is deprecated
        import pyworld
    assert isinstance(pyworld, ModuleType)
    return pyworld
