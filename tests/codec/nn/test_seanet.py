"""SEANet: lengths, causality, streaming, receptive fields, activations, initialisation."""

import copy

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from codec.nn.convolution import Chain, Conv1d, ConvTranspose1d, fold_weight_norm
from codec.nn.seanet import ELU, ResidualUnit, SEANetDecoder, SEANetEncoder, Snake

torch.set_num_threads(1)

ACTIVATIONS = ["elu", "leaky_relu", "snake"]
SMALL = {"channels": 4, "dimension": 6, "strides": (2, 3), "dilations": (1, 3)}


def with_life(module: nn.Module) -> nn.Module:
    """Give biases and branches, which start at or near zero, sizes at which errors show."""
    for name, parameter in module.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(parameter, std=0.3)
        if name.endswith("original0"):
            nn.init.uniform_(parameter, 0.7, 1.5)
    return module


def encoder(**arguments: object) -> SEANetEncoder:
    torch.manual_seed(0)
    return with_life(SEANetEncoder(**{**SMALL, **arguments}))  # type: ignore[arg-type,return-value]


def decoder(**arguments: object) -> SEANetDecoder:
    torch.manual_seed(1)
    return with_life(SEANetDecoder(**{**SMALL, **arguments}))  # type: ignore[arg-type,return-value]


def stream(module: Chain, x: Tensor, lengths: list[int]) -> Tensor:
    state = module.initial_state(x.shape[0])
    pieces = []
    for piece in x.split(lengths, dim=-1):
        y, state = module.step(piece, state)
        pieces.append(y)
    return torch.cat(pieces, dim=-1)


def assert_equal(actual: Tensor, expected: Tensor) -> None:
    assert actual.shape == expected.shape
    scale = expected.abs().max().item() if expected.numel() else 1.0
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5 * max(scale, 1e-3))


# --------------------------------------------------------------------------------------- shapes


