"""Resampling of NumPy audio by FFmpeg, whole, in a stream, or just a window of a file."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import av
import numpy as np
from av.audio.frame import AudioFrame
from numpy.typing import NDArray

Samples = NDArray[np.float32]

_FILTER_SIZE = 64  # taps at the lower rate: flat to 0.9 of Nyquist, -93 dB from 1.06 of it on
_FEED = 1 << 16  # samples given to the resampler at a time


@dataclass(frozen=True, slots=True)
class Window:
    """The native samples that a resampled piece is made from.

    Some context is taken on both sides and cut off again, and the context begins at a whole
    period of both rates, so that a piece is bit for bit that stretch of the whole file
    resampled.

    Attributes:
        rate: of the file, Hz.
        sample_rate: of the piece, Hz.
        first: first native sample needed.
        samples: how many native samples, or None for all that follow.
        skip: resampled samples of context before the piece.
        length: of the piece, or None for all that follows.
    """

    rate: int
    sample_rate: int
    first: int
    samples: int | None
    skip: int
    length: int | None

    @classmethod
    def of(cls, rate: int, sample_rate: int, start: float, seconds: float | None) -> Self:
        """The window for ``seconds`` from ``start`` (both in seconds; None: to the end)."""
        begin = round(start * sample_rate)
        length = None if seconds is None else round(seconds * sample_rate)
        if rate == sample_rate:
            return cls(rate, sample_rate, begin, length, 0, length)
        common = math.gcd(rate, sample_rate)
        unit, unit_out = rate // common, sample_rate // common  # a whole period of both grids
        context = math.ceil(_FILTER_SIZE * max(1.0, rate / sample_rate))
        period = max(0, (begin * rate // sample_rate - context) // unit)
        first = period * unit
        samples = None
        if length is not None:
            samples = math.ceil((begin + length) * rate / sample_rate) + context - first
        return cls(rate, sample_rate, first, samples, begin - period * unit_out, length)

    def take(self, whole: Samples) -> Samples:
        """The window's native samples out of a whole file's, (channels, samples)."""
        last = None if self.samples is None else self.first + self.samples
        return whole[:, self.first : last]

    def resample(self, native: Samples) -> Samples:
        """The piece (channels, length or less at the file's end) from the window's samples."""
        if self.rate == self.sample_rate:
            return native
        last = None if self.length is None else self.skip + self.length
        return resample(native, self.rate, self.sample_rate)[:, self.skip : last]


def resampled_length(samples: int, from_rate: int, to_rate: int) -> int:
    """Samples after resampling: samples · to_rate / from_rate to the nearest, halves up."""
    return (2 * samples * to_rate + from_rate) // (2 * from_rate)


def resample(wave: Samples, from_rate: int, to_rate: int) -> Samples:
    """(channels, n) to (channels, resampled_length(n)), band-limited and without delay.

    FFmpeg's swresample with a Kaiser window; both ends are continued by mirroring.
    """
    if from_rate == to_rate:
        return wave
    pieces = (wave[:, i : i + _FEED] for i in range(0, wave.shape[1], _FEED))
    out = [np.zeros((wave.shape[0], 0), np.float32), *resample_stream(pieces, from_rate, to_rate)]
    return np.concatenate(out, axis=1)


def resample_stream(pieces: Iterator[Samples], from_rate: int, to_rate: int) -> Iterator[Samples]:
    """Resample a stream of (channels, n) pieces in constant memory.

    Joined, the output is that of ``resample`` on the joined input, however it is cut.
    """
    resampler: Resampler | None = None
    for piece in pieces:
        if resampler is None:
            resampler = Resampler(from_rate, to_rate, piece.shape[0])
        yield resampler.push(piece)
    if resampler is not None:
        yield resampler.finish()


class Resampler:
    """Resamples what is pushed, in constant memory, to what `resample` makes of the whole.

    Args:
        from_rate: of what is pushed, Hz.
        to_rate: of what is returned, Hz; the same rate passes everything on as it is.
        channels: at least 1.
    """

    def __init__(self, from_rate: int, to_rate: int, channels: int) -> None:
        self._rates = from_rate, to_rate
        self._taken = self._given = 0
        options = {"filter_size": str(_FILTER_SIZE)}
        self._channels = [
            av.AudioResampler("fltp", "mono", to_rate, options=options) for _ in range(channels)
        ]

    def push(self, wave: Samples) -> Samples:
        """The next (channels, n) to what is complete of the output, (channels, 0 or more)."""
        if self._rates[0] == self._rates[1]:
            return wave
        self._taken += wave.shape[1]
        rate = self._rates[0]
        out = [_push(one, channel, rate) for one, channel in zip(self._channels, wave, strict=True)]
        self._given += out[0].size
        return np.clip(np.stack(out), -1.0, 1.0)

    def finish(self) -> Samples:
        """The rest, so that in all there are ``resampled_length`` samples. Then it is used up."""
        if not self._taken:
            return np.zeros((len(self._channels), 0), np.float32)
        tail = np.stack([_push(one, None, self._rates[0]) for one in self._channels])
        missing = resampled_length(self._taken, *self._rates) - self._given
        tail = np.pad(tail[:, : max(missing, 0)], ((0, 0), (0, max(0, missing - tail.shape[1]))))
        return np.clip(tail, -1.0, 1.0)


def _push(resampler: av.AudioResampler, samples: Samples | None, rate: int) -> Samples:
    frame = None
    if samples is not None:
        if not samples.size:
            return np.zeros(0, np.float32)
        plane = np.ascontiguousarray(samples[None], np.float32)
        frame = AudioFrame.from_ndarray(plane, format="fltp", layout="mono")
        frame.sample_rate = rate
    out = [one.to_ndarray()[0] for one in resampler.resample(frame)]
    return np.concatenate([np.zeros(0, np.float32), *out])
