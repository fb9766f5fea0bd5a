"""Balancers: how several losses become one gradient of the decoded wave.

A balancer returns ∂(total)/∂(decoded wave); the trainer backpropagates that through the generator.
So only the generator's pass is walked once, and discriminators get no gradients on the way.

Losses whose value (or, for `GradientBalancer`, whose gradient) is not finite are left out of a
step, do not touch the averages, and are counted.

On several processes the averages are of the mean over all processes (of those where the loss was
finite), by one small all-reduce a step, so that every process scales alike. All of them must give
the same names in the same order.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass
class BalanceReport:
    """What a balancer did in one step.

    Attributes:
        balanced: for each loss that took part, what it contributed: the weighted and balanced
            value, or with `GradientBalancer` the norm of its scaled gradient, averaged over clips.
        share: `balanced` as parts of 1 (all 0 where nothing was contributed).
        skipped: losses left out of this step because they were not finite.
    """

    balanced: dict[str, float] = field(default_factory=dict)
    skipped: int = 0

    @property
    def share(self) -> dict[str, float]:
        """The part of each loss in the whole; they sum to 1."""
        total = sum(abs(value) for value in self.balanced.values())
        return {name: abs(value) / total if total else 0.0 for name, value in self.balanced.items()}


class MovingAverage:
    """Exponential moving average, bias-corrected as Adam's (Kingma & Ba 2015, §3).

    After n values it is (1 - d) Σ d^(n-i) x_i / (1 - d^n); after the first exactly that value.

    Args:
        decay: d, from 0 (the last value) to below 1.

    Raises:
        ValueError: `decay` is outside [0, 1).
    """

    def __init__(self, decay: float) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"decay={decay}: 0 or more and less than 1 would do")
        self.decay = decay
        self.steps = 0
        self.value = 0.0

    def update(self, value: float) -> float:
        """Take `value` in and return the new average."""
        self.steps += 1
        rate = (1 - self.decay) / (1 - self.decay**self.steps)  # exactly 1 at the first value
        self.value += (value - self.value) * rate
        return self.value

    def state_dict(self) -> dict[str, float]:
        """Plain numbers."""
        return {"value": self.value, "steps": self.steps}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Take over what `state_dict` gave."""
        self.value = float(state["value"])
        self.steps = int(state["steps"])


class Balancer(ABC):
    """Weighs losses and gives their joint gradient.

    Args:
        weights: for each loss by name, finite and not negative; losses of weight 0 cost nothing.

    Attributes:
        skipped: how often a loss was left out since the start.

    Raises:
        ValueError: a weight is negative or not finite.
    """

    def __init__(self, weights: Mapping[str, float]) -> None:
        for name, weight in weights.items():
            if not (math.isfinite(weight) and weight >= 0):
                raise ValueError(f"weight of loss {name!r} is {weight}: 0 or more would do")
        self.weights = dict(weights)
        self.skipped = 0

    def gradient(
        self, losses: Mapping[str, Tensor], output: Tensor
    ) -> tuple[Tensor, BalanceReport]:
        """The balanced gradient of `losses` by `output`.

        No `.grad` is written and the graphs stay alive for other backward passes.

        Args:
            losses: scalars that depend on `output`, some of those that have weights.
            output: the decoded wave (batch, 1, samples), part of the losses' graph.

        Returns:
            The gradient, shaped as `output` and without a graph, zero where nothing could be
            used; and the report.

        Raises:
            ValueError: a loss has no weight, or does not depend on `output`.
        """
        weighed = {}
        for name, loss in losses.items():
            if name not in self.weights:
                raise ValueError(
                    f"loss {name!r} has no weight: weights are of {', '.join(self.weights)}"
                )
            if self.weights[name] > 0:
                if not loss.requires_grad:
                    raise ValueError(f"loss {name!r} does not depend on the decoded wave")
                weighed[name] = loss
        if not weighed:
            return torch.zeros_like(output), BalanceReport()
        gradient, report = self._gradient(weighed, output)
        self.skipped += report.skipped
        return gradient, report

    @abstractmethod
    def _gradient(
        self, losses: dict[str, Tensor], output: Tensor
    ) -> tuple[Tensor, BalanceReport]: ...

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed run needs, as plain numbers that JSON can hold."""
        return {"skipped": self.skipped}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        self.skipped = int(state["skipped"])


class NoBalancer(Balancer):
    """Plain weights: the gradient of Σ weight · loss."""

    def _gradient(self, losses: dict[str, Tensor], output: Tensor) -> tuple[Tensor, BalanceReport]:
        scales = dict(self.weights)
        return _scaled_sum(losses, scales, _values(losses), output)


class _AveragingBalancer(Balancer):
    """A balancer that remembers an average for each loss."""

    def __init__(self, weights: Mapping[str, float], decay: float) -> None:
        super().__init__(weights)
        self.decay = decay
        self.averages = {name: MovingAverage(decay) for name in weights}

    def _average(self, name: str, value: float | None) -> float:
        """The average of a loss after `value`, or as it stands where there is none."""
        average = self.averages[name]
        return average.value if value is None else average.update(value)

    def state_dict(self) -> dict[str, Any]:
        averages = {name: average.state_dict() for name, average in self.averages.items()}
        return {**super().state_dict(), "averages": averages}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave; losses that are new since then start afresh."""
        super().load_state_dict(state)
        for name, saved in state["averages"].items():
            if name in self.averages:
                self.averages[name].load_state_dict(saved)