@pytest.mark.parametrize("causal", [True, False], ids=["causal", "symmetric"])
@pytest.mark.parametrize("strides", [(2, 3), (3, 5, 7), (1,), (8, 5)], ids=str)
def test_lengths_there_and_back(strides: tuple[int, ...], causal: bool) -> None:
    down = encoder(strides=strides, causal=causal, dilations=(1,))
    up = decoder(strides=strides, causal=causal, dilations=(1,))
    hop = down.hop_length
    assert hop == up.hop_length
    for samples in {0, 1, hop - 1, hop, hop + 1, 3 * hop}:
        latent = down(torch.randn(2, 1, samples))
        frames = -(-samples // hop)
        assert latent.shape == (2, 6, frames)
        assert up(latent).shape == (2, 1, frames * hop)


def test_widths_double_to_the_ceiling() -> None:
    def outputs(module: Chain) -> list[int]:
        return [m.out_channels for m in module.layers if isinstance(m, (Conv1d, ConvTranspose1d))]

    strides = (2, 2, 2)
    assert outputs(encoder(strides=strides)) == [4, 8, 16, 32, 6]
    assert outputs(decoder(strides=strides)) == [32, 16, 8, 4, 1]
    assert outputs(encoder(strides=strides, max_channels=10)) == [4, 8, 10, 10, 6]
    assert outputs(decoder(strides=strides, max_channels=10)) == [10, 10, 8, 4, 1]


def test_strides_are_in_the_encoders_order_for_both() -> None:
    down = [m.stride for m in encoder(strides=(2, 3, 5)).layers if getattr(m, "stride", 1) > 1]
    up = [m.stride for m in decoder(strides=(2, 3, 5)).layers if getattr(m, "stride", 1) > 1]
    assert down == up[::-1] == [2, 3, 5]


@pytest.mark.parametrize("build", [encoder, decoder], ids=["encoder", "decoder"])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"activation": "swish"}, "'swish': choose one of elu, leaky_relu, snake"),
        ({"strides": ()}, "strides must be one or more positive integers"),
        ({"strides": (2, 0)}, "strides must be one or more positive integers"),
        ({"max_channels": 2}, "max_channels 2 is smaller than channels 4"),
        ({"compress": 0}, "compress must be at least 1, got 0"),
        ({"channels": 0}, "channels must be at least 1, got 0"),
    ],
    ids=["activation", "no-strides", "zero-stride", "max_channels", "compress", "channels"],
)
def test_impossible_arguments_are_refused(
    build: object, arguments: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        build(**arguments)  # type: ignore[operator]


# ------------------------------------------------------------------------- causality, streaming


def test_encoder_ignores_the_future() -> None:
    down = encoder()
    wave = torch.randn(1, 1, 60)
    changed = wave.clone()
    changed[..., 36:] += 1
    before, after = down(wave), down(changed)
    torch.testing.assert_close(before[..., :6], after[..., :6], rtol=0, atol=0)
    assert (before[..., 6] - after[..., 6]).abs().max() > 1e-3


def test_decoder_ignores_the_future() -> None:
    up = decoder()
    latent = torch.randn(1, 6, 10)
    changed = latent.clone()
    changed[..., 6:] += 1
    before, after = up(latent), up(changed)
    torch.testing.assert_close(before[..., :36], after[..., :36], rtol=0, atol=0)
    assert (before[..., 36:42] - after[..., 36:42]).abs().max() > 1e-3


def test_symmetric_variant_sees_the_future_and_refuses_to_stream() -> None:
    down, up = encoder(causal=False), decoder(causal=False)
    wave = torch.randn(1, 1, 60)
    changed = wave.clone()
    changed[..., 36:] += 1
    assert (down(wave) - down(changed))[..., :6].abs().max() > 1e-3
    latent = torch.randn(1, 6, 10)
    changed = latent.clone()
    changed[..., 6:] += 1
    assert (up(latent) - up(changed))[..., :36].abs().max() > 1e-3
    for module in (down, up):
        with pytest.raises(ValueError, match="causal=False"):
            module.initial_state(1)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    chunks=st.lists(st.integers(0, 6), min_size=1, max_size=5),
    strides=st.sampled_from([(2, 3), (3, 5), (7,), (1, 4)]),
    batch=st.integers(1, 2),
)
def test_streamed_equals_whole(
    activation: str, chunks: list[int], strides: tuple[int, ...], batch: int
) -> None:
    down = encoder(strides=strides, activation=activation)
    up = decoder(strides=strides, activation=activation)
    wave = torch.randn(batch, 1, sum(chunks) * down.hop_length)
    latent = down(wave)
    assert_equal(stream(down, wave, [n * down.hop_length for n in chunks]), latent)
    assert_equal(stream(up, latent, chunks), up(latent))


def test_last_piece_padded_with_zeros_equals_a_whole_wave_of_any_length() -> None:
    down = encoder()
    wave = torch.randn(1, 1, 61)
    padded = F.pad(wave, (0, 5))
    assert_equal(stream(down, padded, [6, 30, 30]), down(wave))


def test_interleaved_streams_do_not_mix() -> None:
    up = decoder()
    latents = torch.randn(2, 1, 6, 8)
    states = [up.initial_state(1), up.initial_state(1)]
    outputs: list[list[Tensor]] = [[], []]
    for start in range(0, 8, 2):
        for i in range(2):
            y, states[i] = up.step(latents[i, ..., start : start + 2], states[i])
            outputs[i].append(y)
    for i in range(2):
        assert_equal(torch.cat(outputs[i], dim=-1), up(latents[i]))


@pytest.mark.parametrize("build", [encoder, decoder], ids=["encoder", "decoder"])
def test_state_is_a_flat_tuple_outside_the_module(build: object) -> None:
    module = build()  # type: ignore[operator]
    state = module.initial_state(3)
    assert all(isinstance(tensor, Tensor) and tensor.shape[0] == 3 for tensor in state)
    channels = 1 if isinstance(module, SEANetEncoder) else 6
    keys = set(module.state_dict())
    _, after = module.step(torch.randn(3, channels, 12), state)
    assert [tensor.shape for tensor in after] == [tensor.shape for tensor in state]
    assert all(not tensor.any() for tensor in state)
    assert set(module.state_dict()) == keys == {name for name, _ in module.named_parameters()}


