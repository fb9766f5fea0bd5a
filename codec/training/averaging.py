"""Exponential moving average of a generator's weights."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from codec.nn.autoencoder import Autoencoder


class WeightAverage:
    """avg ← decay_t · avg + (1 − decay_t) · weight, with decay_t = min(decay, (1 + t) / (10 + t)).

    The growing decay (as in TensorFlow's ExponentialMovingAverage) keeps the first, random weights
    from lingering. Encoder, decoder and projections are averaged; codebooks are not, because a row
    that was replaced has no meaningful past: they are taken as they are.
    """

    def __init__(self, model: Autoencoder, *, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.average = {name: parameter.detach().clone() for name, parameter in _averaged(model)}

    @torch.no_grad()
    def update(self, model: Autoencoder) -> None:
        """Takes in the weights after an optimizer step."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        pairs = [(self.average[name], parameter) for name, parameter in _averaged(model)]
        torch._foreach_lerp_([avg for avg, _ in pairs], [p for _, p in pairs], 1 - decay)

    @contextmanager
    def applied(self, model: Autoencoder) -> Iterator[None]:
        """The model has the averaged weights within, its own again afterwards."""
        self._swap(model)
        try:
            yield
        finally:
            self._swap(model)

    @torch.no_grad()
    def copy_to(self, model: Autoencoder) -> None:
        """Gives the model the averaged weights for good."""
        for name, parameter in _averaged(model):
            parameter.copy_(self.average[name])

    @torch.no_grad()
    def _swap(self, model: Autoencoder) -> None:
        for name, parameter in _averaged(model):
            parameter.data, self.average[name] = self.average[name], parameter.data

    def state_dict(self) -> dict[str, int | dict[str, Tensor]]:
        """Averages and the number of updates."""
        return {"updates": self.updates, "average": self.average}

    def load_state_dict(self, state: dict) -> None:
        """Goes on from `state_dict()`."""
        self.updates = state["updates"]
        for name, average in self.average.items():
            average.copy_(state["average"][name])


def _averaged(model: Autoencoder) -> Iterator[tuple[str, torch.nn.Parameter]]:
    for name, parameter in model.named_parameters():
        if not name.endswith("codebook"):
            yield name, parameter
