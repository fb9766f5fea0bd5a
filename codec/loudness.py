"""Loudness after ITU-R BS.1770-4: K-weighted, gated, over a whole programme, as a stream."""

import math
from array import array
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.signal import sosfilt  # type: ignore[import-untyped]

from codec.audio_files import Source
from codec.resampling import Samples

# BS.1770-4 tables 1 and 2, for 48 kHz: b0 b1 b2 a0 a1 a2 of the shelf (the head) and the high
# pass.
_STANDARD_RATE = 48_000
_SHELF = (
    1.53512485958697,
    -2.69169618940638,
    1.19839281085285,
    1.0,
    -1.69065929318241,
    0.73248077421585,
)
_HIGH_PASS = (1.0, -2.0, 1.0, 1.0, -1.99004745483398, 0.99007225036621)

_CALIBRATION = 997.0  # Hz
_CORNER = 38.0  # Hz

_OFFSET = -0.691  # dB: makes 997 Hz at full scale in one channel -3.01 LUFS
_ABSOLUTE_GATE = -70.0  # LUFS
_RELATIVE_GATE = -10.0  # LU under the mean of what passes the absolute gate
_STEPS = 4  # a gating block of 400 ms is 4 steps of 100 ms, and begins at every step
_STEPS_PER_SECOND = 10

# Weights by number of channels, which come as FFmpeg orders them: 1.41 for the surrounds at the
# sides, 0 for the low-frequency channel, which is not measured.
_SURROUND = 1.41
_WEIGHTS = {
    4: (1.0, 1.0, _SURROUND, _SURROUND),  # L R Ls Rs
    5: (1.0, 1.0, 1.0, _SURROUND, _SURROUND),  # L R C Ls Rs
    6: (1.0, 1.0, 1.0, 0.0, _SURROUND, _SURROUND),  # 5.1: L R C LFE Ls Rs
    7: (1.0, 1.0, 1.0, 0.0, 1.0, _SURROUND, _SURROUND),  # 6.1: L R C LFE back Ls Rs
    8: (1.0, 1.0, 1.0, 0.0, 1.0, 1.0, _SURROUND, _SURROUND),  # 7.1: L R C LFE Lb Rb Ls Rs
}


def k_weighting(sample_rate: int) -> NDArray[np.float64]:
    """The two biquads of the K-weighting as scipy's second-order sections, (2, 6).

    At 48 kHz they are the standard's. For another rate each is taken back to its analog
    prototype, and from there to the new rate so that the gain stays exactly the standard's at
    0 Hz, at the top, and at one frequency: 997 Hz for the shelf, which the meter is calibrated
    by, and the corner for the high pass. Noise up to 2 kHz is then measured as at 48 kHz within
    0.05 LU at 16 kHz, within 0.2 LU at 8 kHz.
    """
    shelf = _at_rate(_SHELF, sample_rate, _CALIBRATION)
    return np.array([shelf, _at_rate(_HIGH_PASS, sample_rate, _CORNER)])


def _at_rate(section: tuple[float, ...], sample_rate: int, frequency: float) -> NDArray[np.float64]:
    """One biquad of the standard at another rate, by the bilinear transform back and forth."""
    # With z = (1 + s)/(1 - s), p0 + p1/z + p2/z² is (1 + s)^-2 times c0 + c1 s + c2 s².
    to_analog = np.array([[1.0, 1.0, 1.0], [2.0, 0.0, -2.0], [1.0, -1.0, 1.0]])
    b, a = to_analog @ np.array(section[:3]), to_analog @ np.array(section[3:])
    # s is i tan(pi f / rate). The frequency must lie below the top of the rate.
    warped = math.tan(math.pi * min(frequency / sample_rate, 0.45))
    scale = (math.tan(math.pi * frequency / _STANDARD_RATE) / warped) ** np.arange(3)
    b, a = np.linalg.solve(to_analog, b * scale), np.linalg.solve(to_analog, a * scale)
    return np.concatenate((b, a)) / a[0]


