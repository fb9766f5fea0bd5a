from collections.abc import Sequence
from itertools import pairwise

import pytest
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from codec.errors import ForeignCodecError
from codec.foreign.check import check_layers
from codec.foreign.chunked import Chunked
from codec.foreign.describe import describe, pointwise
from codec.foreign.layers import Chain, Convolution, Layers, Sum, Transposed


class Residual(nn.Module):
    def __init__(self, branch: nn.Module) -> None:
        super().__init__()
        self.branch = branch

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x)


HANDLERS = {Residual: lambda module, inner: Sum((Chain(), inner(module.branch)))}


@st.composite
def convolutions(draw: st.DrawFn) -> nn.Module:
    """Odd and even kernels and strides, all ways to pad; sometimes more padding than is usual."""
    kernel, dilation = draw(st.integers(1, 5)), draw(st.integers(1, 3))
    stride = draw(st.sampled_from([1, 1, 1, 2, 3]))
    mode = draw(st.sampled_from(["zeros", "reflect", "replicate"]))
    padding = draw(st.integers(0, (kernel - 1) * dilation))
    return nn.Conv1d(2, 2, kernel, stride, padding, dilation, padding_mode=mode)


@st.composite
def upsampling(draw: st.DrawFn) -> nn.Module:
    """Kernels shorter than a stride too, which leave holes, and cuts that go over the overlap."""
    kernel, stride = draw(st.integers(1, 8)), draw(st.integers(1, 5))
    dilation = draw(st.sampled_from([1, 1, 2]))
    padding = draw(st.integers(0, (kernel - 1) * dilation))
    more = draw(st.integers(0, max(stride, dilation) - 1))
    return nn.ConvTranspose1d(2, 2, kernel, stride, padding, more, dilation=dilation)


@st.composite
def residuals(draw: st.DrawFn) -> nn.Module:
    kernel, dilation = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    mode = draw(st.sampled_from(["zeros", "reflect"]))
    conv = nn.Conv1d(2, 2, kernel, padding="same", dilation=dilation, padding_mode=mode)
    return Residual(nn.Sequential(nn.ELU(), conv))


@st.composite
def causal(draw: st.DrawFn) -> nn.Module:
    """Reflected or zero padding on one side, and a cut on the other, by layers of their own."""
    kernel = draw(st.integers(1, 6))
    side = draw(st.sampled_from([(kernel - 1, 0), (0, kernel - 1)]))
    pad = draw(st.sampled_from([nn.ReflectionPad1d(side), nn.ReplicationPad1d(side)]))
    sign, more = draw(st.sampled_from([-1, 1])), st.integers(0, 3)
    cut = nn.ConstantPad1d((sign * draw(more), sign * draw(more)), 0.5)
    return nn.Sequential(pad, nn.Conv1d(2, 2, kernel), nn.Tanh(), cut)


networks = st.lists(
    st.one_of(convolutions(), upsampling(), residuals(), causal()), min_size=1, max_size=5
).map(lambda layers: nn.Sequential(*layers).double().eval())


