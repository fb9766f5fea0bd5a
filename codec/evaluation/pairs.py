"""An original and what became of it: checked, of one length, at the rate that judges hear."""

import hashlib
import math
from collections import OrderedDict
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from codec.errors import SottoError
from codec.spectra import resample

Wave = NDArray[np.float32]
Pair = tuple[Wave, Wave, int]
T = TypeVar("T")

SCORED_RATE = 16_000
"""Hz. PESQ is defined at 8 and 16 kHz only, and learnt judges have heard nothing but 16 kHz."""

_SILENT_PEAK = 1e-7  # under the last bit of 24-bit audio
_TRAILING_SECONDS = 0.25


def prepared(reference: Wave, decoded: Wave, sample_rate: int) -> Pair:
    """The two as float32 (samples,), the longer one cut.

    Raises:
        SottoError: A sample is NaN or infinite, or the lengths differ by more than 0.25 s.
    """
    reference = np.asarray(reference, dtype=np.float32)
    decoded = np.asarray(decoded, dtype=np.float32)
    for name, wave in (("reference", reference), ("decoded", decoded)):
        if wave.ndim != 1:
            raise ValueError(f"{name} must have the shape (samples,), not {wave.shape}")
        if not np.isfinite(wave).all():
            raise SottoError(f"the {name} recording holds NaN or infinite samples")
    length = min(len(reference), len(decoded))
    surplus = max(len(reference), len(decoded)) - length
    if surplus > _TRAILING_SECONDS * sample_rate:
        raise SottoError(
            f"the reference has {len(reference)} samples and the decoded recording {len(decoded)}:"
            f" they may differ by {_TRAILING_SECONDS} s at most"
        )
    return reference[:length], decoded[:length], sample_rate


def at_scored_rate(reference: Wave, decoded: Wave, sample_rate: int) -> tuple[Wave, Wave]:
    """The two, resampled to `SCORED_RATE` if they are of another."""
    if sample_rate == SCORED_RATE or not len(reference):
        return reference, decoded
    both = torch.from_numpy(np.stack([reference, decoded]))
    scored = resample(both, sample_rate, SCORED_RATE).numpy()
    return scored[0], scored[1]


def silent(wave: Wave) -> bool:
    """Whether there is no sample, or none that 24 bits could tell from 0."""
    return not len(wave) or float(np.abs(wave).max()) < _SILENT_PEAK


def judging(shortest: float) -> Callable[[Callable[..., float]], Callable[..., float]]:
    """Makes a metric of a function of two waves at 16 kHz, and of settings given by name.

    The metric takes a reference, what was decoded, and their rate in Hz, checks and resamples
    them, and is NaN where either is silent or they are shorter than `shortest` seconds.
    """

    def decorate(judge: Callable[..., float]) -> Callable[..., float]:
        @wraps(judge)
        def metric(reference: Wave, decoded: Wave, sample_rate: int, **settings: Any) -> float:
            pair = at_scored_rate(*prepared(reference, decoded, sample_rate))
            if len(pair[0]) < shortest * SCORED_RATE or silent(pair[0]) or silent(pair[1]):
                return math.nan
            return float(judge(*pair, **settings))

        return metric

    return decorate


def remembering(last: int) -> Callable[[Callable[..., T]], Callable[..., T]]:
    """Makes a function of a wave, and of hashable things after it, remember its last results.

    An original is compared with what became of it at each rate, and by several metrics; what is
    learnt from it alone is found once. Waves are told apart by a digest of their samples.
    """

    def decorate(function: Callable[..., T]) -> Callable[..., T]:
        known: OrderedDict[tuple[object, ...], T] = OrderedDict()

        @wraps(function)
        def remembered(wave: Wave, *rest: Any) -> T:
            digest = hashlib.blake2b(wave.tobytes(), digest_size=16).digest()
            key = (digest, *rest)
            if key not in known:
                known[key] = function(wave, *rest)
            known.move_to_end(key)
            while len(known) > last:
                known.popitem(last=False)
            return known[key]

        return remembered

    return decorate
