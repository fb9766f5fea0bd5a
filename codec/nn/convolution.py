"""Causal convolutions whose streaming state is data.

Every layer here has three methods. `forward(x)` takes a whole signal. `step(x, state)` takes the
next piece of one and returns its output with the state to pass with the piece after it;
`initial_state(batch_size)` is the state before the first. A state is a tuple of tensors that no
layer keeps: streams can be interleaved, batched, saved and exported, and nothing of them reaches
`state_dict`. However a signal is cut into pieces, the outputs put together equal `forward`'s up to
float rounding (a few 1e-6 of the largest value).

What lies before a signal is zeros, in training as well: padding that repeats or reflects the
signal would read the future. What lies after it is zeros up to a whole stride.
"""

import math
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

from codec.nn.start import normal

State = tuple[Tensor, ...]
"""Everything a layer remembers of one stream; layers in a row lay their tensors end to end."""

# Below this many output frames one matrix product over windows beats F.conv1d on a CPU, by three
# times for the widest layers at 2 to 15 frames; above it the copied windows cost more than they
# bring.
_FEW_FRAMES = 16


class StreamingLayer(nn.Module):
    """A layer that takes a signal whole or in pieces; see the module's docstring."""

    state_size: int = 0
    """How many tensors a state of this layer has."""

    def initial_state(self, batch_size: int) -> State:
        """Return the state before the first piece: zeros, on the parameters' device and dtype."""
        raise NotImplementedError

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Take the next piece (batch, in_channels, time) and return its output and the new state.

        `state` itself is left as it was, so a stream can be gone back to.

        Raises:
            ValueError: the piece is not a whole number of strides, or the layer is not causal.
        """
        raise NotImplementedError

    def input_span(self, first: int, last: int) -> tuple[int, int]:
        """Return the first and last input index that outputs `first` to `last` depend on.

        Indices count from the signal's start and may lie outside it, where zeros are read.
        """
        raise NotImplementedError


class Chain(StreamingLayer):
    """Layers one after the other. Modules that are no `StreamingLayer` act on each sample alone."""

    def __init__(self, layers: Iterable[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.state_size = sum(layer.state_size for layer in self._streaming())

    def _streaming(self) -> list[StreamingLayer]:
        return [layer for layer in self.layers if isinstance(layer, StreamingLayer)]

    def forward(self, x: Tensor) -> Tensor:
        """Pass a whole signal (batch, in_channels, time) through all layers."""
        for layer in self.layers:
            x = layer(x)
        return x

    def initial_state(self, batch_size: int) -> State:
        """Return all layers' initial states, end to end."""
        states = [layer.initial_state(batch_size) for layer in self._streaming()]
        return tuple(tensor for state in states for tensor in state)

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Pass the next piece of a signal through all layers."""
        if len(state) != self.state_size:
            raise ValueError(f"a state of {self.state_size} tensors is needed, got {len(state)}")
        new_state: State = ()
        start = 0
        for layer in self.layers:
            if isinstance(layer, StreamingLayer):
                x, new = layer.step(x, state[start : start + layer.state_size])
                start += layer.state_size
                new_state += new
            else:
                x = layer(x)
        return x, new_state

    def input_span(self, first: int, last: int) -> tuple[int, int]:
        """Return the span of the whole chain, from its last layer back to its first."""
        for layer in reversed(self._streaming()):
            first, last = layer.input_span(first, last)
        return first, last


class Conv1d(StreamingLayer):
    """Weight-normed 1-d convolution (batch, in_channels, time) -> (batch, out_channels, frames).

    frames = ceil(time / stride), 0 for an empty signal. A causal layer pads
    (kernel_size - 1) * dilation + 1 - stride zeros on the left, so that output frame t depends on
    nothing after sample (t + 1) * stride - 1; that many last samples are its state. With
    `causal=False` the same padding is split over both sides, the odd one going left.

    Filters start in a random direction, each of norm `gain`: white input of power 1 gives output
    of power gain². Biases start at zero. Weight norm: Salimans & Kingma 2016, one norm a filter.

    Raises:
        ValueError: `kernel_size` is smaller than `stride` (samples would be passed over), or a
            size is not positive.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        causal: bool = True,
        bias: bool = True,
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        _require_positive(
            in_channels=in_channels,
            out_channels=out_channels,
            kernel_size=kernel_size,
            stride=stride,
            dilation=dilation,
        )
        if kernel_size < stride:
            raise ValueError(
                f"kernel_size {kernel_size} is smaller than stride {stride}: "
                "it would pass over samples"
            )
        self.out_channels = out_channels
        self.stride = stride
        self.dilation = dilation
        self.causal = causal
        self.extent = (kernel_size - 1) * dilation + 1
        padding = self.extent - stride
        self.right_padding = 0 if causal else padding // 2
        self.left_padding = padding - self.right_padding
        self.state_size = int(padding > 0)
        self.weight = nn.Parameter(normal(out_channels, in_channels, kernel_size))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        self.in_channels = in_channels
        _add_weight_norm(self, self.weight, gain)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve a whole signal."""
        if x.shape[-1] == 0:
            return x.new_zeros(x.shape[0], self.out_channels, 0)
        right = self.right_padding + -x.shape[-1] % self.stride
        if self.left_padding or right:
            x = F.pad(x, (self.left_padding, right))
        return F.conv1d(x, self.weight, self.bias, self.stride, dilation=self.dilation)

    def initial_state(self, batch_size: int) -> State:
        """Return the zeros before the signal, (batch, in_channels, left padding), if any."""
        _require_causal(self.causal)
        if not self.state_size:
            return ()
        return (_zeros_like_parameters(self, batch_size, self.in_channels, self.left_padding),)

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Convolve the next piece, a whole number of strides (0 too), into time / stride frames."""
        _require_causal(self.causal)
        if x.shape[-1] % self.stride:
            raise ValueError(
                f"a step takes a multiple of the stride {self.stride}, got {x.shape[-1]} samples"
            )
        if x.shape[-1] == 0:
            return x.new_zeros(x.shape[0], self.out_channels, 0), state
        frames = x.shape[-1] // self.stride
        if state:
            x = torch.cat((state[0], x), dim=-1)
            state = (_last(x, self.left_padding),)
        if frames < _FEW_FRAMES:
            windows = _windows(x, self.extent, self.stride, self.dilation)
            y = F.linear(windows, self.weight.flatten(1), self.bias).transpose(1, 2)
            return y, state
        return F.conv1d(x, self.weight, self.bias, self.stride, dilation=self.dilation), state

    def input_span(self, first: int, last: int) -> tuple[int, int]:
        """Frame t reads `extent` samples from t * stride - left padding on."""
        start = first * self.stride - self.left_padding
        return start, last * self.stride - self.left_padding + self.extent - 1


