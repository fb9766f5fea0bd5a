"""What a voice is described by, 200 times a second: envelope, aperiodicity, pitch.

The parameters of WORLD (Morise, Yokomori & Ozawa 2016), thinned out: a power envelope at 64 points
equal in mel, one number for how much of the sound is noise, and the fundamental frequency. Frame t
lies at the middle of the samples t * hop to (t + 1) * hop - 1, a hop being 5 ms.
"""

import math

import numpy as np
from numpy.typing import NDArray

ENVELOPE = 64
"""Points of the envelope: natural logarithms of power per bin, as CheapTrick gives them for a wave
in [-1, 1]; a gain g of the wave adds 2 ln g."""
APERIODICITY = 64
"""Row of the aperiodicity at `APERIODICITY_HZ` in dB, -60 (all voice) to 0 (all noise)."""
F0 = 65
"""Row of the fundamental frequency in Hz, 0 where there is no voice."""
PARAMETERS = 66
"""Rows in all: parameters are float32 (..., 66, frames)."""

FRAMES_PER_SECOND = 200
APERIODICITY_HZ = 3000.0
APERIODICITY_FLOOR = -60.0

F0_CLASSES = 128
LOWEST_F0 = 60.0
HIGHEST_F0 = 500.0


def envelope_frequencies(sample_rate: int) -> NDArray[np.float64]:
    """Frequencies of the envelope's points in Hz, (64,): equal steps of mel, 0 Hz to Nyquist's.

    Mel by O'Shaughnessy 1987, 1127 ln(1 + f / 700).
    """
    top = 1127 * math.log1p(sample_rate / 2 / 700)
    return 700 * np.expm1(np.linspace(0, top, ENVELOPE) / 1127)


def to_bins(sample_rate: int, bins: int) -> NDArray[np.float64]:
    """Matrix (bins, 64) that interpolates an envelope linearly at bins from 0 Hz to Nyquist's."""
    points = envelope_frequencies(sample_rate)
    frequencies = np.linspace(0, sample_rate / 2, bins)
    return np.stack([np.interp(frequencies, points, row) for row in np.eye(ENVELOPE)], axis=1)


def f0_classes() -> NDArray[np.float64]:
    """Middle of each class of F0 in Hz, (128,): equal in log from 60 to 500 Hz."""
    return np.geomspace(LOWEST_F0, HIGHEST_F0, F0_CLASSES)
