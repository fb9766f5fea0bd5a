"""Frame-rate encoder and decoder: lengths, causality, streaming, spans, initialisation."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from codec.nn.convnext import ConvNeXtBlock, ConvNeXtDecoder, ConvNeXtEncoder
from codec.nn.convolution import StreamingLayer, fold_weight_norm

torch.set_num_threads(1)

SMALL = {"strides": (4, 3), "channels": (6, 8), "blocks": (1, 2), "dimension": 5}


def with_life(module: nn.Module) -> nn.Module:
    """Give branches and biases, which start small, sizes at which errors show."""
    for name, parameter in module.named_parameters():
        if name.endswith(("bias", "scale")):
            nn.init.normal_(parameter, std=0.5)
    return module


def encoder(**arguments: object) -> ConvNeXtEncoder:
    torch.manual_seed(0)
    return with_life(ConvNeXtEncoder(**{**SMALL, "n_fft": 12, **arguments}))  # type: ignore


def decoder(**arguments: object) -> ConvNeXtDecoder:
    torch.manual_seed(1)
    return with_life(ConvNeXtDecoder(**{**SMALL, **arguments})).eval()  # type: ignore


def stream(module: StreamingLayer, x: Tensor, lengths: list[int]) -> Tensor:
    state = module.initial_state(x.shape[0])
    pieces = []
    for piece in x.split(lengths, dim=-1):
        y, state = module.step(piece, state)
        pieces.append(y)
    return torch.cat(pieces, dim=-1)


@pytest.mark.parametrize("causal", [True, False], ids=["causal", "symmetric"])
@pytest.mark.parametrize(
    "shape",
    [
        {},
        {"strides": (12,), "channels": (6,), "blocks": (2,), "n_fft": 16},
        {"strides": (5, 3), "channels": (4, 6), "blocks": (0, 1), "n_fft": 20},
        {"strides": (2, 3, 2), "channels": (4, 4, 6), "blocks": (1, 0, 1), "n_fft": 4},
    ],
    ids=["two-rates", "one-rate", "odd", "three-rates"],
)
def test_lengths_there_and_back(shape: dict[str, object], causal: bool) -> None:
    down = encoder(**shape, causal=causal)
    up = decoder(**{k: v for k, v in shape.items() if k != "n_fft"}, causal=causal)
    hop = down.hop_length
    assert hop == up.hop_length
    for samples in (0, 1, hop - 1, hop, hop + 1, 5 * hop):
        latent = down(torch.randn(2, 1, samples))
        frames = -(-samples // hop)
        assert latent.shape == (2, 5, frames)
        assert up(latent).shape == (2, 1, frames * hop)


def test_the_future_changes_nothing() -> None:
    down, up = encoder(), decoder()
    wave = torch.randn(1, 1, 120)
    changed = wave.clone()
    changed[..., 60:] += 1
    before, after = down(wave), down(changed)
    torch.testing.assert_close(before[..., :5], after[..., :5], rtol=0, atol=0)
    assert (before[..., 5] - after[..., 5]).abs().max() > 1e-3
    latent = torch.randn(1, 5, 10)
    changed = latent.clone()
    changed[..., 6:] += 1
    before, after = up(latent), up(changed)
    torch.testing.assert_close(before[..., : 6 * 12], after[..., : 6 * 12], rtol=0, atol=1e-6)
    assert (before[..., 6 * 12 : 7 * 12] - after[..., 6 * 12 : 7 * 12]).abs().max() > 1e-4


@settings(deadline=None, max_examples=20)
@given(cuts=st.lists(st.integers(0, 4), min_size=1, max_size=8), noise=st.sampled_from([0, 3]))
def test_pieces_equal_the_whole(cuts: list[int], noise: int) -> None:
    for folded in (False, True):
        down, up = encoder().eval(), decoder(noise_channels=noise)
        if folded:
            fold_weight_norm(down)
            fold_weight_norm(up)
        with torch.inference_mode():
            wave = torch.randn(2, 1, sum(cuts) * 12)
            latent = torch.randn(2, 5, sum(cuts))
            pieces = stream(down, wave, [12 * n for n in cuts])
            torch.testing.assert_close(pieces, down(wave), rtol=1e-5, atol=1e-5)
            near = 1e-4 if noise else 1e-5  # noise multiplies a latent's rounding
            torch.testing.assert_close(stream(up, latent, cuts), up(latent), rtol=near, atol=near)


@pytest.mark.parametrize("causal", [True, False], ids=["causal", "symmetric"])
@pytest.mark.parametrize("build", [encoder, decoder], ids=["encoder", "decoder"])
def test_span_holds_all_that_an_output_depends_on(build: object, causal: bool) -> None:
    module = build(causal=causal)  # type: ignore[operator]
    shape = (1, 1, 120 * 12) if build is encoder else (1, 5, 120)
    x = torch.randn(shape, requires_grad=True)
    y = module(x)
    middle = y.shape[-1] // 2
    y[..., middle : middle + 3].square().sum().backward()
    assert x.grad is not None
    touched = x.grad.abs().sum(dim=(0, 1)).nonzero().flatten()
    first, last = module.input_span(middle, middle + 2)
    assert first <= int(touched[0]) and int(touched[-1]) <= last
    assert int(touched[0]) - first <= 1 and last - int(touched[-1]) <= 1
    assert module.receptive_field >= last - first - 2 * 12


def test_a_new_decoder_is_quieter_than_speech_and_an_encoder_of_unit_power() -> None:
    torch.manual_seed(0)
    up = ConvNeXtDecoder()
    rms = up(torch.randn(2, 128, 50)).square().mean().sqrt()
    assert 0.005 < rms < 0.05
    down = ConvNeXtEncoder()
    latent = down(0.08 * torch.randn(2, 1, 16000))
    assert 0.5 < latent.square().mean().sqrt() < 2


def test_a_steady_latent_repeats_and_noise_does_not() -> None:
    """The buzz: one latent over and over says the same over and over, unless there is noise."""
    latent = torch.randn(1, 5, 1) + 0.3 * torch.randn(1, 5, 200) / 5**0.5
    similar = []
    for noise in (0, 4):
        frames = decoder(noise_channels=noise)(latent)[0, 0].unflatten(0, (200, 12))[20:]
        frames = frames - frames.mean()
        similar.append((frames[1:] * frames[:-1]).mean() / frames.square().mean())
    assert similar[0] > 0.8
    assert similar[1] < similar[0] - 0.1


def test_nothing_but_weights_is_saved() -> None:
    assert not [name for name in encoder().state_dict() if "basis" in name]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"channels": (4,)}, "one entry of channels and of blocks belongs to each of the strides"),
        ({"blocks": (1, 2, 3)}, "one entry of channels and of blocks"),
        ({"strides": (4, 0)}, "strides and channels must be positive"),
        ({"blocks": (1, -1)}, "blocks at least 0"),
        ({"kernel_size": 1}, "kernel_size must be at least 2"),
    ],
    ids=["channels", "blocks", "stride", "negative", "kernel"],
)
def test_impossible_arguments_are_refused(arguments: dict[str, object], message: str) -> None:
    for build in (encoder, decoder):
        with pytest.raises(ValueError, match=message):
            build(**arguments)


def test_a_block_that_reads_the_future_does_not_stream() -> None:
    block = ConvNeXtBlock(4, causal=False)
    with pytest.raises(ValueError, match="reads the future"):
        block.initial_state(1)