class ConvTranspose1d(StreamingLayer):
    """Weight-normed upsampling (batch, in_channels, frames) -> (.., out_channels, frames * stride).

    The transposed convolution of kernel 2 * stride. Frame t reaches the output blocks t and t + 1,
    so block t is W₀x_t + W₁x_{t-1} + bias: one matrix product over pairs of frames, in which the
    overlap-add is the sum over the pair, and the last frame's second block is never computed.
    Training runs the same product as a convolution of kernel 2 with stride * out_channels outputs
    (Shi et al. 2016, "sub-pixel"): on a CPU a training pass costs about what `conv_transpose1d`'s
    does, where a separate overlap-add costs up to twice as much. The state is the last frame.

    A causal output sample depends on its own frame and the one before. With `causal=False` the
    whole output of (frames + 1) * stride samples loses stride - stride // 2 samples on the left
    and the rest on the right: frame t then covers just the samples which frame t of a non-causal
    `Conv1d` with this kernel and stride reads.

    `weight` is (out_channels, stride, in_channels, 2), the earlier frame first. Filters start as
    in `Conv1d`: `gain` is the norm of one output sample's filter, on the average of a block.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        stride: int,
        causal: bool = True,
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        _require_positive(in_channels=in_channels, out_channels=out_channels, stride=stride)
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.stride = stride
        self.causal = causal
        self.left_trim = 0 if causal else stride - stride // 2
        self.state_size = 1
        self.weight = nn.Parameter(normal(out_channels, stride, in_channels, 2))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        _add_weight_norm(self, self.weight, gain * math.sqrt(stride))

    def forward(self, x: Tensor) -> Tensor:
        """Upsample a whole signal."""
        if x.shape[-1] == 0:
            return x.new_zeros(x.shape[0], self.out_channels, 0)
        pairs = F.pad(x, (1, 0 if self.causal else 1))
        blocks = F.conv1d(pairs, self.weight.flatten(0, 1), self._block_bias())
        blocks = blocks.unflatten(1, (self.out_channels, self.stride))
        y = blocks.transpose(2, 3).flatten(2)
        return y if self.causal else y[..., self.left_trim :][..., : x.shape[-1] * self.stride]

    def initial_state(self, batch_size: int) -> State:
        """Return the zeros before the first frame, (batch, in_channels, 1)."""
        _require_causal(self.causal)
        return (_zeros_like_parameters(self, batch_size, self.in_channels, 1),)

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Upsample the next frames, any number of them."""
        _require_causal(self.causal)
        if x.shape[-1] == 0:
            return x.new_zeros(x.shape[0], self.out_channels, 0), state
        x = torch.cat((state[0], x), dim=-1)
        matrix = self.weight.flatten(0, 1).flatten(1)
        blocks = F.linear(_windows(x, 2, 1, 1), matrix, self._block_bias())
        blocks = blocks.unflatten(2, (self.out_channels, self.stride))
        return blocks.transpose(1, 2).flatten(2), (_last(x, 1),)

    def _block_bias(self) -> Tensor:
        """Return the bias once for every output sample of a block."""
        return self.bias.repeat_interleave(self.stride)

    def input_span(self, first: int, last: int) -> tuple[int, int]:
        """Sample n lies in block (n + left trim) // stride, which reads two frames."""
        block = (first + self.left_trim) // self.stride
        return block - 1, (last + self.left_trim) // self.stride