def test_encoder_step_takes_whole_hops() -> None:
    down = encoder()
    with pytest.raises(ValueError, match="whole hops of 6 samples, got 8 samples"):
        down.step(torch.zeros(1, 1, 8), down.initial_state(1))


@pytest.mark.parametrize("build", [encoder, decoder], ids=["encoder", "decoder"])
def test_folding_keeps_the_output(build: object) -> None:
    module = build()  # type: ignore[operator]
    x = torch.randn(2, 1 if isinstance(module, SEANetEncoder) else 6, 12)
    before = module(x)
    fold_weight_norm(module)
    assert not any("parametrizations" in key for key in module.state_dict())
    torch.testing.assert_close(module(x), before, rtol=1e-6, atol=1e-6)
    assert_equal(stream(module, x, [6, 6]), before)


def test_a_copy_has_weights_of_its_own() -> None:
    down = encoder()
    twin = copy.deepcopy(down)
    wave = torch.randn(1, 1, 30)
    before = down(wave)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    torch.testing.assert_close(down(wave), before)


@pytest.mark.parametrize("causal", [True, False], ids=["causal", "symmetric"])
def test_every_layer_is_of_the_one_kind(causal: bool) -> None:
    for module in (encoder(causal=causal), decoder(causal=causal)):
        layers = [m for m in module.modules() if isinstance(m, (Conv1d, ConvTranspose1d))]
        assert len(layers) == 2 + 2 * (1 + 2 * 2)
        assert all(layer.causal is causal for layer in layers)


# ------------------------------------------------------------------------------ receptive field


@pytest.mark.parametrize("causal", [True, False], ids=["causal", "symmetric"])
@pytest.mark.parametrize("strides", [(2, 3), (3,), (4, 5)], ids=str)
def test_encoders_receptive_field_is_where_the_gradient_is(
    strides: tuple[int, ...], causal: bool
) -> None:
    down = encoder(strides=strides, causal=causal).double()
    hop, frames = down.hop_length, 2 * down.receptive_field // down.hop_length + 4
    wave = torch.randn(1, 1, frames * hop, dtype=torch.float64, requires_grad=True)
    frame = frames // 2
    (gradient,) = torch.autograd.grad(down(wave)[..., frame].square().sum(), wave)
    touched = gradient.flatten().nonzero().flatten()
    first, last = down.input_span(frame, frame)
    assert first > 0 and last < frames * hop - 1
    assert (int(touched.min()), int(touched.max())) == (first, last)
    assert last - first + 1 == down.receptive_field
    assert causal == (last == (frame + 1) * hop - 1)


@pytest.mark.parametrize("causal", [True, False], ids=["causal", "symmetric"])
@pytest.mark.parametrize("strides", [(2, 3), (3,), (4, 5)], ids=str)
def test_decoders_receptive_field_is_where_the_gradient_is(
    strides: tuple[int, ...], causal: bool
) -> None:
    up = decoder(strides=strides, causal=causal).double()
    hop, frames = up.hop_length, 2 * up.receptive_field + 5
    latent = torch.randn(1, 6, frames, dtype=torch.float64, requires_grad=True)
    frame = frames // 2
    samples = slice(frame * hop, (frame + 1) * hop)
    (gradient,) = torch.autograd.grad(up(latent)[..., samples].square().sum(), latent)
    touched = gradient.abs().sum(dim=(0, 1)).nonzero().flatten()
    first, last = up.input_span(samples.start, samples.stop - 1)
    assert first > 0 and last < frames - 1
    assert (int(touched.min()), int(touched.max())) == (first, last)
    assert last - first + 1 == up.receptive_field
    assert causal == (last == frame)


def test_a_window_of_the_receptive_field_is_enough() -> None:
    """What makes cutting a symmetric model's input into overlapping chunks exact."""
    down = encoder(causal=False)
    wave = torch.randn(1, 1, 60 * down.hop_length)
    first, last = down.input_span(30, 30)
    start = first - first % down.hop_length
    window = down(wave[..., start : last + 1])
    frame = 30 - start // down.hop_length
    assert_equal(window[..., frame], down(wave)[..., 30])


