"""Convolutions: lengths, causality, streaming against whole signals, weight norm, spans."""

import copy
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from codec.nn.convolution import (
    Chain,
    Conv1d,
    ConvTranspose1d,
    State,
    StreamingLayer,
    fold_weight_norm,
)

torch.set_num_threads(1)

LAYERS = {
    "k1": lambda: Conv1d(3, 4, 1),
    "k3": lambda: Conv1d(3, 4, 3),
    "k3-d9": lambda: Conv1d(3, 4, 3, dilation=9),
    "k4-s2": lambda: Conv1d(3, 4, 4, stride=2),
    "k7-s3-d2": lambda: Conv1d(3, 4, 7, stride=3, dilation=2),
    "k5-s5": lambda: Conv1d(3, 4, 5, stride=5),
    "up1": lambda: ConvTranspose1d(3, 4, stride=1),
    "up2": lambda: ConvTranspose1d(3, 4, stride=2),
    "up5": lambda: ConvTranspose1d(3, 4, stride=5),
}
every_layer = pytest.mark.parametrize("name", LAYERS)


def make(name: str) -> StreamingLayer:
    torch.manual_seed(0)
    layer = LAYERS[name]()
    with_bias(layer)
    return layer


def with_bias(layer: torch.nn.Module) -> None:
    """Biases start at zero, where an error in their handling would not show."""
    for name, parameter in layer.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter)


def stream(layer: StreamingLayer, x: Tensor, lengths: list[int]) -> Tensor:
    state: State = layer.initial_state(x.shape[0])
    pieces = []
    for piece in x.split(lengths, dim=-1):
        y, state = layer.step(piece, state)
        pieces.append(y)
    return torch.cat(pieces, dim=-1)


def assert_equal(actual: Tensor, expected: Tensor) -> None:
    assert actual.shape == expected.shape
    scale = expected.abs().max().item() if expected.numel() else 1.0
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5 * max(scale, 1e-3))


# ------------------------------------------------------------------------------------- lengths