def fold_weight_norm(module: nn.Module) -> None:
    """Replace every weight norm inside `module` by the weight it gives, in place.

    For inference: the output is the same, and no weight is computed again in each call.
    `state_dict` then has plain `weight` keys. A module without weight norm is left as it is.
    """
    for layer in module.modules():
        if parametrize.is_parametrized(layer, "weight"):
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)


def _add_weight_norm(layer: nn.Module, weight: Tensor, norm: float) -> None:
    """Put weight norm on the layer's filters (its weight's first dimension), each of norm `norm`.

    The direction keeps entries of about 1 / sqrt(size), whatever the norm: a filter that starts
    small, or at zero, still turns at the same rate as the others.
    """
    if weight.is_meta:  # built for its shapes alone, and those are the folded layer's
        return
    with torch.no_grad():
        weight /= math.sqrt(weight[0].numel())
        parametrizations.weight_norm(layer, "weight", dim=0)
        layer.get_parameter("parametrizations.weight.original0").fill_(norm)


@torch.no_grad()
def set_weight(layer: nn.Module, weight: Tensor) -> None:
    """Give a layer of this module a weight, through its weight norm if it has not been folded.

    A filter of zeros, which has no direction, keeps the one that the layer has.
    """
    if not parametrize.is_parametrized(layer, "weight"):
        layer.get_parameter("weight").copy_(weight)
        return
    norms, directions = (
        layer.get_parameter(f"parametrizations.weight.original{i}") for i in range(2)
    )
    size = weight.flatten(1).norm(dim=1).view_as(norms)
    norms.copy_(size)
    directions.copy_(torch.where(size > 0, weight, directions))


def _windows(x: Tensor, extent: int, stride: int, dilation: int) -> Tensor:
    """(batch, channels, time) -> (batch, frames, channels * kernel_size)."""
    windows = x.unfold(-1, extent, stride)[..., ::dilation]
    return windows.transpose(1, 2).flatten(2)


def _last(x: Tensor, length: int) -> Tensor:
    """Return the last `length` samples in memory of their own layout, as exports need them."""
    return x[..., x.shape[-1] - length :].contiguous()


def _zeros_like_parameters(layer: nn.Module, *shape: int) -> Tensor:
    return next(layer.parameters()).new_zeros(shape)


def _require_causal(causal: bool) -> None:
    if not causal:
        raise ValueError("a layer with causal=False reads the future and cannot be streamed")


def _require_positive(**sizes: int) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name} must be at least 1, got {size}")
