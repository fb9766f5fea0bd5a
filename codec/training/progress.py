"""Where a run stands."""

from dataclasses import dataclass, field
from typing import Any, Self


@dataclass
class Progress:
    """Where a run stands; part of every checkpoint.

    Attributes:
        step: completed steps.
        skipped: steps whose update was left out, in all.
        trouble: rises by 1 at a skipped step and falls by half at any other, so that it tells
            apart what happens now and then from what persists, every other step included.
        best_step: step of the best validation, and
        best_value: what it scored; None before the first that has a score.
        best_by: what it scored in: a metric, or a sum of some.
        losses: weights by name of what the weights learnt from up to now, the model they began as
            included; None where that model's file does not tell.
    """

    step: int = 0
    skipped: int = 0
    trouble: float = 0.0
    best_step: int | None = None
    best_value: float | None = None
    best_by: str = ""
    losses: dict[str, float] | None = field(default_factory=dict)

    @classmethod
    def saved(cls, values: dict[str, Any], initial_model: str | None) -> Self:
        """Of a checkpoint; one that an earlier Sotto wrote does not know `losses`."""
        unknown: dict[str, float] | None = None if initial_model else {}
        return cls(**({"losses": unknown} | values))
