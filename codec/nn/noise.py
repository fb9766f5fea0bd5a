"""Noise that a decoder makes out of its latent, so that it need not make any out of nothing."""

import math

import torch
from torch import Tensor, nn

from codec.nn.start import normal

# Of the random projections: latents as near to each other as two frames of one fricative give
# unrelated noise, and a latent's rounding moves it by a few 1e-5.
_GAIN = 3.0
SILENCE = 1e-6  # power of a latent that is as good as zero


class LatentNoise(nn.Module):
    """Adds channels of pseudo-random numbers: (batch, n, time) -> (batch, n + channels, time).

    A decoder that is given the same latent twice says the same twice: a hiss becomes a buzz that
    repeats with every frame. What it lacks is a source of noise, and this is one that needs no
    generator, state or position: r sqrt(2) sin(P x / r + phase), r the latent's root mean square
    and P a fixed random matrix, is another number for every frame unless two latents are all but
    equal, has the latent's own power, and is the same wherever and however often it is decoded.
    The random features are those of Rahimi & Recht 2007, of a kernel so narrow that only itself
    is near. No gradient flows through them: there is nothing to learn from noise.

    In training mode the phases are drawn anew for every item of a batch and every pass, from
    PyTorch's global generator; else they are zero.

    Args:
        dimension: channels of the latent, n.
        channels: of noise.

    Raises:
        ValueError: a size that is not positive.
    """

    projection: Tensor

    def __init__(self, dimension: int, channels: int) -> None:
        super().__init__()
        if dimension < 1 or channels < 1:
            raise ValueError(f"sizes must be positive, got {dimension} and {channels}")
        self.register_buffer("projection", normal(channels, dimension, std=_GAIN))

    def forward(self, x: Tensor) -> Tensor:
        """Return x with its noise behind it."""
        noise = self.noise(x) * self._rms(x)
        return torch.cat((x, noise.to(x.dtype)), dim=1)

    @torch.no_grad()
    def noise(self, x: Tensor) -> Tensor:
        """The noise alone, of power 1: (batch, channels, time) float32."""
        with torch.autocast(x.device.type, enabled=False):
            angle = self.projection @ (x.float() / self._rms(x))
            if self.training:
                phases = torch.rand(x.shape[0], self.projection.shape[0], 1, device=x.device)
                angle = angle + 2 * math.pi * phases
            return math.sqrt(2) * angle.sin()

    @staticmethod
    @torch.no_grad()
    def _rms(x: Tensor) -> Tensor:
        return (x.float().square().mean(dim=1, keepdim=True) + SILENCE).sqrt()