class Loudness:
    """Integrated loudness of what is pushed, in pieces of any size with the same result.

    Keeps one number for each 100 ms: 3 MB for 10 hours.

    Attributes:
        samples: pushed so far, per channel.
        peak: the largest absolute sample so far (not the true peak between samples).

    Args:
        sample_rate: Hz; from 10 on, but below 4 kHz the weighting is no longer the standard's.
        channels: 1 to 3 (mono, stereo and a centre) and more than 8 weigh the same; 4 to 8 are
            quad, 5.0, 5.1, 6.1 and 7.1 in FFmpeg's order, with 1.41 for the side surrounds and
            nothing for the low-frequency channel.
    """

    def __init__(self, sample_rate: int, channels: int) -> None:
        if sample_rate < _STEPS_PER_SECOND or channels < 1:
            raise ValueError(
                f"expected at least 10 Hz and a channel, got {sample_rate}, {channels}"
            )
        self.samples = 0
        self.peak = 0.0
        self._rate, self._channels = sample_rate, channels
        self._weights = np.array(_WEIGHTS.get(channels, (1.0,) * channels))
        self._sections = k_weighting(sample_rate)
        self._state = np.zeros((len(self._sections), channels, 2))
        self._rest = np.zeros((channels, 0))  # filtered, less than a step
        self._steps = array("d")  # weighted sums of squares

    def push(self, samples: Samples) -> None:
        """The next float (channels, n) samples, 1.0 being full scale.

        Raises:
            ValueError: another number of channels.
        """
        if samples.ndim != 2 or samples.shape[0] != self._channels:
            raise ValueError(f"expected ({self._channels}, n) samples, got {samples.shape}")
        if not samples.shape[1]:
            return
        self.peak = max(self.peak, float(np.abs(samples).max()))
        filtered, self._state = sosfilt(
            self._sections, samples.astype(np.float64), axis=1, zi=self._state
        )
        first = self.samples - self._rest.shape[1]  # where the rest begins
        self.samples += samples.shape[1]
        self._rest = np.concatenate((self._rest, filtered), axis=1)
        begin = 0
        while (end := self._boundary(len(self._steps) + 1) - first) <= self._rest.shape[1]:
            self._steps.append(self._energy(self._rest[:, begin:end]))
            begin = end
        self._rest = self._rest[:, begin:].copy()

    def lufs(self) -> float:
        """Integrated loudness of all that was pushed, in LUFS; -inf for silence.

        Less than the 400 ms of a gating block, which the standard does not measure, counts as
        one block of its own length.
        """
        if len(self._steps) < _STEPS:
            total = sum(self._steps) + self._energy(self._rest)
            powers = np.array([total / max(self.samples, 1)])
        else:
            sums = np.convolve(np.array(self._steps), np.ones(_STEPS), "valid")
            ends = [self._boundary(index) for index in range(len(self._steps) + 1)]
            powers = sums / (np.array(ends[_STEPS:]) - np.array(ends[:-_STEPS]))
        powers = powers[powers > _power(_ABSOLUTE_GATE)]
        if not powers.size:
            return -math.inf
        gate = powers.mean() * 10 ** (_RELATIVE_GATE / 10)
        return float(_OFFSET + 10 * np.log10(powers[powers > gate].mean()))

    def _boundary(self, step: int) -> int:
        """Samples before a step: steps take turns in length where 100 ms are not whole."""
        return step * self._rate // _STEPS_PER_SECOND

    def _energy(self, filtered: NDArray[np.float64]) -> float:
        # A copy of its own: sums then do not depend on how what was pushed was cut.
        squares = np.square(np.ascontiguousarray(filtered)).sum(axis=1)
        return float((self._weights * squares).sum())


def _power(lufs: float) -> float:
    return float(10 ** ((lufs - _OFFSET) / 10))


@dataclass(frozen=True, slots=True)
class Measured:
    """What one pass over a file found.

    Attributes:
        lufs: integrated loudness; -inf for silence.
        peak: largest absolute sample.
        samples: per channel, as decoded.
        sample_rate: of the file, Hz.
        channels: of the file.
        damaged: packets that could not be decoded.
    """

    lufs: float
    peak: float
    samples: int
    sample_rate: int
    channels: int
    damaged: int


def measure(
    source: Source,
    *,
    channels: int | None = None,
    progress: Callable[[float], None] | None = None,
) -> Measured:
    """Loudness, peak and exact length of a file, decoded once at its own rate.

    Args:
        source: a path or a binary file.
        channels: 1 measures the mean of the channels, which is what a mono codec hears; None
            all of them, as the standard does.
        progress: called with the seconds measured so far, about once for each of them.

    Raises:
        AudioError: no audio file, an empty one, or NaN samples.
    """
    # Only here: writing audio or metering a stream needs no decoder.
    from codec.audio import AudioReader

    with AudioReader(source) as reader:
        rate = reader.info.sample_rate
        meter = Loudness(rate, channels or reader.info.channels)
        for block in reader.blocks(block_samples=rate, channels=channels):
            meter.push(block)
            if progress is not None:
                progress(meter.samples / rate)
        return Measured(
            lufs=meter.lufs(),
            peak=meter.peak,
            samples=meter.samples,
            sample_rate=rate,
            channels=reader.info.channels,
            damaged=reader.damaged,
        )