def randomised(network: nn.Module) -> nn.Module:
    """Weights of one size everywhere, so that nothing an output reads hides in rounding."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in network.parameters():
            noise = torch.rand(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.copy_((0.3 + noise) * torch.where(noise > 0.65, -1.0, 1.0))
    return network


def signal(length: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(1, 2, length, generator=generator, dtype=torch.float64)


def whole(network: nn.Module, x: Tensor) -> Tensor | None:
    """None where the network itself cannot take so few inputs."""
    try:
        with torch.inference_mode():
            return network(x)
    except RuntimeError:
        return None


def streamed(stage: Chunked, x: Tensor, cuts: Sequence[int] = ()) -> Tensor:
    edges = [0, *sorted(cuts), x.shape[-1]]
    pieces = [stage.push(x[..., start:stop]) for start, stop in pairwise(edges)]
    return torch.cat([*pieces, stage.finish()], dim=-1)


def chunked(network: nn.Module, window: int) -> Chunked:
    layers = describe(network, HANDLERS)
    return Chunked(network, layers, window=window, out_channels=2)


@settings(max_examples=80, deadline=None)
@given(
    network=networks,
    window=st.sampled_from([1, 2, 5]),
    length=st.integers(1, 8) | st.integers(9, 60),
    data=st.data(),
)
def test_streamed_equals_whole(network, window, length, data):
    x = signal(length)
    expected = whole(randomised(network), x)
    assume(expected is not None)
    stage = chunked(network, window)
    assert stage.length(length) == expected.shape[-1]
    cuts = data.draw(st.lists(st.integers(0, length), max_size=4) | st.just(list(range(length))))
    y = streamed(stage, x, cuts)
    assert y.shape == expected.shape
    size = 1 + float(expected.abs().sum())
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-12 * size)
    assert torch.equal(y, streamed(chunked(network, window), x))


@settings(max_examples=40, deadline=None)
@given(network=networks)
def test_the_gradient_lies_within_what_the_layers_say(network):
    network = randomised(network)
    layers = describe(network, HANDLERS)
    x = signal(80)
    assume(whole(network, x[..., : 80 - layers.unit]) is not None)
    assume(layers.length(80 - layers.unit) > 0)
    check_layers(network, layers, x)


@settings(max_examples=40, deadline=None)
@given(network=networks, window=st.sampled_from([1, 3]))
def test_outputs_come_after_the_delay_and_not_before(network, window):
    stage = chunked(randomised(network), window)
    unit, hop = stage.unit * window, stage.hop * window
    inputs = stage.start + 8 * unit
    x = signal(inputs)
    assume(inputs < 300 and whole(network, x) is not None)
    out = 0
    for n in range(1, inputs + 1):
        out += stage.push(x[..., n - 1 : n]).shape[-1]
        assert stage.needed(out) <= n < stage.needed(out + 1)
    assert stage.needed(hop) == stage.start
    ready = (inputs - stage.delay) // unit + 1
    assert out == max(0, ready) * hop


@pytest.mark.parametrize("stride", [2, 3, 4, 5, 7])
@pytest.mark.parametrize("window", [1, 4])
def test_a_drifting_length_is_that_of_the_whole(stride, window):
    """DAC's padding: an odd stride gives a sample less than frames * stride."""
    up = nn.ConvTranspose1d(2, 2, 2 * stride, stride, padding=-(-stride // 2))
    network = nn.Sequential(up, nn.Conv1d(2, 2, 7, padding=3), up).double()
    for frames in (1, 2, 3, 11):
        y = streamed(chunked(network, window), signal(frames), [1])
        assert y.shape[-1] == frames * stride**2 - (stride % 2) * (stride + 1)
        torch.testing.assert_close(y, whole(network, signal(frames)))


def test_no_window_is_run_on_more_than_it_needs():
    """So memory does not grow; and a frame less of context on either side would be missing."""
    network = nn.Sequential(
        nn.Conv1d(2, 2, 3, padding=1), nn.ConvTranspose1d(2, 2, 4, 2, padding=1)
    ).double()
    seen: list[int] = []
    layers = describe(network)

    def run(x: Tensor) -> Tensor:
        seen.append(x.shape[-1])
        return network(x)

    stage = Chunked(run, layers, window=3, out_channels=2)
    streamed(stage, signal(1000), range(0, 1000, 7))
    assert (stage.before, stage.after, stage.delay) == (2, 2, 5)
    assert max(seen) == 7

    class Short:
        """The same, but for one input that it does not tell of."""

        unit, hop = layers.unit, layers.hop
        length = staticmethod(layers.length)

        def __init__(self, side: int) -> None:
            self.side = side

        def input_span(self, first: int, last: int, n: int | None = None) -> tuple[int, int]:
            low, high = layers.input_span(first, last, n)
            return low + (self.side == 0), high - (self.side == 1)

    for side in (0, 1):
        with pytest.raises(ForeignCodecError, match="depend on the inputs"):
            check_layers(network, Short(side), signal(40))


def test_an_empty_stream_has_no_outputs():
    stage = chunked(nn.Sequential(nn.Conv1d(2, 2, 3, padding=1)).double(), 2)
    assert stage.push(signal(0)).shape == (1, 2, 0)
    assert stage.finish().shape == (1, 2, 0)


def test_a_finished_stream_takes_nothing_more():
    stage = chunked(nn.Sequential(nn.Conv1d(2, 2, 3, padding=1)).double(), 2)
    streamed(stage, signal(5))
    for call in (lambda: stage.push(signal(1)), stage.finish):
        with pytest.raises(ValueError, match="finished"):
            call()
    with pytest.raises(ValueError, match="window = 0"):
        chunked(nn.Sequential(), 0)


def test_a_network_that_gives_other_lengths_than_described_is_refused():
    stage = Chunked(nn.Conv1d(2, 2, 2).double(), Chain(), window=2, out_channels=2)
    with pytest.raises(ForeignCodecError, match="2 inputs"):
        stage.push(signal(9))


def test_batches_and_gradients_are_left_to_their_owner():
    """Items of a batch are streams side by side; what comes out is an ordinary tensor."""
    network = nn.Sequential(nn.Conv1d(2, 2, 3, padding=1)).double()
    x = torch.cat([signal(20), -signal(20)])
    y = streamed(chunked(network, 4), x, [3])
    torch.testing.assert_close(y, whole(network, x))
    assert not y.is_inference()


@example(Convolution(3, left=1, right=1), 5)
@example(Transposed(6, 3, left=2, right=2), 5)
@given(
    layers=st.sampled_from(
        [Convolution(5, 2, 2, left=3), Transposed(3, 3, right=1), Chain((Transposed(4, 2),) * 2)]
    ),
    n=st.integers(0, 30),
)
def test_no_inputs_give_no_outputs_and_more_give_no_fewer(layers: Layers, n: int):
    assert layers.length(0) == 0
    assert layers.length(n + 1) >= layers.length(n)
    assert pointwise(nn.Identity(), describe).length(n) == n
