"""The pitch of a voice over time: normalised cross-correlation, and the best path through it.

After RAPT (Talkin 1995, "A robust algorithm for pitch tracking"): candidates are peaks of the
correlation of a short stretch with what comes a lag later; dynamic programming takes those that
correlate well and make a smooth curve. In NumPy alone, so that a metric needs nothing installed.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from codec.evaluation.pairs import SCORED_RATE, Wave, remembering

LOWEST_HZ, HIGHEST_HZ = 60.0, 500.0
HOP_SECONDS = 0.01

_WINDOW_SECONDS = 0.03
_PASS_HZ = 1500.0  # above it a voice's harmonics are less regular than its pitch
_CANDIDATES = 8
_AT_ONCE = 1500  # frames, to bound memory
# Costs of a path, in units of the correlation's shortfall from 1.
_UNVOICED = 0.45
_LAG_WEIGHT = 0.1  # how much the longest lag costs: of two periods the shorter is the pitch
_JUMP = 0.5  # of an octave from a frame to the next
_SWITCH = 0.15  # from voiced to unvoiced and back
_QUIETEST = 1e-5  # 50 dB under the loudest frame: noise may correlate, nobody hears it


@dataclass(frozen=True)
class Pitch:
    """Of a recording, 100 times a second.

    Attributes:
        hz: float64 (frames,), 0 where there is no voice. Frame t is about the sample t * 160.
    """

    hz: NDArray[np.float64]

    @property
    def voiced(self) -> NDArray[np.bool_]:
        """(frames,), whether there is a voice."""
        return self.hz > 0


@remembering(last=4)
def track_pitch(wave: Wave) -> Pitch:
    """Pitch of float32 (samples,) at 16 kHz; samples // 160 + 1 frames."""
    correlation, energy = _correlations(_low_passed(wave))
    lags, costs = _candidates(correlation)
    costs[energy < _QUIETEST * max(float(energy.max()), 1e-20)] = np.inf
    return Pitch(_best_path(lags, costs))


def _low_passed(wave: Wave) -> NDArray[np.float64]:
    spectrum = np.fft.rfft(wave, 2 * len(wave))
    hz = np.fft.rfftfreq(2 * len(wave), 1 / SCORED_RATE)
    return np.fft.irfft(spectrum / (1 + (hz / _PASS_HZ) ** 8))[: len(wave)]


def _correlations(wave: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Normalised cross-correlation (frames, lags) of lags 0 to the longest, and energy (frames,).

    At a lag, the window and the one that far after it lie evenly about the frame's place.
    """
    hop, window = round(HOP_SECONDS * SCORED_RATE), round(_WINDOW_SECONDS * SCORED_RATE)
    longest = round(SCORED_RATE / LOWEST_HZ) + 2
    span = window + longest
    padded = np.pad(wave, span)
    starts = span + hop * np.arange(len(wave) // hop + 1) - span // 2
    size = 1 << (span + window).bit_length()
    correlations, energies = [], []
    for first in range(0, len(starts), _AT_ONCE):
        places = starts[first : first + _AT_ONCE, None] + np.arange(span)
        pieces = padded[places]
        pieces = pieces - pieces.mean(axis=1, keepdims=True)
        spectra = np.fft.rfft(pieces, size)
        product = np.conj(np.fft.rfft(pieces[:, :window], size)) * spectra
        dots = np.fft.irfft(product, size)[:, : longest + 1]
        sums = np.cumsum(np.pad(pieces**2, ((0, 0), (1, 0))), axis=1)
        energy = sums[:, window:] - sums[:, : longest + 1]
        correlations.append(dots / np.sqrt(np.maximum(energy[:, :1] * energy, 1e-30)))
        energies.append(sums[:, -1])
    return np.concatenate(correlations), np.concatenate(energies)


def _candidates(
    correlation: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The highest peaks of each frame: lags in samples and costs, both (frames, candidates)."""
    shortest = round(SCORED_RATE / HIGHEST_HZ)
    before, here, after = correlation[:, :-2], correlation[:, 1:-1], correlation[:, 2:]
    peaks = (here >= before) & (here > after)
    peaks[:, : shortest - 1] = False  # column i is lag i + 1
    height = np.where(peaks, here, -np.inf)
    best = np.argsort(-height, axis=1)[:, :_CANDIDATES]
    rows = np.arange(len(height))[:, None]
    a, b, c = before[rows, best], here[rows, best], after[rows, best]
    bend = np.minimum(a - 2 * b + c, -1e-12)
    shift = np.clip((a - c) / (2 * bend), -0.5, 0.5)  # the parabola's top
    lags = best + 1 + shift
    tops = np.minimum(b - (a - c) * shift / 4, 1.0)
    longest = SCORED_RATE / LOWEST_HZ
    costs = np.where(peaks[rows, best], 1 - tops * (1 - _LAG_WEIGHT * lags / longest), np.inf)
    return lags, costs


def _best_path(lags: NDArray[np.float64], costs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Hz by frame of the cheapest sequence of candidates (Viterbi); the last state is no voice."""
    frames, n = costs.shape
    octaves = np.log2(lags)
    total = np.append(costs[0], _UNVOICED)
    came_from = np.zeros((frames, n + 1), np.int64)
    for t in range(1, frames):
        step = np.full((n + 1, n + 1), _SWITCH)
        step[:n, :n] = _JUMP * np.abs(octaves[t - 1][:, None] - octaves[t][None])
        step[n, n] = 0
        paths = total[:, None] + step
        came_from[t] = paths.argmin(axis=0)
        total = paths.min(axis=0) + np.append(costs[t], _UNVOICED)
    hz = np.zeros(frames)
    state = int(total.argmin())
    for t in range(frames - 1, -1, -1):
        if state < n:
            hz[t] = SCORED_RATE / lags[t, state]
        state = int(came_from[t, state])
    return hz
