import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from codec.errors import ForeignCodecError
from codec.foreign.check import check_layers, receptive_field_by_gradient
from codec.foreign.describe import describe, of_attribute, pointwise
from codec.foreign.layers import Chain, Convolution, Sum, Transposed


class Own(nn.Module):
    def forward(self, x):
        return x.sin()


class PaddedByItself(nn.Conv1d):
    """What many codecs call CausalConv1d: its settings do not say what it does."""

    def forward(self, x):
        return super().forward(nn.functional.pad(x, (self.kernel_size[0] - 1, 0)))


class Wrapped(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x)


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        (nn.Conv1d(2, 2, 3, 2, 1, 2), Convolution(3, 2, 2, left=1, right=1)),
        (
            nn.Conv1d(2, 2, 4, padding="same", padding_mode="reflect"),
            Convolution(4, left=1, right=2, edge="reflect"),
        ),
        (nn.Conv1d(2, 2, 4, padding="valid"), Convolution(4)),
        (nn.ConvTranspose1d(2, 2, 7, 3, 2, 1), Transposed(7, 3, left=2, right=1)),
        (nn.ReflectionPad1d((3, 0)), Convolution(left=3, edge="reflect")),
        (nn.ReplicationPad1d((0, 3)), Convolution(right=3, edge="replicate")),
        (nn.ConstantPad1d((-1, 2), 0.0), Convolution(left=-1, right=2)),
        (nn.Upsample(scale_factor=3), Transposed(3, 3)),
        (nn.BatchNorm1d(2).eval(), Chain()),
        (parametrizations.weight_norm(nn.Conv1d(2, 2, 3)), Convolution(3)),
        (nn.Sequential(nn.GELU(), nn.Conv1d(2, 2, 3)), Chain((Chain(), Convolution(3)))),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_pytorchs_own_layers_are_known(module, expected):
    layers = describe(module)
    assert layers == expected
    check_layers(module, layers, torch.randn(1, 2, 24))


def test_a_module_that_is_twice_in_a_row_counts_twice():
    conv = nn.Conv1d(2, 2, 3, padding=1)
    layers = describe(nn.Sequential(conv, conv))
    assert layers.input_span(10, 10) == (8, 12)


@pytest.mark.parametrize(
    ("module", "told"),
    [
        (Own(), r"1 \(Own\) has no description"),
        (PaddedByItself(2, 2, 3), r"1 \(PaddedByItself\) has no description"),
        (nn.LSTM(2, 2), r"LSTM\) remembers"),
        (nn.GroupNorm(1, 2), r"GroupNorm\) normalises over the whole signal"),
        (nn.InstanceNorm1d(2), "normalises over the whole signal"),
        (nn.BatchNorm1d(2).train(), "eval"),
        (nn.Conv1d(2, 2, 3, padding=1, padding_mode="circular"), "has no description"),
        (nn.Upsample(scale_factor=1.5), "has no description"),
        (nn.Upsample(scale_factor=2, mode="linear"), "has no description"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_what_is_not_known_is_named_and_not_guessed(module, told):
    with pytest.raises(ForeignCodecError, match=told):
        describe(nn.Sequential(nn.ELU(), module))


def test_handlers_say_what_other_types_do():
    handlers = {
        Own: pointwise,
        Wrapped: of_attribute("inner"),
        PaddedByItself: lambda m, inner: Convolution(m.kernel_size[0], left=m.kernel_size[0] - 1),
    }
    network = nn.Sequential(Own(), Wrapped(nn.Sequential(PaddedByItself(2, 2, 4), Own())))
    layers = describe(network, handlers)
    assert layers.input_span(9, 9) == (6, 9)
    check_layers(network, layers, torch.randn(1, 2, 30))


def test_a_wrong_handler_is_found_by_gradient_and_by_length():
    network = nn.Sequential(PaddedByItself(2, 2, 4))
    layers = describe(network, {PaddedByItself: pointwise})
    with pytest.raises(ForeignCodecError, match=r"depend on the inputs 1[0-9] to .* only"):
        check_layers(network, layers, torch.randn(1, 2, 30))
    layers = describe(network, {PaddedByItself: lambda m, inner: Convolution(4)})
    with pytest.raises(ForeignCodecError, match=r"30 inputs give 30 outputs, .* 27"):
        check_layers(network, layers, torch.randn(1, 2, 30))


def test_a_network_that_sees_everything_is_found_out():
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = nn.LSTM(2, 2, batch_first=True)

        def forward(self, x):
            return self.lstm(x.transpose(1, 2))[0].transpose(1, 2)

    layers = describe(Recurrent(), {Recurrent: pointwise})
    with pytest.raises(ForeignCodecError, match="depend on the inputs 0 to"):
        check_layers(Recurrent(), layers, torch.randn(1, 2, 20))


def test_the_gradient_finds_what_is_read():
    network = nn.Conv1d(2, 1, 3, dilation=4)
    assert receptive_field_by_gradient(network, torch.randn(1, 2, 40), 5, 6) == (5, 14)
    constant = nn.Conv1d(2, 1, 1)
    nn.init.zeros_(constant.weight)
    assert receptive_field_by_gradient(constant, torch.randn(1, 2, 40), 5, 6) is None


def test_branches_of_different_lengths_cannot_be_added():
    with pytest.raises(ValueError, match="cannot be added"):
        Sum((Chain(), Convolution(3)))
    with pytest.raises(ValueError, match="cannot be added"):
        Sum((Chain(), Transposed(2, 2)))
