"""Discriminators of waves that a CPU can pay for: over bands, and over frames, of an STFT.

Both join others in `codec.nn.discriminator.Discriminators`, one for each window length.
"""

import torch
from torch import Tensor, nn

from codec.nn.discriminator import LayerStack, normed_convolution
from codec.spectra import stft

FLOOR = 1e-4
"""Magnitudes below this, 80 dB under full scale, count as silence: compression is steepest there,
and a piece may well be a pause between words."""


def _spectrum(wave: Tensor, n_fft: int) -> tuple[Tensor, Tensor]:
    """STFT as (batch, bins, frames, 2), and its power with the floor's, (batch, bins, frames)."""
    parts = torch.view_as_real(stft(wave, n_fft=n_fft, hop_length=n_fft // 4))
    real, imaginary = parts.unbind(dim=-1)  # summed over a dimension of two it takes twice as long
    return parts, real.square() + imaginary.square() + FLOOR**2


def _compressed_magnitude(power: Tensor) -> Tensor:
    """Magnitude to the power 0.3 (Ephrat et al. 2018, §4), of speech within 0 ± 1 or so.

    Uncompressed, the loudest harmonics would be all there is to see. With a logarithm instead an
    untrained discriminator's gradient by the wave is about ten times as large, in quiet passages
    up to twenty, and would drown those of others.
    """
    return 5 * power**0.15 - 1


class BandsDiscriminator(nn.Module):
    """A compressed STFT as an image, of which the first layer keeps a quarter of the bins.

    Its channels are the magnitude, the real and the imaginary part, each to the power 0.3.
    Convolutions of 3 x 9, 3 x 5, 3 x 5 and 3 x 3, frames by bins, with strides of 4, 2 and 2 in
    frequency and at last 2 in time, where channels are most.

    Args:
        n_fft: window length in samples; the hop is a quarter of it.
        channels: of the first layer; twice as many in the second, four times from the third on.
    """

    def __init__(self, *, n_fft: int, channels: int = 8) -> None:
        super().__init__()
        self.n_fft = n_fft
        layers = [
            normed_convolution(3, channels, (3, 9), stride=(1, 4)),
            normed_convolution(channels, 2 * channels, (3, 5), stride=(1, 2)),
            normed_convolution(2 * channels, 4 * channels, (3, 5), stride=(2, 2)),
            normed_convolution(4 * channels, 4 * channels, (3, 3)),
        ]
        self.stack = LayerStack(layers, normed_convolution(4 * channels, 1, (3, 3)), slope=0.2)

    def forward(self, wave: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Judge `wave` (batch, 1, samples).

        Returns:
            logits (batch, 1, frames / 2, bins / 16) and four features (batch, channels, frames /
            1, 1, 2, 2, bins / 4, 8, 16, 16), the quotients rounded up.
        """
        parts, power = _spectrum(wave, self.n_fft)
        compressed = parts * (5 * power**-0.35)[..., None]
        image = torch.cat([_compressed_magnitude(power)[..., None], compressed], dim=-1)
        # On a CPU a tenth faster in fp32 than channels first and a third in bf16, and the order
        # the STFT leaves.
        return self.stack(image.permute(0, 3, 2, 1).contiguous(memory_format=torch.channels_last))


class FramesDiscriminator(nn.Module):
    """Frames of compressed STFT magnitudes, bins as channels: convolutions in time alone.

    Kernels of 3, 5, 5 and 5 frames, the last two with a stride of 2. A matrix product a frame costs
    a CPU half of what an image of few channels does. It hears no phase.

    Args:
        n_fft: window length in samples; the hop is a quarter of it.
        channels: of every layer.
        groups: of channels that do not see one another between the first layer and the last; a
            divisor of `channels`.
    """

    def __init__(self, *, n_fft: int, channels: int = 128, groups: int = 4) -> None:
        super().__init__()
        self.n_fft = n_fft
        layers = [
            normed_convolution(n_fft // 2 + 1, channels, (3,)),
            normed_convolution(channels, channels, (5,), groups=groups),
            normed_convolution(channels, channels, (5,), stride=(2,), groups=groups),
            normed_convolution(channels, channels, (5,), stride=(2,), groups=groups),
        ]
        self.stack = LayerStack(layers, normed_convolution(channels, 1, (3,)), slope=0.2)

    def forward(self, wave: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Judge `wave` (batch, 1, samples).

        Returns:
            logits (batch, 1, frames / 4) and four features (batch, channels, frames / 1, 1, 2, 4),
            the quotients rounded up.
        """
        _, power = _spectrum(wave, self.n_fft)
        return self.stack(_compressed_magnitude(power))
