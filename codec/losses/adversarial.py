"""Adversarial losses over the outputs of one or several discriminators."""

from collections.abc import Sequence
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from codec.losses.base import LossValue

AdversarialKind = Literal["hinge", "least_squares"]


class AdversarialLoss:
    """Hinge (Lim & Ye 2017) or least-squares (Mao et al. 2017) game, mean over discriminators.

    With D the logits, and means over all their elements:

    - hinge: the discriminator minimises max(0, 1 - D(real)) + max(0, 1 + D(fake)), the
      generator max(0, 1 - D(fake));
    - least_squares: (D(real) - 1)² + D(fake)², and (D(fake) - 1)².

    The generator's hinge is EnCodec's (Défossez et al. 2022, §3.4): it rests once a
    discriminator is fooled by a margin, so it can be exactly 0.

    Raises:
        ValueError: an unknown kind.
    """

    def __init__(self, kind: AdversarialKind = "hinge") -> None:
        if kind not in get_args(AdversarialKind):
            raise ValueError(
                f"adversarial kind {kind!r} is unknown: {' or '.join(get_args(AdversarialKind))}"
            )
        self.kind = kind

    def discriminator(
        self, real_logits: Sequence[Tensor], fake_logits: Sequence[Tensor]
    ) -> LossValue:
        """What the discriminators minimise.

        Args:
            real_logits: one tensor for each discriminator, any shape.
            fake_logits: the same of decoded waves (not detached here).

        Returns:
            Parts `real` and `fake`, the two terms.
        """
        real = torch.stack([self._distance_from_real(logits) for logits in real_logits]).mean()
        fake = torch.stack([self._distance_from_fake(logits) for logits in fake_logits]).mean()
        return LossValue(real + fake, {"real": real, "fake": fake})

    def generator(self, fake_logits: Sequence[Tensor]) -> LossValue:
        """What the generator minimises, from one logits tensor for each discriminator."""
        terms = [self._distance_from_real(logits) for logits in fake_logits]
        return LossValue(torch.stack(terms).mean())

    def _distance_from_real(self, logits: Tensor) -> Tensor:
        logits = logits.float()
        if self.kind == "hinge":
            return F.relu(1 - logits).mean()
        return (logits - 1).square().mean()

    def _distance_from_fake(self, logits: Tensor) -> Tensor:
        logits = logits.float()
        if self.kind == "hinge":
            return F.relu(1 + logits).mean()
        return logits.square().mean()


def feature_matching(
    real_features: Sequence[Sequence[Tensor]], fake_features: Sequence[Sequence[Tensor]]
) -> LossValue:
    """Relative L1 distance of hidden features, averaged over all layers (EnCodec, §3.4).

    For each layer mean|fake - real| / mean|real|: scaling a layer changes nothing.

    Args:
        real_features: for each discriminator its layers' outputs; detached here.
        fake_features: the same of decoded waves.
    """
    distances = [
        _relative_l1(fake, real.detach())
        for reals, fakes in zip(real_features, fake_features, strict=True)
        for real, fake in zip(reals, fakes, strict=True)
    ]
    return LossValue(torch.stack(distances).mean())


def _relative_l1(fake: Tensor, real: Tensor) -> Tensor:
    real = real.float()
    # A sum, not a mean: mean's gradient is laid out afresh, and the channels-last convolutions
    # that it then goes back through take up to half as long again.
    difference = (fake.float() - real).abs().sum() / real.numel()
    return difference / real.abs().mean().clamp(min=1e-8)
