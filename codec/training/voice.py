"""What the controls of a voice learn from: parameters, and a discriminator of the envelope."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from codec.config import Config
from codec.losses.adversarial import AdversarialLoss, feature_matching
from codec.losses.balance import GradientBalancer, MovingAverage
from codec.losses.parameters import ParameterLoss, aligned
from codec.nn.parameters import ENVELOPE
from codec.nn.voice_halves import VoiceDecoder
from codec.training.objective import build_parameter_discriminator


@dataclass
class VoiceReport:
    """What one step's parameters gave.

    Attributes:
        gradient: of the controls, shaped as they are.
        skipped: something was not finite.
        scalars: for the log, by tag.
    """

    gradient: Tensor
    skipped: bool
    scalars: dict[str, Tensor | float] = field(default_factory=dict)


class VoiceObjective:
    """Losses of controls against parameters, with an adversary from a step on.

    The envelope is pulled by regression and by the adversary's two losses, each of which has the
    share of the gradient's norm that its weight gives it, regression's being 1; what is left has
    its weight as it is. So the adversary neither fades nor takes over as losses change.

    Attributes:
        discriminator: of the envelope; None where no loss needs one.
        balancer: of the envelope's gradient.
    """

    def __init__(self, config: Config, decoder: VoiceDecoder, device: torch.device) -> None:
        self.config = config.losses.parameters
        self._shift = decoder.shift
        self._loss = ParameterLoss().to(device)
        self._game = AdversarialLoss(self.config.kind)
        wanted = self.config.adversarial > 0 or self.config.feature_matching > 0
        judge = build_parameter_discriminator(config) if wanted else None
        self.discriminator = judge and judge.to(device)
        self.weights = {
            "envelope": 1.0,
            "adversarial": self.config.adversarial,
            "feature_matching": self.config.feature_matching,
        }
        self.balancer = GradientBalancer(self.weights, decay=config.balancer.decay)
        # Norms of the controls' gradients, a clip: by parameters, and by losses of the wave.
        self._norms = [MovingAverage(config.balancer.decay) for _ in range(2)]

    def state_dict(self) -> dict[str, Any]:
        """All averages, as plain numbers."""
        return {
            "balancer": self.balancer.state_dict(),
            "norms": [norm.state_dict() for norm in self._norms],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from `state_dict()`."""
        self.balancer.load_state_dict(state["balancer"])
        for norm, saved in zip(self._norms, state["norms"], strict=True):
            norm.load_state_dict(saved)

    def join(self, of_parameters: Tensor, of_wave: Tensor) -> Tensor:
        """The controls' gradient by both, each over the average of its norm.

        Parameters keep theirs; losses of the wave get the part of it that `wave` says.
        """
        norms = [float(g.flatten(1).norm(dim=1).mean()) for g in (of_parameters, of_wave)]
        if not all(map(math.isfinite, norms)):
            return torch.full_like(of_wave, math.nan)  # the step is skipped
        means = [average.update(norm) for average, norm in zip(self._norms, norms, strict=True)]
        return of_parameters + of_wave * (self.config.wave * means[0] / max(means[1], 1e-12))

    def plays(self, step: int) -> bool:
        """Whether the adversary takes part at this step."""
        return self.discriminator is not None and step >= self.config.start_step

    def judge(self, step: int, controls: Tensor, parameters: Tensor) -> VoiceReport:
        """Losses of controls (batch, rows, n) against parameters (batch, 66, frames).

        Where the adversary plays, it learns as well: its gradient is left with its parameters.
        """
        controls = controls.detach().float().requires_grad_()
        predicted, right = aligned(controls, parameters, self._shift)
        given = self._loss(predicted, right)
        regression = given.envelope + self.config.difference * given.difference
        losses = {"envelope": regression}
        rest = {
            "aperiodicity": self.config.aperiodicity * given.aperiodicity,
            "voicing": self.config.voicing * given.voicing,
            "f0": self.config.f0 * given.f0,
        }
        if self.plays(step):
            losses |= self._play(predicted[:, :ENVELOPE], right[:, :ENVELOPE])
        shared, balance = self.balancer.gradient(losses, controls)
        (gradient,) = torch.autograd.grad(torch.stack(list(rest.values())).sum(), controls)
        gradient += shared * (len(controls) * self._natural_norm(losses))
        report = VoiceReport(self.config.weight * gradient, bool(balance.skipped))
        for name, value in (losses | vars(given)).items():
            report.scalars[f"parameters/{name}"] = value.detach()
        report.scalars |= {f"share_parameters/{name}": v for name, v in balance.share.items()}
        if self.plays(step):
            report.scalars["parameters/discriminator"] = self._learn(predicted, right)
        return report

    def _natural_norm(self, losses: Mapping[str, Tensor]) -> float:
        """What a balanced gradient of norm 1 is multiplied with, so that regression keeps its own.

        The weights of the others are parts of it.
        """
        of_regression = self.balancer.averages["envelope"].value
        return of_regression * sum(self.weights[name] for name in losses)

    def _play(self, fake: Tensor, real: Tensor) -> dict[str, Tensor]:
        assert self.discriminator is not None
        with torch.no_grad():
            of_real = self.discriminator(real)
        of_fake = self.discriminator(fake)
        losses = {
            "adversarial": self._game.generator(of_fake.logits).total,
            "feature_matching": feature_matching(of_real.features, of_fake.features).total,
        }
        return {name: loss for name, loss in losses.items() if self.weights[name] > 0}

    def _learn(self, predicted: Tensor, right: Tensor) -> Tensor:
        """The discriminator's gradient, and what it minimises."""
        assert self.discriminator is not None
        real = self.discriminator(right[:, :ENVELOPE])
        fake = self.discriminator(predicted[:, :ENVELOPE].detach())
        loss = self._game.discriminator(real.logits, fake.logits).total
        loss.backward(inputs=list(self.discriminator.parameters()))
        return loss.detach()
