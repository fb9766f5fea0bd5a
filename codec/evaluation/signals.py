"""What can be measured on a signal by itself: pitch, its regularity, frames one hears, hiss."""

import math

import numpy as np
from numpy.typing import NDArray

from codec.evaluation.pairs import SCORED_RATE, Wave, judging
from codec.evaluation.pitch import HOP_SECONDS, track_pitch

_FLUTTER_FROM_HZ = 1000.0  # below it speech is mostly pitch, which no frame needs to be heard for
_FLUTTER_SMOOTH_SECONDS = 0.002
_FLUTTER_FRAMES = 3  # that the level about a place is taken over
_FLUTTER_QUIETEST = 1e-4  # 40 dB under the loudest place
_FLUTTER_FEWEST = 25  # frames

_LEVEL_SECONDS = 0.02
_PAUSE_BELOW = 30.0  # dB under speech
_PAUSE_LOWEST = 70.0  # dB under speech: what is lower counts as that
_PAUSE_FEWEST = 10  # frames of 20 ms
_SPEECH_PERCENTILE = 95

_BAND_HZ = (1000.0, 4000.0)
_PERIOD_SECONDS = 0.05
_PERIOD_FINER = 4  # times as finely as samples, for 4 kHz has four of them a period
_PERIOD_TOLERANCE = 0.03
_FEWEST_VOICED = 10  # frames of 10 ms
_AT_ONCE = 500  # frames, to bound memory


@judging(shortest=0.5)
def flutter(reference: Wave, decoded: Wave, *, frame_seconds: float) -> float:
    """How much more than the original's the power above 1 kHz depends on the place in a frame.

    The power, averaged over 2 ms, over its mean in the three frames about it, so that no loud
    syllable decides; the mean of that over frames, at each place in the frame; the largest place
    over the smallest in dB, less that of the original. Frames more than 40 dB under the loudest
    are left out. The original's own span is what chance leaves: about 1 dB in six seconds.

    Returns:
        dB, about 0 where nothing happens at the frame's rate. Arguments and errors as
        `codec.evaluation.metrics.pesq_nb`; NaN where silent or under half a second of sound.
    """
    frame = round(frame_seconds * SCORED_RATE)
    return _span_by_place(decoded, frame) - _span_by_place(reference, frame)


def _span_by_place(wave: Wave, frame: int) -> float:
    spectrum = np.fft.rfft(wave, 2 * len(wave))
    spectrum[np.fft.rfftfreq(2 * len(wave), 1 / SCORED_RATE) < _FLUTTER_FROM_HZ] = 0
    power = np.square(np.fft.irfft(spectrum)[: len(wave)])
    local = _moving_mean(power, round(_FLUTTER_SMOOTH_SECONDS * SCORED_RATE))
    level = _moving_mean(power, _FLUTTER_FRAMES * frame)
    frames = len(power) // frame
    level = level[: frames * frame].reshape(frames, frame)
    local = local[: frames * frame].reshape(frames, frame)
    loud = level.min(axis=1) > _FLUTTER_QUIETEST * level.max()
    if loud.sum() < _FLUTTER_FEWEST:
        return math.nan
    by_place = (local[loud] / level[loud]).mean(axis=0)
    return float(10 * np.log10(by_place.max() / by_place.min()))


