"""Levels and loads, smoothed so that they can be read."""

import math

import numpy as np
from numpy.typing import NDArray

SILENCE = -90.0
"""dBFS that anything quieter is shown as."""

_RMS_SECONDS = 0.3  # the time constant of a VU meter (IEC 60268-17)
_FALL_DB = 20.0  # a second: how fast a peak falls back, near what IEC 60268-10 has
_LOAD_SECONDS = 2.0


class Level:
    """Peak and RMS of a wave that goes by, in dBFS: 0 is full scale, for a sine -3.01 RMS."""

    def __init__(self, sample_rate: int) -> None:
        self._rate = sample_rate
        self._peak = SILENCE
        self._square = 0.0

    @property
    def peak(self) -> float:
        """dBFS: the largest magnitude, falling by 20 dB a second."""
        return self._peak

    @property
    def rms(self) -> float:
        """dBFS, over some 0.3 s."""
        return decibels(math.sqrt(self._square))

    def push(self, wave: NDArray[np.float32]) -> None:
        """Takes the next samples (samples,)."""
        if not wave.size:
            return
        seconds = wave.size / self._rate
        largest = decibels(float(np.abs(wave).max()))
        self._peak = max(largest, self._peak - _FALL_DB * seconds, SILENCE)
        keep = math.exp(-seconds / _RMS_SECONDS)
        mean = float(np.square(wave, dtype=np.float64).mean())
        self._square = keep * self._square + (1 - keep) * mean


class Load:
    """How much of the time that a frame lasts its coding takes."""

    def __init__(self, frame_seconds: float) -> None:
        self._frame = frame_seconds
        self._busy = 0.0
        self._frames = 0
        self._total = 0.0
        self.highest = 0.0

    @property
    def now(self) -> float:
        """Share of a frame's duration, over the last 2 s; 1 is as much as there is."""
        return self._busy

    @property
    def mean(self) -> float:
        """The same over all frames."""
        return self._total / self._frames if self._frames else 0.0

    def push(self, seconds: float) -> None:
        """Takes what the coding of one frame took."""
        share = seconds / self._frame
        weight = max(self._frame / _LOAD_SECONDS, 1 / (self._frames + 1))
        self._busy += min(weight, 1.0) * (share - self._busy)
        self._frames += 1
        self._total += share
        self.highest = max(self.highest, share)


def decibels(amplitude: float) -> float:
    """20 log10, `SILENCE` at the least."""
    return max(SILENCE, 20 * math.log10(amplitude)) if amplitude > 0 else SILENCE


def bar(rms: float, peak: float, width: int = 30, lowest: float = -60.0) -> str:
    """A level as text: full blocks to the RMS, a line at the peak, dots elsewhere."""

    def place(level: float) -> int:
        return round(min(1.0, max(0.0, 1 - level / lowest)) * width)

    cells = ["█"] * place(rms) + ["·"] * (width - place(rms))
    if place(peak):
        cells[place(peak) - 1] = "│" if place(peak) > place(rms) else "█"
    return "".join(cells)
