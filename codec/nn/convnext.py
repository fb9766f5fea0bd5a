"""Encoder and decoder whose layers run at frame rates, between a Fourier analysis and synthesis.

ConvNeXt blocks (Liu et al. 2022), as Vocos (Siuzdak 2023) uses them on frames of spectra, made
causal: at the rate of frames a second of speech costs a small part of what a SEANet spends next to
the waveform. Streaming by default, with the same interface as `codec.nn.seanet`.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codec.nn.convolution import Conv1d, ConvTranspose1d, State, StreamingLayer
from codec.nn.halves import WaveDecoder, WaveEncoder
from codec.nn.noise import LatentNoise
from codec.nn.start import normal
from codec.nn.transform import Analysis, Synthesis

_BRANCH_SCALE = 0.1  # of a block's branch at the start, against 1 for what it is added to
# A new decoder's log magnitudes: e^-2 is about what the average bin of speech has, and small
# differences at first, so that spectral losses need not begin by undoing random spectra.
_LOG_MAGNITUDE = -2.0
_LOG_MAGNITUDE_GAIN = 0.3


class ChannelNorm(nn.Module):
    """Layer norm over the channels of (batch, channels, time), with a gain and bias a channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Return x, normalised at every time of its own."""
        y = F.layer_norm(x.transpose(1, 2), self.weight.shape, self.weight, self.bias)
        return y.transpose(1, 2)


class ConvNeXtBlock(StreamingLayer):
    """x + scale * branch(x): depthwise convolution, norm, widening layer, GELU, narrowing layer.

    Shape (batch, channels, time) in and out. `scale` is learned, one a channel. The state is the
    last kernel_size - 1 samples.
    """

    state_size = 1

    def __init__(
        self, channels: int, *, kernel_size: int = 7, expansion: int = 3, causal: bool = True
    ) -> None:
        super().__init__()
        if kernel_size < 2 or expansion < 1:
            raise ValueError(
                f"kernel_size must be at least 2 and expansion 1, got {kernel_size}, {expansion}"
            )
        self.channels = channels
        self.causal = causal
        self.right_padding = 0 if causal else (kernel_size - 1) // 2
        self.left_padding = kernel_size - 1 - self.right_padding
        self.depthwise = nn.Parameter(normal(channels, 1, kernel_size, std=kernel_size**-0.5))
        self.norm = nn.LayerNorm(channels)
        self.widen = _linear(channels, expansion * channels)
        self.narrow = _linear(expansion * channels, channels)
        self.scale = nn.Parameter(torch.full((channels,), _BRANCH_SCALE))

    def forward(self, x: Tensor) -> Tensor:
        """Return a tensor of the same shape."""
        if x.shape[-1] == 0:
            return x
        return x + self._branch(F.pad(x, (self.left_padding, self.right_padding)))

    def initial_state(self, batch_size: int) -> State:
        """Return the zeros before the signal, (batch, channels, kernel_size - 1)."""
        self._require_causal()
        return (self.depthwise.new_zeros(batch_size, self.channels, self.left_padding),)

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Take a piece of any length."""
        self._require_causal()
        if x.shape[-1] == 0:
            return x, state
        padded = torch.cat((state[0], x), dim=-1)
        last = padded[..., padded.shape[-1] - self.left_padding :].contiguous()
        return x + self._branch(padded), (last,)

    def input_span(self, first: int, last: int) -> tuple[int, int]:
        """Sample t reads kernel_size samples from t - left padding on."""
        return first - self.left_padding, last + self.right_padding

    def _branch(self, padded: Tensor) -> Tensor:
        # As an image of height one: in two dimensions PyTorch's CPU kernel is three times as fast.
        image = F.conv2d(padded[:, :, None], self.depthwise[:, :, None], groups=self.channels)
        y = self.norm(image[:, :, 0].transpose(1, 2))
        y = self.narrow(F.gelu(self.widen(y))) * self.scale
        return y.transpose(1, 2)

    def _require_causal(self) -> None:
        if not self.causal:
            raise ValueError("a layer with causal=False reads the future and cannot be streamed")


