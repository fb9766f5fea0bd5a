"""SEANet encoder and decoder.

After Tagliasacchi et al. 2020, Zeghidour et al. 2021 (SoundStream), Défossez et al. 2022 (EnCodec).
Fully convolutional: residual units of growing dilation, then a strided convolution that doubles
the width, once per stride; the decoder is the mirror image. Causal and streaming by default.

Initialisation. Filters start with the norm that keeps a signal's power through the activation
before them, biases at zero, and the last convolution of every residual branch small, so that a new
network is nearly the chain of its resampling layers: signal and gradient pass it at the size they
came in, up to the decoder's last filter, which brings the wave to the level of speech. (Small or
zero branches: Zhang et al. 2019, "Fixup"; HILCodec.)
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codec.nn.convolution import Chain, Conv1d, ConvTranspose1d, State, StreamingLayer
from codec.nn.halves import WaveDecoder, WaveEncoder

# Norm of a residual branch's last filters at the start, against 1 for the signal it is added to.
_BRANCH_GAIN = 0.1
# Of the decoder's last filter, so that its first waves have about the level of speech (rms 0.08)
# and a spectral loss need not begin by turning them down.
_WAVE_GAIN = 0.1


class ELU(nn.Module):
    """x above zero, exp(x) - 1 below (Clevert et al. 2016), for any shape."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the activation, in x's dtype."""
        if x.device.type == "cpu":
            return _elu_on_cpu(x)
        return F.elu(x)


class Snake(nn.Module):
    """x + sin²(αx) / α with one learned α a channel, 1 at the start (Ziyin et al. 2020).

    1 / α is taken as α / (α² + 1e-12): the same to float rounding for |α| > 1e-2, and finite, with
    the right limit x, where α passes through zero.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Return the activation of x (batch, channels, time), in x's dtype."""
        inverse = self.alpha / (self.alpha.square() + 1e-12)
        return x + (torch.sin(self.alpha * x).square() * inverse).to(x.dtype)


class _ELUFunction(torch.autograd.Function):
    """ELU by the vectorised exp, whose gradient needs the output alone: 1 + min(y, 0)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = _elu(x)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        return (y.clamp(max=0) + 1) * gradients[0]


def _elu(x: Tensor) -> Tensor:
    # In fp32 at least: in bf16 exp(x) - 1 would have steps of 0.004. As exp(x) - 1 >= x, the larger
    # of the two is the right one on both sides of zero.
    negative = x.clamp(max=0).to(torch.promote_types(x.dtype, torch.float32))
    return torch.maximum(x, negative.exp_().sub_(1).to(x.dtype))


def _elu_on_cpu(x: Tensor) -> Tensor:
    """Do what F.elu does, which on a CPU takes longer than the convolutions around it."""
    if torch.is_grad_enabled() and x.requires_grad:
        y: Tensor = _ELUFunction.apply(x)
        return y
    return _elu(x)


def _leaky_relu(channels: int) -> nn.Module:
    return nn.LeakyReLU(0.1)


def _elu_layer(channels: int) -> nn.Module:
    return ELU()


# Name -> (how to make it for so many channels, 1 / rms of its output for N(0, 1) input).
_ACTIVATIONS = {
    "elu": (_elu_layer, 1.245),
    "leaky_relu": (_leaky_relu, math.sqrt(2 / 1.01)),
    "snake": (Snake, 0.875),
}


def activation_names() -> list[str]:
    """Return the names that `activation` may have."""
    return sorted(_ACTIVATIONS)


def _activation(name: str, channels: int) -> nn.Module:
    return _ACTIVATIONS[name][0](channels)


class ResidualUnit(StreamingLayer):
    """x + branch(x): activation, dilated convolution to fewer channels, activation, 1x1 back."""

    def __init__(
        self,
        channels: int,
        *,
        kernel_size: int = 3,
        dilation: int = 1,
        compress: int = 2,
        activation: str = "elu",
        causal: bool = True,
    ) -> None:
        super().__init__()
        gain = _gain(activation)
        if compress < 1:
            raise ValueError(f"compress must be at least 1, got {compress}")
        hidden = max(1, channels // compress)
        self.branch = Chain(
            [
                _activation(activation, channels),
                Conv1d(channels, hidden, kernel_size, dilation=dilation, causal=causal, gain=gain),
                _activation(activation, hidden),
                Conv1d(hidden, channels, 1, causal=causal, gain=_BRANCH_GAIN * gain),
            ]
        )
        self.state_size = self.branch.state_size

    def forward(self, x: Tensor) -> Tensor:
        """Return (batch, channels, time) of the same shape."""
        y: Tensor = x + self.branch(x)
        return y

    def initial_state(self, batch_size: int) -> State:
        """Return the branch's; what is added is of the same time and needs none."""
        return self.branch.initial_state(batch_size)

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Take a piece of any length."""
        y, state = self.branch.step(x, state)
        return x + y, state

    def input_span(self, first: int, last: int) -> tuple[int, int]:
        """Return the branch's span, which holds the sample itself unless its kernel is even."""
        start, end = self.branch.input_span(first, last)
        return min(start, first), max(end, last)


