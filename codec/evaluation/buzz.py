"""How much of a decoded recording repeats at one interval, as a codec's frames do."""

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Wave = NDArray[np.float32]

_WINDOW_SECONDS = 0.1
_LAG_SECONDS = (0.01, 0.05)  # most codecs' frames, and twice the shortest
_FROM_HZ = 1000.0  # below it speech is mostly pitch
_QUIETEST = 1e-4  # 40 dB under the loudest window
_AT_ONCE = 1200  # windows, to bound memory


def repetition(reference: Wave, decoded: Wave, sample_rate: int) -> float:
    """Correlation of `decoded` with itself one frame ago, above what `reference` has.

    Above 1 kHz, in windows of 100 ms that are less than 40 dB quieter than the loudest: the mean of
    their normalised autocorrelations, decoded less reference, at the lag of 10 to 50 ms where it is
    largest. Pitch moves and averages out; what every frame of a codec says in the same way does
    not.

    Args:
        reference: (samples,) float32.
        decoded: of the same length.
        sample_rate: Hz, of both.

    Returns:
        About 0, of recordings that differ by nothing periodic (0.05 by chance in four seconds),
        to 1. NaN where either is silent or they are shorter than 150 ms.
    """
    window = round(_WINDOW_SECONDS * sample_rate)
    if len(reference) < 3 * window // 2:
        return math.nan
    first, last = (round(seconds * sample_rate) for seconds in _LAG_SECONDS)
    means = [_autocorrelation(wave, window, sample_rate) for wave in (decoded, reference)]
    return float((means[0] - means[1])[first : last + 1].max())


def _autocorrelation(wave: Wave, window: int, sample_rate: int) -> NDArray[np.float64]:
    """Mean over windows of the normalised autocorrelation, by lag in samples; NaN for silence."""
    energy = np.concatenate([power.sum(axis=1) for power in _powers(wave, window, sample_rate)])
    loud = energy > _QUIETEST * energy.max()
    if not loud.any():
        return np.full(window, math.nan)
    total = np.zeros(window)
    first = 0
    for power in _powers(wave, window, sample_rate):
        chosen = power[loud[first : first + len(power)]]
        correlation = np.fft.irfft(chosen, 2 * window)[:, :window]
        total += (correlation / correlation[:, :1]).sum(axis=0)
        first += len(power)
    hann = _hann(window)
    taper = np.fft.irfft(np.square(np.abs(np.fft.rfft(hann, 2 * window))), 2 * window)[:window]
    mean: NDArray[np.float64] = total / loud.sum()
    return mean * taper[0] / np.maximum(taper, 0.05 * taper[0])


def _powers(wave: Wave, window: int, sample_rate: int) -> Iterator[NDArray[np.float64]]:
    """Power spectra (windows, window + 1) above 1 kHz, a minute of them at a time."""
    pieces = np.lib.stride_tricks.sliding_window_view(wave, window)[:: window // 2]
    low = np.fft.rfftfreq(2 * window, 1 / sample_rate) < _FROM_HZ
    for first in range(0, len(pieces), _AT_ONCE):
        # Twice as long as a window: its autocorrelation must not wrap around.
        spectrum = np.fft.rfft(pieces[first : first + _AT_ONCE] * _hann(window), 2 * window)
        power = np.square(np.abs(spectrum))
        power[:, low] = 0
        yield power


def _hann(window: int) -> NDArray[np.float64]:
    return np.hanning(window + 1)[:-1]