class ConvNeXtEncoder(WaveEncoder):
    """wave (batch, 1, samples) -> latent (batch, dimension, frames), frames = ceil(samples / hop).

    A Fourier analysis every `strides[0]` samples over `n_fft` of them; then for each stride its
    number of `blocks` at its width of `channels`, with a strided convolution of kernel 2 * stride
    before all but the first; last a norm and a convolution to `dimension`. One entry of `channels`
    and `blocks` belongs to each stride.

    Raises:
        ValueError: lists of unequal length, or a size that is not positive.
    """

    def __init__(
        self,
        *,
        strides: Sequence[int] = (80, 4),
        channels: Sequence[int] = (192, 384),
        blocks: Sequence[int] = (2, 4),
        n_fft: int = 320,
        dimension: int = 128,
        kernel_size: int = 7,
        expansion: int = 3,
        causal: bool = True,
    ) -> None:
        check_lists(strides, channels, blocks)
        layers: list[nn.Module] = [
            Analysis(n_fft, strides[0], causal=causal),
            Conv1d(n_fft + 2, channels[0], 1, causal=causal),
        ]
        for i, (stride, width, depth) in enumerate(zip(strides, channels, blocks, strict=True)):
            if i:
                layers.append(
                    Conv1d(channels[i - 1], width, 2 * stride, stride=stride, causal=causal)
                )
            layers += stack(depth, width, kernel_size, expansion, causal)
        layers += [ChannelNorm(channels[-1]), Conv1d(channels[-1], dimension, 1, causal=causal)]
        super().__init__(layers, hop_length=math.prod(strides), dimension=dimension)


class ConvNeXtDecoder(WaveDecoder):
    """latent (batch, dimension, frames) -> wave (batch, 1, frames * hop_length).

    The encoder's mirror image (`strides`, `channels` and `blocks` in the encoder's order): a
    convolution of `last_kernel_size` from `dimension` and `noise_channels` of `LatentNoise`; for
    each stride, last one first, its blocks, with a transposed convolution between two; a norm, a
    layer to log magnitudes and phases, and the inverse STFT of windows of 2 * strides[0] samples.
    Nothing bounds the wave to [-1, 1].

    A sample lies under two windows, of which the later one knows it: the earlier one has to guess
    at most the next strides[0] samples. With a small first stride that costs little.

    Raises:
        ValueError: lists of unequal length, or a size that is not positive.
    """

    def __init__(
        self,
        *,
        strides: Sequence[int] = (80, 4),
        channels: Sequence[int] = (192, 384),
        blocks: Sequence[int] = (2, 4),
        dimension: int = 128,
        last_kernel_size: int = 3,
        kernel_size: int = 7,
        expansion: int = 3,
        noise_channels: int = 0,
        causal: bool = True,
    ) -> None:
        check_lists(strides, channels, blocks)
        layers: list[nn.Module] = [LatentNoise(dimension, noise_channels)] if noise_channels else []
        layers.append(
            Conv1d(dimension + noise_channels, channels[-1], last_kernel_size, causal=causal)
        )
        for i in range(len(strides) - 1, -1, -1):
            layers += stack(blocks[i], channels[i], kernel_size, expansion, causal)
            if i:
                layers.append(
                    ConvTranspose1d(channels[i], channels[i - 1], stride=strides[i], causal=causal)
                )
        layers += [
            ChannelNorm(channels[0]),
            _spectrum_layer(channels[0], strides[0] + 1, causal),
            Synthesis(strides[0], causal=causal),
        ]
        super().__init__(layers, hop_length=math.prod(strides), dimension=dimension)


def _linear(in_features: int, out_features: int) -> nn.Linear:
    """Return a layer that keeps a signal's power; biases start at zero."""
    layer: nn.Linear = nn.utils.skip_init(nn.Linear, in_features, out_features)
    layer.weight = nn.Parameter(normal(out_features, in_features, std=in_features**-0.5))
    layer.bias = nn.Parameter(torch.zeros(out_features))
    return layer


def _spectrum_layer(channels: int, bins: int, causal: bool) -> Conv1d:
    """Return the layer that gives the log magnitudes and phases of `bins` bins."""
    layer = Conv1d(channels, 2 * bins, 1, causal=causal)
    if layer.weight.is_meta:
        return layer
    with torch.no_grad():
        layer.get_parameter("parametrizations.weight.original0")[:bins] *= _LOG_MAGNITUDE_GAIN
        assert layer.bias is not None
        layer.bias[:bins] = _LOG_MAGNITUDE
    return layer


def stack(
    depth: int, channels: int, kernel_size: int, expansion: int, causal: bool
) -> list[nn.Module]:
    """Return `depth` blocks one after the other."""
    return [
        ConvNeXtBlock(channels, kernel_size=kernel_size, expansion=expansion, causal=causal)
        for _ in range(depth)
    ]


def check_lists(strides: Sequence[int], channels: Sequence[int], blocks: Sequence[int]) -> None:
    """Refuse lists of unequal length and sizes that are not positive (ValueError)."""
    if not len(strides) == len(channels) == len(blocks) > 0:
        raise ValueError(
            f"one entry of channels and of blocks belongs to each of the strides {list(strides)}, "
            f"got {list(channels)} and {list(blocks)}"
        )
    if min(*strides, *channels, 1) < 1 or min(blocks) < 0:
        raise ValueError("strides and channels must be positive, blocks at least 0")