class SEANetEncoder(WaveEncoder):
    """wave (batch, 1, samples) -> latent (batch, dimension, frames), frames = ceil(samples / hop).

    The wave is taken with zeros after it up to a whole hop, as the last piece of a stream is. First
    a convolution of `kernel_size` to `channels`; per stride the residual units, one for each
    of `dilations`, an activation and a convolution of kernel 2 * stride that doubles the width (up
    to `max_channels`, if given); last an activation and a convolution of `last_kernel_size` to
    `dimension`. `compress` divides the width inside a residual unit. `activation` is "elu",
    "leaky_relu" (slope 0.1) or "snake".

    Raises:
        ValueError: an unknown activation, or a size or stride that is not positive.
    """

    def __init__(
        self,
        *,
        channels: int = 32,
        dimension: int = 128,
        strides: Sequence[int] = (2, 4, 5, 8),
        kernel_size: int = 7,
        last_kernel_size: int = 3,
        residual_kernel_size: int = 3,
        dilations: Sequence[int] = (1, 3, 9),
        compress: int = 2,
        activation: str = "elu",
        causal: bool = True,
        max_channels: int | None = None,
    ) -> None:
        gain = _gain(activation)
        widths = _widths(channels, strides, max_channels)
        layers: list[nn.Module] = [Conv1d(1, channels, kernel_size, causal=causal)]
        for stride, width, wider in zip(strides, widths, widths[1:], strict=False):
            layers += _residual_units(
                width, residual_kernel_size, dilations, compress, activation, causal
            )
            layers += [
                _activation(activation, width),
                Conv1d(width, wider, 2 * stride, stride=stride, causal=causal, gain=gain),
            ]
        layers += [
            _activation(activation, widths[-1]),
            Conv1d(widths[-1], dimension, last_kernel_size, causal=causal, gain=gain),
        ]
        super().__init__(layers, hop_length=math.prod(strides), dimension=dimension)


class SEANetDecoder(WaveDecoder):
    """latent (batch, dimension, frames) -> wave (batch, 1, frames * hop_length).

    The encoder's mirror image, built from the same arguments (`strides` in the encoder's order): a
    convolution of `last_kernel_size` from `dimension`; per stride, last one first, an activation,
    a transposed convolution that halves the width, and the residual units; an activation and a
    convolution of `kernel_size` to one channel. Nothing bounds the wave to [-1, 1].

    Raises:
        ValueError: an unknown activation, or a size or stride that is not positive.
    """

    def __init__(
        self,
        *,
        channels: int = 32,
        dimension: int = 128,
        strides: Sequence[int] = (2, 4, 5, 8),
        kernel_size: int = 7,
        last_kernel_size: int = 3,
        residual_kernel_size: int = 3,
        dilations: Sequence[int] = (1, 3, 9),
        compress: int = 2,
        activation: str = "elu",
        causal: bool = True,
        max_channels: int | None = None,
    ) -> None:
        gain = _gain(activation)
        widths = _widths(channels, strides, max_channels)[::-1]
        layers: list[nn.Module] = [Conv1d(dimension, widths[0], last_kernel_size, causal=causal)]
        for stride, width, narrower in zip(strides[::-1], widths, widths[1:], strict=False):
            layers += [
                _activation(activation, width),
                ConvTranspose1d(width, narrower, stride=stride, causal=causal, gain=gain),
            ]
            layers += _residual_units(
                narrower, residual_kernel_size, dilations, compress, activation, causal
            )
        layers += [
            _activation(activation, channels),
            Conv1d(channels, 1, kernel_size, causal=causal, gain=_WAVE_GAIN * gain),
        ]
        super().__init__(layers, hop_length=math.prod(strides), dimension=dimension)


def _gain(activation: str) -> float:
    """Return the filter norm that keeps a unit signal's power through the activation before it."""
    if activation not in _ACTIVATIONS:
        names = ", ".join(activation_names())
        raise ValueError(f"unknown activation {activation!r}: choose one of {names}")
    return _ACTIVATIONS[activation][1]


def _widths(channels: int, strides: Sequence[int], max_channels: int | None) -> list[int]:
    """Return the width at full rate and after each stride."""
    if not strides or min(strides) < 1:
        raise ValueError(f"strides must be one or more positive integers, got {list(strides)}")
    widths = [channels * 2**i for i in range(len(strides) + 1)]
    if max_channels is None:
        return widths
    if max_channels < channels:
        raise ValueError(f"max_channels {max_channels} is smaller than channels {channels}")
    return [min(width, max_channels) for width in widths]


def _residual_units(
    channels: int,
    kernel_size: int,
    dilations: Sequence[int],
    compress: int,
    activation: str,
    causal: bool,
) -> list[nn.Module]:
    return [
        ResidualUnit(
            channels,
            kernel_size=kernel_size,
            dilation=dilation,
            compress=compress,
            activation=activation,
            causal=causal,
        )
        for dilation in dilations
    ]
