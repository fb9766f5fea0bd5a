"""Means and how sure they are."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit  # type: ignore[import-untyped]


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean with its 95 % confidence interval.

    Attributes:
        mean: Of the defined values; NaN when there are none.
        low: Lower end; NaN for fewer than two values.
        high: Upper end; NaN for fewer than two values.
        n: How many values were defined.
        undefined: How many were NaN and left out.
    """

    mean: float
    low: float
    high: float
    n: int
    undefined: int

    @property
    def half_width(self) -> float:
        """Half of the interval's length: the figure after ±."""
        return (self.high - self.low) / 2


def summary(values: Iterable[float]) -> Interval:
    """Mean and 95 % interval by Student's t, leaving NaN out and counting it."""
    given = np.asarray(list(values), dtype=np.float64)
    defined = given[~np.isnan(given)]
    n = len(defined)
    mean = float(defined.mean()) if n else math.nan
    half = math.nan
    if n > 1:
        half = float(stdtrit(n - 1, 0.975)) * float(defined.std(ddof=1)) / math.sqrt(n)
    return Interval(mean, mean - half, mean + half, n, len(given) - n)