def _moving_mean(values: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    sums = np.cumsum(np.pad(values, (width // 2 + 1, width - width // 2 - 1), mode="edge"))
    return np.maximum(sums[width:] - sums[:-width], 1e-30) / width  # rounding may go below 0


@judging(shortest=0.2)
def pauses(reference: Wave, decoded: Wave) -> float:
    """Level of what was decoded in the original's pauses, less the original's there.

    A pause is what lies 30 dB or more under speech (the 95th percentile of levels in 20 ms), with
    its neighbours on either side. The mean over pauses of the difference of levels in dB, what is
    70 dB under speech or lower counting as that.

    Returns:
        dB: 0 as the original, more for a hiss, less for pauses that were cleaned. Arguments and
        errors as `codec.evaluation.metrics.pesq_nb`; NaN where silent or under 0.2 s of pauses.
    """
    size = round(_LEVEL_SECONDS * SCORED_RATE)
    original, made = (_levels(wave, size) for wave in (reference, decoded))
    speech = np.percentile(original, _SPEECH_PERCENTILE)
    quiet = np.pad(original < speech - _PAUSE_BELOW, 1, constant_values=True)
    pause = quiet[:-2] & quiet[1:-1] & quiet[2:]
    if pause.sum() < _PAUSE_FEWEST:
        return math.nan
    lowest = speech - _PAUSE_LOWEST
    change = np.maximum(made, lowest) - np.maximum(original, lowest)
    return float(change[pause].mean())


def _levels(wave: Wave, size: int) -> NDArray[np.float64]:
    """DB of each stretch of `size` samples."""
    pieces = wave[: len(wave) // size * size].reshape(-1, size).astype(np.float64)
    return 10 * np.log10(np.square(pieces).mean(axis=1) + 1e-14)


@judging(shortest=0.1)
def periodicity(reference: Wave, decoded: Wave) -> float:
    """How regular 1 to 4 kHz is at the original's pitch, less the original's own.

    The normalised autocorrelation of 50 ms about each frame in which the original is voiced, at
    its period there (the largest within 3 %); the mean of what was decoded less the original's.

    Returns:
        Less than 0 where a voice became hoarse or noisy, more where noise became a voice; 0 at
        best. Arguments and errors as `codec.evaluation.metrics.pesq_nb`; NaN where silent or
        under 0.1 s of voice.
    """
    pitch = track_pitch(reference)
    frames = np.flatnonzero(pitch.voiced)
    if len(frames) < _FEWEST_VOICED:
        return math.nan
    lags = SCORED_RATE / pitch.hz[frames]
    places = frames * round(HOP_SECONDS * SCORED_RATE)
    made, original = (_regularity(wave, places, lags) for wave in (decoded, reference))
    return float((made - original).mean())


def _regularity(
    wave: Wave, places: NDArray[np.int64], lags: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Correlation (frames,) about samples `places` with what comes `lags` samples later."""
    spectrum = np.fft.rfft(wave, 2 * len(wave))
    hz = np.fft.rfftfreq(2 * len(wave), 1 / SCORED_RATE)
    spectrum[(hz < _BAND_HZ[0]) | (hz > _BAND_HZ[1])] = 0
    size = round(_PERIOD_SECONDS * SCORED_RATE)
    padded = np.pad(np.fft.irfft(spectrum)[: len(wave)], size)
    window = np.hanning(size + 2)[1:-1]
    taper = _autocorrelations(window[None])[0]
    best = np.zeros(len(places))
    for first in range(0, len(places), _AT_ONCE):
        some = slice(first, first + _AT_ONCE)
        starts = places[some, None] + size // 2
        correlation = _autocorrelations(padded[starts + np.arange(size)] * window)
        correlation /= np.maximum(correlation[:, :1], 1e-20)
        correlation /= np.maximum(taper / taper[0], 0.05)
        best[some] = _largest_near(correlation, _PERIOD_FINER * lags[some])
    return np.minimum(best, 1.0)


def _autocorrelations(pieces: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, samples) -> (n, lags), `_PERIOD_FINER` of them a sample, up to half of a piece."""
    size = pieces.shape[1]
    power = np.square(np.abs(np.fft.rfft(pieces, 2 * size)))
    return np.fft.irfft(power, 2 * size * _PERIOD_FINER)[:, : size * _PERIOD_FINER // 2 + 1]


def _largest_near(
    correlation: NDArray[np.float64], lags: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Largest of each row within `_PERIOD_TOLERANCE` of its lag."""
    numbers = np.arange(correlation.shape[1])
    near = np.abs(numbers - lags[:, None]) <= np.maximum(_PERIOD_TOLERANCE * lags[:, None], 1)
    return np.where(near, correlation, -1.0).max(axis=1)


@judging(shortest=0.1)
def f0(reference: Wave, decoded: Wave) -> float:
    """Error of the pitch where both recordings are voiced, mean of its size in cents.

    Octaves that were mistaken count as 1200. Arguments and errors as
    `codec.evaluation.metrics.pesq_nb`; NaN where silent or where under 0.1 s is voiced in both.
    """
    original, made = track_pitch(reference), track_pitch(decoded)
    both = original.voiced & made.voiced
    if both.sum() < _FEWEST_VOICED:
        return math.nan
    return float(1200 * np.abs(np.log2(made.hz[both] / original.hz[both])).mean())


@judging(shortest=0.1)
def voicing(reference: Wave, decoded: Wave) -> float:
    """Share of frames, 0 to 1, that are voiced in one recording and not in the other.

    Arguments and errors as `codec.evaluation.metrics.pesq_nb`; NaN where silent.
    """
    return float((track_pitch(reference).voiced != track_pitch(decoded).voiced).mean())
