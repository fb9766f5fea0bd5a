"""Scores a codec on the same held-out clips, again and again."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from codec.codec import Codec
from codec.evaluation.intervals import summary
from codec.evaluation.judges import METRICS, merit
from codec.evaluation.pool import ScorePool

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

    def merit(self, weights: Mapping[str, float]) -> float:
        """Weighted sum of metrics at the highest rate, of which more is better."""
        return merit(weights, self.scores[max(self.scores)])

    def lines(self) -> Iterator[str]:
        """All scores of a rate in one line, the lowest rate first."""
        for kbps, scores in self.scores.items():
            told = (
                f"{METRICS[name].heading} {value:.{METRICS[name].decimals}f}"
                for name, value in scores.items()
            )
            yield f"{kbps:g} kbps: {', '.join(told)}"


def is_better(value: float, than: float | None) -> bool:
    """Whether a merit beats another. Anything beats None, NaN nothing else."""
    return than is None or value > than


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
                name: summary(s[name] for n, s in scored if n == size).mean for name in pool.metrics
            }
            for size in sizes
        },
        decoded,
    )