@pytest.mark.parametrize("causal", [True, False], ids=["causal", "symmetric"])
@pytest.mark.parametrize("stride", range(1, 9))
def test_frames_are_samples_over_stride_rounded_up(stride: int, causal: bool) -> None:
    down = Conv1d(1, 2, 2 * stride, stride=stride, causal=causal)
    up = ConvTranspose1d(2, 1, stride=stride, causal=causal)
    for samples in {0, 1, stride - 1, stride, stride + 1, 5 * stride, 5 * stride + 1}:
        frames = down(torch.zeros(2, 1, samples))
        assert frames.shape == (2, 2, -(-samples // stride))
        assert up(frames).shape == (2, 1, frames.shape[-1] * stride)


@pytest.mark.parametrize("causal", [True, False], ids=["causal", "symmetric"])
@pytest.mark.parametrize("kernel_size", [1, 2, 3, 6, 7])
@pytest.mark.parametrize("dilation", [1, 2, 9])
def test_stride_one_keeps_the_length(kernel_size: int, dilation: int, causal: bool) -> None:
    conv = Conv1d(1, 1, kernel_size, dilation=dilation, causal=causal)
    for samples in (0, 1, 2, 17):
        assert conv(torch.zeros(1, 1, samples)).shape[-1] == samples


# ----------------------------------------------------------------------------------- arithmetic


@pytest.mark.parametrize(
    ("kernel_size", "stride", "dilation"),
    [(3, 1, 1), (3, 1, 9), (4, 2, 1), (7, 3, 2), (1, 1, 1)],
)
def test_convolution_is_torchs_on_the_padded_signal(
    kernel_size: int, stride: int, dilation: int
) -> None:
    torch.manual_seed(0)
    conv = Conv1d(3, 4, kernel_size, stride=stride, dilation=dilation)
    with_bias(conv)
    x = torch.randn(2, 3, 20 * stride)
    left = (kernel_size - 1) * dilation + 1 - stride
    expected = F.conv1d(
        F.pad(x, (left, 0)), conv.weight, conv.bias, stride=stride, dilation=dilation
    )
    assert_equal(conv(x), expected)


@pytest.mark.parametrize("causal", [True, False], ids=["causal", "symmetric"])
@pytest.mark.parametrize("stride", range(1, 9))
def test_transposed_convolution_is_torchs_trimmed(stride: int, causal: bool) -> None:
    torch.manual_seed(stride)
    up = ConvTranspose1d(4, 3, stride=stride, causal=causal)
    with_bias(up)
    x = torch.randn(2, 4, 9)
    taps = torch.cat([up.weight[..., 1], up.weight[..., 0]], dim=1)  # (out, 2 * stride, in)
    whole = F.conv_transpose1d(x, taps.permute(2, 0, 1), up.bias, stride=stride)
    left = 0 if causal else stride - stride // 2
    assert_equal(up(x), whole[..., left : left + 9 * stride])


def test_transposed_convolution_has_torchs_gradients() -> None:
    torch.manual_seed(0)
    up = ConvTranspose1d(4, 3, stride=3)
    fold_weight_norm(up)
    x = torch.randn(2, 4, 9, requires_grad=True)
    taps = torch.cat([up.weight[..., 1], up.weight[..., 0]], dim=1).permute(2, 0, 1)
    whole = F.conv_transpose1d(x, taps, up.bias, stride=3)
    inputs = (x, up.weight, up.bias)
    weights = torch.randn(2, 3, 27)
    expected = torch.autograd.grad((whole[..., :27] * weights).sum(), inputs)
    actual = torch.autograd.grad((up(x) * weights).sum(), inputs)
    for one, other in zip(actual, expected, strict=True):
        assert_equal(one, other)


@pytest.mark.parametrize("stride", [2, 3, 5, 8])
def test_symmetric_pair_reads_and_writes_the_same_samples(stride: int) -> None:
    down = Conv1d(1, 1, 2 * stride, stride=stride, causal=False)
    up = ConvTranspose1d(1, 1, stride=stride, causal=False)
    first, last = down.input_span(5, 5)
    frame = torch.zeros(1, 1, 11)
    frame[..., 5] = 1
    touched = up(frame).flatten().nonzero().flatten()
    assert (touched.min(), touched.max()) == (first, last)


# ------------------------------------------------------------------------------------ causality


@every_layer
def test_output_ignores_the_future(name: str) -> None:
    layer = make(name)
    x = torch.randn(1, 3, 60)
    changed = x.clone()
    changed[..., 30:] += 1
    before, after = layer(x), layer(changed)
    boundary = 30 * before.shape[-1] // 60
    torch.testing.assert_close(before[..., :boundary], after[..., :boundary], rtol=0, atol=0)
    assert (before[..., boundary] - after[..., boundary]).abs().max() > 1e-3


@pytest.mark.parametrize(
    "layer",
    [
        Conv1d(3, 4, 3, causal=False),
        Conv1d(3, 4, 10, stride=5, causal=False),
        ConvTranspose1d(3, 4, stride=5, causal=False),
    ],
    ids=["conv", "strided", "transposed"],
)
def test_symmetric_layers_see_the_future_and_refuse_to_stream(layer: StreamingLayer) -> None:
    x = torch.randn(1, 3, 60)
    changed = x.clone()
    changed[..., 30:] += 1
    before, after = layer(x), layer(changed)
    boundary = 30 * before.shape[-1] // 60
    assert (before - after)[..., :boundary].abs().max() > 1e-3
    with pytest.raises(ValueError, match="causal=False"):
        layer.initial_state(1)
    with pytest.raises(ValueError, match="causal=False"):
        layer.step(x, ())


# ------------------------------------------------------------------------------------ streaming


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    stride=st.integers(1, 6),
    extra_taps=st.integers(0, 7),
    dilation=st.integers(1, 5),
    chunks=st.lists(st.integers(0, 24), min_size=1, max_size=6),
    bias=st.booleans(),
    batch=st.integers(1, 3),
)
def test_streamed_convolution_equals_the_whole(
    stride: int, extra_taps: int, dilation: int, chunks: list[int], bias: bool, batch: int
) -> None:
    torch.manual_seed(1)
    conv = Conv1d(3, 4, stride + extra_taps, stride=stride, dilation=dilation, bias=bias)
    with_bias(conv)
    lengths = [chunk * stride for chunk in chunks]
    x = torch.randn(batch, 3, sum(lengths))
    assert_equal(stream(conv, x, lengths), conv(x))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    stride=st.integers(1, 9),
    chunks=st.lists(st.integers(0, 20), min_size=1, max_size=6),
    batch=st.integers(1, 3),
)
def test_streamed_transposed_convolution_equals_the_whole(
    stride: int, chunks: list[int], batch: int
) -> None:
    torch.manual_seed(1)
    up = ConvTranspose1d(4, 3, stride=stride)
    with_bias(up)
    x = torch.randn(batch, 4, sum(chunks))
    assert_equal(stream(up, x, chunks), up(x))


@every_layer
def test_interleaved_streams_do_not_mix(name: str) -> None:
    layer = make(name)
    signals = torch.randn(3, 1, 3, 60)
    states = [layer.initial_state(1) for _ in signals]
    outputs: list[list[Tensor]] = [[] for _ in signals]
    for start, end in pairwise([0, 30, 30, 60]):
        for i, x in enumerate(signals):
            y, states[i] = layer.step(x[..., start:end], states[i])
            outputs[i].append(y)
    for x, pieces in zip(signals, outputs, strict=True):
        assert_equal(torch.cat(pieces, dim=-1), layer(x))


@every_layer
def test_streams_in_one_batch_do_not_mix(name: str) -> None:
    layer = make(name)
    x = torch.randn(2, 3, 60)
    assert_equal(stream(layer, x, [30, 30])[1:], layer(x[1:]))


@every_layer
def test_step_leaves_its_state_as_it_was(name: str) -> None:
    layer = make(name)
    x = torch.randn(1, 3, 60)
    _, state = layer.step(x[..., :30], layer.initial_state(1))
    kept = copy.deepcopy(state)
    first, _ = layer.step(x[..., 30:], state)
    again, _ = layer.step(x[..., 30:], state)
    assert len(state) == layer.state_size
    assert torch.equal(first, again)
    assert all(torch.equal(one, other) for one, other in zip(state, kept, strict=True))


