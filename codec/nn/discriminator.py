"""Discriminators: multi-scale complex STFT, multi-period, and several joined.

`forward` has no side effects, so one pass over a batch can serve the discriminator's loss, the
generator's and feature matching.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from codec.spectra import stft


@dataclass
class DiscriminatorOutput:
    """What discriminators say of a batch of waves.

    Attributes:
        logits: one tensor for each discriminator, high for real; the first dimension is the batch.
        features: for each discriminator the outputs of its hidden layers, for feature matching.
    """

    logits: list[Tensor]
    features: list[list[Tensor]]


class LayerStack(nn.Module):
    """Convolutions with LeakyReLU between them, whose activations are the features."""

    def __init__(self, layers: Iterable[nn.Module], logits: nn.Module, slope: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.logits = logits
        self.slope = slope

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Logits of `x`, shaped as the layers take it, and the activations of each layer."""
        features = []
        for layer in self.layers:
            # In place: neither the convolution nor LeakyReLU needs the value before it.
            x = F.leaky_relu_(layer(x), self.slope)
            features.append(x)
        return self.logits(x), features


def normed_convolution(
    in_channels: int,
    out_channels: int,
    kernel_size: tuple[int, ...],
    *,
    stride: tuple[int, ...] | None = None,
    dilation: tuple[int, ...] | None = None,
    groups: int = 1,
) -> nn.Module:
    """Weight-normed Conv1d or Conv2d padded on both sides: ceil(size / stride) for odd kernels.

    Initialised by He et al. (2015). The default of torch takes five sixths of the signal's energy
    away in each layer, so that after five the logits are those of the biases, and learning to
    tell speech from noise takes several times more steps.

    Args:
        in_channels: of the input.
        out_channels: of the output.
        kernel_size: one number for each dimension, which decide between Conv1d and Conv2d.
        stride: likewise; 1 if None.
        dilation: likewise.
        groups: of channels that do not see one another.
    """
    ones = (1,) * len(kernel_size)
    dilation = dilation or ones
    kind: Any = nn.Conv1d if len(kernel_size) == 1 else nn.Conv2d
    layer = kind(
        in_channels,
        out_channels,
        kernel_size,
        stride=stride or ones,
        padding=tuple((k - 1) // 2 * d for k, d in zip(kernel_size, dilation, strict=True)),
        dilation=dilation,
        groups=groups,
    )
    nn.init.kaiming_normal_(layer.weight, nonlinearity="leaky_relu", a=0.2)
    nn.init.zeros_(layer.bias)
    return weight_norm(layer)


class STFTDiscriminator(nn.Module):
    """One scale of the multi-scale STFT discriminator (EnCodec, §3.4 and figure 2).

    Real and imaginary part are two channels of a (frames, bins) image: a 3 x 9 convolution,
    three more with dilations 1, 2, 4 in time that halve the bins, and a 3 x 3 one.

    Args:
        n_fft: window length in samples; the hop is a quarter of it.
        channels: of the first convolution.
        growth: factor of channels from each dilated convolution to the next.
        max_channels: where growth ends.
    """

    def __init__(
        self, *, n_fft: int, channels: int = 32, growth: int = 1, max_channels: int = 1024
    ) -> None:
        super().__init__()
        self.n_fft = n_fft
        self.hop_length = n_fft // 4
        # Channels last takes a quarter less time on a CPU, and is the order the STFT leaves. But
        # with 24 channels oneDNN's bfloat16 weight gradients are then NaN in dilated layers (torch
        # 2.14.1); with multiples of 16 they are right.
        whole = channels % 16 == 0
        self.memory_format = torch.channels_last if whole else torch.contiguous_format
        widths = [min(channels * growth**i, max_channels) for i in range(4)]
        layers = [normed_convolution(2, widths[0], (3, 9))]
        for i, dilation in enumerate((1, 2, 4)):
            layers.append(
                normed_convolution(
                    widths[i], widths[i + 1], (3, 9), stride=(1, 2), dilation=(dilation, 1)
                )
            )
        layers.append(normed_convolution(widths[3], widths[3], (3, 3)))
        self.stack = LayerStack(layers, normed_convolution(widths[3], 1, (3, 3)), slope=0.2)

    def forward(self, wave: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Judge `wave` (batch, 1, samples).

        Returns:
            logits (batch, 1, frames, bins / 8) and five features (batch, channels, frames, bins
            / 1, 2, 4, 8, 8), with frames = 1 + samples // hop_length, bins = n_fft // 2 + 1
            and the quotients rounded up.
        """
        spectrum = torch.view_as_real(stft(wave, n_fft=self.n_fft, hop_length=self.hop_length))
        image = spectrum.permute(0, 3, 2, 1)
        return self.stack(image.contiguous(memory_format=self.memory_format))


class PeriodDiscriminator(nn.Module):
    """One period of the multi-period discriminator (HiFi-GAN, Kong et al. 2020, §2.3).

    Every period-th sample makes a row, and the rows share one stack of convolutions.

    Args:
        period: in samples.
        channels: of the first convolution; four times more in each of the next two and twice
            more in the fourth, as 32, 128, 512, 1024, 1024.
    """

    def __init__(self, *, period: int, channels: int = 32) -> None:
        super().__init__()
        self.period = period
        widths = [1, channels, 4 * channels, 16 * channels, 32 * channels, 32 * channels]
        strides = (3, 3, 3, 3, 1)
        layers = [
            normed_convolution(widths[i], widths[i + 1], (5, 1), stride=(stride, 1))
            for i, stride in enumerate(strides)
        ]
        self.stack = LayerStack(layers, normed_convolution(widths[-1], 1, (3, 1)), slope=0.1)

    def forward(self, wave: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Judge `wave` (batch, 1, samples), padded by zeros to whole periods.

        Returns:
            logits (batch, 1, rows, period) and five features (batch, channels, rows, period).
        """
        wave = F.pad(wave, (0, -wave.shape[-1] % self.period))
        return self.stack(wave.unflatten(-1, (-1, self.period)))


class Discriminators(nn.Module):
    """Several discriminators that judge one wave: their logits and features, joined in order.

    Raises:
        ValueError: there is none.
    """

    def __init__(self, discriminators: Iterable[nn.Module]) -> None:
        super().__init__()
        self.discriminators = nn.ModuleList(discriminators)
        if not self.discriminators:
            raise ValueError("no discriminators were given: one or more would do")

    def forward(self, wave: Tensor) -> DiscriminatorOutput:
        """Judge `wave` (batch, 1, samples), float32 in [-1, 1]."""
        joined = DiscriminatorOutput([], [])
        for discriminator in self.discriminators:
            said = discriminator(wave)
            if isinstance(said, DiscriminatorOutput):
                joined.logits += said.logits
                joined.features += said.features
            else:
                joined.logits.append(said[0])
                joined.features.append(said[1])
        return joined


class MultiScaleSTFTDiscriminator(Discriminators):
    """An `STFTDiscriminator` for each window length.

    Args:
        n_ffts: window lengths in samples.
        channels: of every scale's first convolution.
        growth: factor of channels from each dilated convolution to the next.

    Raises:
        ValueError: no window length, or one that is not a multiple of 4.
    """

    def __init__(
        self,
        *,
        n_ffts: Sequence[int] = (1024, 2048, 512, 256, 128),
        channels: int = 32,
        growth: int = 1,
    ) -> None:
        for n_fft in n_ffts:
            if n_fft < 16 or n_fft % 4:
                raise ValueError(f"n_fft={n_fft}: a multiple of 4, 16 or more, would do")
        super().__init__(
            STFTDiscriminator(n_fft=n_fft, channels=channels, growth=growth) for n_fft in n_ffts
        )


class MultiPeriodDiscriminator(Discriminators):
    """A `PeriodDiscriminator` for each period.

    Args:
        periods: in samples; primes see the most different things.
        channels: of every period's first convolution.

    Raises:
        ValueError: no period, or one below 1.
    """

    def __init__(self, *, periods: Sequence[int] = (2, 3, 5, 7, 11), channels: int = 32) -> None:
        for period in periods:
            if period < 1:
                raise ValueError(f"period={period}: 1 or more would do")
        super().__init__(
            PeriodDiscriminator(period=period, channels=channels) for period in periods
        )
