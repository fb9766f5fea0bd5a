"""How far predicted controls of a voice are from what analysis found."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codec.nn.parameters import APERIODICITY, ENVELOPE, F0, F0_CLASSES, f0_classes
from codec.nn.voice import Controls

# A frame's weight over its mean log power: little for silence, all of it for speech.
_LEAST_WEIGHT = 0.1
_MIDDLE, _SLOPE = -14.0, 1.5


@dataclass
class ParameterLosses:
    """Scalars, float32, with their graphs.

    Attributes:
        envelope: nats of power, mean absolute error over points and weighted frames.
        difference: the same of differences between a frame and the next.
        aperiodicity: in 10 dB, where there is voice.
        voicing: cross-entropy in nats.
        f0: cross-entropy of F0's classes, where there is voice.
    """

    envelope: Tensor
    difference: Tensor
    aperiodicity: Tensor
    voicing: Tensor
    f0: Tensor


def aligned(controls: Tensor, parameters: Tensor, shift: int) -> tuple[Tensor, Tensor]:
    """Both over the frames that both have.

    Args:
        controls: (batch, rows, n), of which number i describes frame i - shift.
        parameters: (batch, 66, frames).
        shift: frames, of either sign.
    """
    first = max(-shift, 0)
    last = min(parameters.shape[-1], controls.shape[-1] - shift)
    return controls[..., first + shift : last + shift], parameters[..., first:last]


class ParameterLoss(nn.Module):
    """Losses of controls against parameters, aligned frame by frame.

    Frames count by 0.1 + 0.9 sigmoid((p + 14) / 1.5), p the mean log power of what is right. F0's
    class is a pair of neighbours, weighted so that their mean is the logarithm of F0.
    """

    classes: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("classes", torch.from_numpy(np.log(f0_classes())).float())

    def forward(self, controls: Tensor, parameters: Tensor) -> ParameterLosses:
        """Args: controls (batch, rows, frames), parameters (batch, 66, frames), float32."""
        envelope, predicted = parameters[:, :ENVELOPE], controls[:, Controls.envelope]
        weight = _frame_weights(envelope)
        error = predicted - envelope
        change = (error[..., 1:] - error[..., :-1]).abs().mean(dim=1)
        later = torch.minimum(weight[:, 1:], weight[:, :-1])
        voiced = (parameters[:, F0] > 0).float()
        aperiodicity = controls[:, Controls.aperiodicity] - parameters[:, APERIODICITY] / 10
        voicing = F.binary_cross_entropy_with_logits(
            controls[:, Controls.voicing], voiced, reduction="none"
        )
        return ParameterLosses(
            envelope=_mean(error.abs().mean(dim=1), weight),
            difference=_mean(change, later),
            aperiodicity=_mean(aperiodicity.abs(), voiced * weight),
            voicing=_mean(voicing, weight),
            f0=_mean(self._f0(controls[:, Controls.f0], parameters[:, F0]), voiced * weight),
        )

    def _f0(self, logits: Tensor, f0: Tensor) -> Tensor:
        """Cross-entropy (batch, frames) of logits (batch, 128, frames)."""
        step = self.classes[1] - self.classes[0]
        place = ((f0.clamp(min=1.0).log() - self.classes[0]) / step).clamp(0, F0_CLASSES - 1.001)
        below = place.floor().long()
        share = place - below
        logs = logits.log_softmax(dim=1)
        lower = logs.gather(1, below[:, None])[:, 0]
        upper = logs.gather(1, below[:, None] + 1)[:, 0]
        return -((1 - share) * lower + share * upper)


def _frame_weights(envelope: Tensor) -> Tensor:
    power = envelope.mean(dim=1)
    return _LEAST_WEIGHT + (1 - _LEAST_WEIGHT) * ((power - _MIDDLE) / _SLOPE).sigmoid()


def _mean(values: Tensor, weight: Tensor) -> Tensor:
    return (values * weight).sum() / weight.sum().clamp(min=1e-6)