@every_layer
def test_state_is_contiguous_and_no_part_of_the_layer(name: str) -> None:
    layer = make(name)
    before = {key: value.clone() for key, value in layer.state_dict().items()}
    _, state = layer.step(torch.randn(2, 3, 30), layer.initial_state(2))
    after = layer.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[key], value) for key, value in before.items())
    assert not list(layer.buffers())
    assert all(tensor.is_contiguous() for tensor in state)


def test_initial_state_follows_the_parameters() -> None:
    (state,) = Conv1d(3, 4, 7, stride=2).double().initial_state(5)
    assert state.shape == (5, 3, 5)
    assert state.dtype == torch.float64
    assert Conv1d(3, 4, 1).initial_state(5) == ()
    (state,) = ConvTranspose1d(3, 4, stride=2).initial_state(5)
    assert state.shape == (5, 3, 1)


def test_a_broken_stride_is_refused() -> None:
    conv = Conv1d(1, 1, 4, stride=2)
    with pytest.raises(ValueError, match="multiple of the stride 2, got 3"):
        conv.step(torch.zeros(1, 1, 3), conv.initial_state(1))


def test_chain_refuses_a_state_of_another_size() -> None:
    chain = Chain([Conv1d(1, 1, 3), torch.nn.ELU(), Conv1d(1, 1, 3)])
    with pytest.raises(ValueError, match="2 tensors is needed, got 1"):
        chain.step(torch.zeros(1, 1, 3), chain.initial_state(1)[:1])


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"kernel_size": 2, "stride": 3}, "kernel_size 2 is smaller than stride 3"),
        ({"kernel_size": 0}, "kernel_size must be at least 1, got 0"),
        ({"kernel_size": 3, "dilation": 0}, "dilation must be at least 1, got 0"),
    ],
    ids=["kernel-below-stride", "no-kernel", "no-dilation"],
)
def test_impossible_sizes_are_refused(sizes: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Conv1d(1, 1, **sizes)  # type: ignore[arg-type]


# ---------------------------------------------------------------------------------- weight norm


@every_layer
def test_folding_keeps_the_output(name: str) -> None:
    layer = make(name)
    with torch.no_grad():
        layer.get_parameter("parametrizations.weight.original0").uniform_(0.1, 3)
    x = torch.randn(2, 3, 30)
    before = layer(x)
    fold_weight_norm(layer)
    assert set(layer.state_dict()) == {"weight", "bias"}
    assert_equal(layer(x), before)
    fold_weight_norm(layer)  # nothing left to fold
    assert_equal(layer(x), before)


@pytest.mark.parametrize("gain", [1.0, 0.1, 0.0])
def test_every_filter_starts_with_the_norm_asked_for(gain: float) -> None:
    conv = Conv1d(5, 4, 3, gain=gain)
    torch.testing.assert_close(conv.weight.flatten(1).norm(dim=1), torch.full((4,), gain))
    up = ConvTranspose1d(5, 4, stride=3, gain=gain)
    power = up.weight.square().sum(dim=(2, 3)).mean(dim=1)
    torch.testing.assert_close(power.sqrt(), torch.full((4,), gain))


def test_filters_that_start_at_zero_learn() -> None:
    torch.manual_seed(0)
    conv = Conv1d(3, 4, 3, gain=0.0)
    x = torch.randn(2, 3, 20)
    assert conv(x).abs().max() == 0
    conv(x).sum().backward()
    norm = conv.get_parameter("parametrizations.weight.original0")
    assert norm.grad is not None
    assert norm.grad.abs().min() > 0


# ---------------------------------------------------------------------------------------- spans


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    layers=st.lists(
        st.tuples(
            st.sampled_from(["conv", "up"]),
            st.integers(1, 4),
            st.integers(0, 3),
            st.integers(1, 3),
            st.booleans(),
        ),
        min_size=1,
        max_size=3,
    ),
    position=st.floats(0, 1),
)
def test_input_span_is_where_the_gradient_is(
    layers: list[tuple[str, int, int, int, bool]], position: float
) -> None:
    torch.manual_seed(2)
    chain = Chain(
        Conv1d(1, 1, stride + extra, stride=stride, dilation=dilation, causal=causal)
        if kind == "conv"
        else ConvTranspose1d(1, 1, stride=stride, causal=causal)
        for kind, stride, extra, dilation, causal in layers
    ).double()
    x = torch.randn(1, 1, 240, dtype=torch.float64, requires_grad=True)
    y = chain(x)
    index = round(position * (y.shape[-1] - 1))
    (gradient,) = torch.autograd.grad(y[0, 0, index], x)
    first, last = chain.input_span(index, index)
    touched = gradient.flatten().nonzero().flatten().tolist()
    inside = [i for i in range(240) if first <= i <= last]
    if inside:
        assert min(touched) >= first
        assert max(touched) <= last
        if first >= 0 and last < 240 and all(kind == "conv" for kind, *_ in layers):
            assert (min(touched), max(touched)) == (first, last)