# ---------------------------------------------------------------------------------- activations


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation_trains(activation: str) -> None:
    down = SEANetEncoder(**SMALL, activation=activation)  # type: ignore[arg-type]
    up = SEANetDecoder(**SMALL, activation=activation)  # type: ignore[arg-type]
    up(down(torch.randn(2, 1, 36))).square().mean().backward()
    for module in (down, up):
        for name, parameter in module.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
            assert parameter.grad.abs().max() > 0, name


def test_snake_is_its_closed_form() -> None:
    snake = Snake(3)
    with torch.no_grad():
        snake.alpha[:, 0] = torch.tensor([0.5, 1.0, -3.0])
    x = torch.randn(2, 3, 50)
    alpha = snake.alpha
    torch.testing.assert_close(snake(x), x + torch.sin(alpha * x) ** 2 / alpha)


def test_snake_is_finite_where_alpha_passes_through_zero() -> None:
    alphas = torch.tensor([0.0, 1e-30, -1e-9, 1e-6, -1e-4, 1e-3])
    snake = Snake(len(alphas))
    with torch.no_grad():
        snake.alpha[:, 0] = alphas
    x = torch.linspace(-10, 10, 41).expand(1, len(alphas), 41).clone().requires_grad_()
    y = snake(x)
    torch.testing.assert_close(y, x + alphas[:, None] * x**2, rtol=1e-3, atol=1e-3)
    y.sum().backward()
    assert x.grad is not None and snake.alpha.grad is not None
    torch.testing.assert_close(x.grad, 1 + 2 * alphas[:, None] * x.detach(), rtol=1e-2, atol=1e-3)
    assert snake.alpha.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_elu_and_its_gradient_are_torchs(dtype: torch.dtype) -> None:
    x = torch.cat([torch.linspace(-20, 20, 401), torch.tensor([0.0, -1e-5, 1e-5, -200.0, 200.0])])
    mine = x.to(dtype).requires_grad_()
    theirs = x.to(dtype).requires_grad_()
    weights = torch.linspace(-1, 1, len(x), dtype=dtype)
    (ELU()(mine) * weights).sum().backward()
    (F.elu(theirs) * weights).sum().backward()
    rtol, atol = (1e-5, 1e-6) if dtype == torch.float32 else (1e-2, 1e-6)
    torch.testing.assert_close(ELU()(mine), F.elu(theirs), rtol=rtol, atol=atol)
    with torch.no_grad():
        torch.testing.assert_close(ELU()(mine), F.elu(theirs), rtol=rtol, atol=atol)
    # The gradient is taken from the output, 1 + y: in bf16 that has steps of 0.004 near y = -1.
    atol = 1e-6 if dtype == torch.float32 else 4e-3
    torch.testing.assert_close(mine.grad, theirs.grad, rtol=rtol, atol=atol)
    assert ELU()(torch.tensor([float("nan")])).isnan().all()


# ------------------------------------------------------------------------------- initialisation


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_new_network_keeps_signal_and_gradient_at_their_size(activation: str) -> None:
    torch.manual_seed(0)
    arguments = {"channels": 16, "dimension": 64, "strides": (2, 4, 5), "activation": activation}
    down = SEANetEncoder(**arguments)  # type: ignore[arg-type]
    up = SEANetDecoder(**arguments)  # type: ignore[arg-type]
    latent = down(torch.randn(4, 1, 1600))
    assert 0.3 < latent.std() < 3
    latent = torch.randn(4, 64, 40, requires_grad=True)
    wave = up(latent)
    assert 0.03 < wave.std() < 0.3
    (gradient,) = torch.autograd.grad(wave, latent, torch.randn_like(wave))
    # Power of the gradient in, over that of the gradient out and of the wave's gain of 0.1.
    assert 0.03 < gradient.square().sum() / (0.01 * wave.numel()) < 30


def test_residual_unit_starts_close_to_its_skip() -> None:
    torch.manual_seed(0)
    unit = ResidualUnit(16, dilation=3)
    x = torch.randn(2, 16, 100)
    branch = unit(x) - x
    assert 0 < branch.std() < 0.3
