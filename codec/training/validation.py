"""Scores a codec on the same held-out clips, again and again."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from codec.codec import Codec
from codec.evaluation.metrics import LESS_IS_BETTER, METRICS, ScorePool, summary

Wave = NDArray[np.float32]


@dataclass(frozen=True)
class Clip:
    """A held-out recording: its name and (samples,) float32 at the codec's rate."""

    name: str
    wave: Wave


@dataclass(frozen=True)
class Validation:
    """Scores and what they were given for.

    Attributes:
        scores: mean of each metric by rate in kbit/s and metric name; NaN where undefined.
        decoded: what each clip became at the highest rate, in the clips' order.
    """

    scores: dict[float, dict[str, float]]
    decoded: list[Wave]

    def at_highest_rate(self, metric: str) -> float:
        """Mean of `metric` at the highest rate."""
        return self.scores[max(self.scores)][metric]


def is_better(metric: str, value: float, than: float | None) -> bool:
    """Whether `value` beats `than`; small distances do. Anything beats None, NaN nothing else."""
    if than is None:
        return True
    if np.isnan(value):
        return False
    return value < than if metric in LESS_IS_BETTER else value > than


def validate(
    codec: Codec, clips: Sequence[Clip], *, kbps: Sequence[float], pool: ScorePool
) -> Validation:
    """Encodes every clip once and scores its first codebooks at each rate."""
    sizes = sorted(codec.n_quantizers_for(rate) for rate in kbps)
    futures = []
    decoded: list[Wave] = []
    for clip in clips:
        codes = codec.encode(torch.from_numpy(clip.wave), sizes[-1])
        for n_quantizers in sizes:
            wave = codec.decode(codes[:n_quantizers], len(clip.wave)).cpu().numpy()
            # A model that has blown up gets bad scores, not an error from its judge.
            wave = np.nan_to_num(wave, nan=0.0, posinf=1.0, neginf=-1.0)
            futures.append((n_quantizers, pool.submit(clip.wave, wave, codec.sample_rate)))
        decoded.append(wave)
    scored = [(n_quantizers, pool.result(future)) for n_quantizers, future in futures]
    return Validation(
        {
            codec.kbps(size): {
                name: summary(getattr(s, name) for n, s in scored if n == size).mean
                for name in METRICS
            }
            for size in sizes
        },
        decoded,
    )