class EmaBalancer(_AveragingBalancer):
    """Each loss over its own moving average: the gradient of Σ weight · loss / average(loss).

    The average is a constant for the gradient. A loss's first balanced value is its weight.
    Cheap, one backward pass for all; but it makes values alike, not gradients.

    Args:
        weights: for each loss by name.
        decay: of the averages.
        fixed: losses that only get their weight. A hinge term belongs here: it may be 0 for
            long, and dividing by that would blow up the first step in which it is not.
        floor: averages below it count as this.
    """

    def __init__(
        self,
        weights: Mapping[str, float],
        decay: float = 0.999,
        fixed: Collection[str] = ("adversarial",),
        floor: float = 1e-6,
    ) -> None:
        super().__init__(weights, decay)
        self.fixed = tuple(fixed)
        self.floor = floor

    def _gradient(self, losses: dict[str, Tensor], output: Tensor) -> tuple[Tensor, BalanceReport]:
        values = _values(losses)
        means = _mean_over_processes(values, output.device)
        scales = {}
        for name in losses:
            scales[name] = self.weights[name]
            if name not in self.fixed:
                scales[name] /= max(self._average(name, means[name]), self.floor)
        return _scaled_sum(losses, scales, values, output)


class GradientBalancer(_AveragingBalancer):
    """Gives each loss its share of the gradient's norm (EnCodec, Défossez et al. 2022, §3.4).

    With g_i = ∂L_i/∂output and the norm of each clip's part averaged over the batch, the result is
    Σ g_i · total_norm · (weight_i / Σ weights) / average(‖g_i‖) / batch. How large a loss is does
    not matter. Unlike EnCodec's, it is the mean over the clips, not their sum: neither clipping
    nor the weight of losses outside the balancer depends on the batch size. The weights are
    summed over the losses given; one that is skipped leaves the others' shares as they are. One
    backward pass for each loss.

    Args:
        weights: for each loss by name.
        decay: of the averages.
        total_norm: what the norms of all losses sum to, on average, for a batch of one clip.
        floor: averages below it count as this.
    """

    def __init__(
        self,
        weights: Mapping[str, float],
        decay: float = 0.999,
        total_norm: float = 1.0,
        floor: float = 1e-12,
    ) -> None:
        super().__init__(weights, decay)
        self.total_norm = total_norm
        self.floor = floor

    def _gradient(self, losses: dict[str, Tensor], output: Tensor) -> tuple[Tensor, BalanceReport]:
        gradients = {name: _gradient_of(loss, output, name) for name, loss in losses.items()}
        norms = _to_floats(
            {name: g.float().flatten(1).norm(dim=1).mean() for name, g in gradients.items()}
        )
        # A loss of inf can have a finite gradient: neither is to be trusted then.
        values = _values(losses)
        finite = {name: norms[name] if math.isfinite(values[name]) else math.nan for name in norms}
        means = _mean_over_processes(finite, output.device)
        all_weights = sum(self.weights[name] for name in losses)
        total = torch.zeros_like(output)
        report = BalanceReport()
        for name, gradient in gradients.items():
            average = max(self._average(name, means[name]), self.floor)
            if not math.isfinite(finite[name]):
                report.skipped += 1
                continue
            scale = self.total_norm * self.weights[name] / all_weights / average
            total.add_(gradient, alpha=scale / len(output))
            report.balanced[name] = scale * norms[name]
        return total, report


def _scaled_sum(
    losses: Mapping[str, Tensor],
    scales: Mapping[str, float],
    values: Mapping[str, float],
    output: Tensor,
) -> tuple[Tensor, BalanceReport]:
    """Gradient of Σ scale · loss over the losses that are finite."""
    report = BalanceReport()
    terms = []
    for name, loss in losses.items():
        if not math.isfinite(values[name]):
            report.skipped += 1
            continue
        terms.append(loss * scales[name])
        report.balanced[name] = values[name] * scales[name]
    if not terms:
        return torch.zeros_like(output), report
    return _gradient_of(torch.stack(terms).sum(), output, ", ".join(report.balanced)), report


def _gradient_of(loss: Tensor, output: Tensor, name: str) -> Tensor:
    (gradient,) = torch.autograd.grad(loss, output, retain_graph=True, allow_unused=True)
    if gradient is None:
        raise ValueError(f"loss {name!r} does not depend on the decoded wave")
    return gradient.detach()


def _values(losses: Mapping[str, Tensor]) -> dict[str, float]:
    return _to_floats({name: loss.detach() for name, loss in losses.items()})


def _to_floats(scalars: Mapping[str, Tensor]) -> dict[str, float]:
    """All at once: from an accelerator each copy by itself would wait for it."""
    stacked = torch.stack([scalar.float() for scalar in scalars.values()])
    return dict(zip(scalars, stacked.tolist(), strict=True))


def _mean_over_processes(
    values: Mapping[str, float], device: torch.device
) -> dict[str, float | None]:
    """Each value's mean over the processes where it is finite; None where it is on none."""
    sums = [value if math.isfinite(value) else 0.0 for value in values.values()]
    counts = [float(math.isfinite(value)) for value in values.values()]
    if dist.is_available() and dist.is_initialized():
        both = torch.tensor([sums, counts], dtype=torch.float32, device=device)
        dist.all_reduce(both)
        sums, counts = both.tolist()
    return {
        name: total / count if count else None
        for name, total, count in zip(values, sums, counts, strict=True)
    }
