"""Encoder and decoder of a voice: lengths, look-ahead, streams."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from codec.nn.convolution import Chain, Conv1d
from codec.nn.voice_halves import Sum, VoiceDecoder, VoiceEncoder

SMALL = {"channels": (16, 16), "blocks": (1, 1), "dimension": 8}
HOP = 320


def decoder(lookahead: int = 1, seed: int = 0) -> VoiceDecoder:
    torch.manual_seed(seed)
    return VoiceDecoder(sample_rate=16000, lookahead=lookahead, **SMALL).eval()


def encoder() -> VoiceEncoder:
    torch.manual_seed(0)
    return VoiceEncoder(sample_rate=16000, **SMALL).eval()


def latent(frames: int, batch: int = 1) -> torch.Tensor:
    return torch.randn(batch, 8, frames, generator=torch.Generator().manual_seed(frames))


@pytest.mark.parametrize("samples", [0, 1, HOP - 1, HOP, HOP + 1, 5 * HOP])
def test_frames_cover_the_wave(samples):
    assert encoder()(torch.zeros(2, 1, samples)).shape == (2, 8, -(-samples // HOP))


@pytest.mark.parametrize("lookahead", [0, 1, 3])
@pytest.mark.parametrize("frames", [0, 1, 6])
def test_a_wave_is_as_long_as_its_frames(frames, lookahead):
    assert decoder(lookahead)(latent(frames, 2)).shape == (2, 1, frames * HOP)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=6))
def test_the_encoders_pieces_equal_the_whole(pieces):
    half = encoder()
    wave = 0.1 * torch.randn(1, 1, HOP * sum(pieces), generator=torch.Generator().manual_seed(0))
    state, parts = half.initial_state(1), []
    with torch.no_grad():
        for piece in wave.split([HOP * piece for piece in pieces], dim=-1):
            part, state = half.step(piece, state)
            parts.append(part)
        torch.testing.assert_close(torch.cat(parts, dim=-1), half(wave), rtol=0, atol=1e-5)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=6), st.sampled_from([0, 1, 2]))
def test_the_decoders_pieces_equal_the_whole_after_the_look_ahead(pieces, lookahead):
    half, x = decoder(lookahead), latent(sum(pieces))
    state, parts = half.initial_state(1), []
    with torch.no_grad():
        held = [x[..., -1:]] * lookahead if sum(pieces) else []
        for piece in [*x.split(pieces, dim=-1), *held]:
            part, state = half.step(piece, state)
            parts.append(part)
        streamed = torch.cat(parts, dim=-1)[..., len(held) * HOP :]
        whole = half(x)
    assert (
        float((streamed - whole).abs().amax() if whole.numel() else 0)
        < 1e-3 * max(float(whole.abs().amax()) if whole.numel() else 0, 1e-6) + 1e-9
    )


@pytest.mark.parametrize("lookahead", [0, 1, 2])
def test_a_frame_of_the_wave_knows_nothing_after_the_look_ahead(lookahead):
    half, x = decoder(lookahead), latent(12)
    changed = x.clone()
    changed[..., 6 + lookahead + 1 :] += 1
    with torch.no_grad():
        before, after = half(x), half(changed)
    torch.testing.assert_close(after[..., : 7 * HOP], before[..., : 7 * HOP], rtol=0, atol=1e-6)
    assert float((after - before)[..., 7 * HOP : 8 * HOP].abs().max()) > 1e-4


@pytest.mark.parametrize(("lookahead", "shift"), [(0, -2), (1, 2), (2, 6)])
def test_controls_describe_the_hop_they_say(lookahead, shift):
    """A burst of the envelope sounds where the shift says."""
    half = decoder(lookahead)
    assert half.shift == shift
    with torch.no_grad():
        controls = half.controls(latent(10))
        controls[:, half.synthesis.controls.envelope] = -30.0
        controls[:, half.synthesis.controls.free] = 0.0
        controls[:, half.synthesis.controls.envelope, 20 + shift] = -2.0
        loudest = half.wave(controls)[0, 0].view(-1, 80).square().mean(1).argmax()
    assert abs(int(loudest) - 20) <= 1


def test_a_free_spectrum_begins_as_nothing():
    half = decoder()
    controls = half.controls(latent(5)).detach()
    assert float(controls[:, half.synthesis.controls.free].abs().max()) == 0


def test_noise_repeats_with_equal_latents_alone():
    half = decoder()
    x = latent(8)
    x[..., 5] = x[..., 2]
    noise = half.controls(x)[0, half.synthesis.controls.noise].view(-1, 9, 4)
    torch.testing.assert_close(noise[:, 5], noise[:, 2], rtol=0, atol=1e-4)
    assert abs(float((noise[:, 3] * noise[:, 2]).mean())) < 0.1
    assert float(noise.square().mean()) == pytest.approx(1.0, rel=0.05)


def test_a_sum_adds_its_branches_and_has_the_widest_span():
    one, two = Conv1d(3, 4, 5), Chain([Conv1d(3, 4, 3), Conv1d(4, 4, 2)])
    both, x = Sum(one, two), torch.randn(1, 3, 9)
    torch.testing.assert_close(both(x), one(x) + two(x))
    assert both.input_span(8, 8) == (4, 8)
    y, state = both.step(x, both.initial_state(1))
    torch.testing.assert_close(y, both(x), rtol=0, atol=1e-5)
    assert len(state) == both.state_size == 3


def test_the_phase_has_no_span():
    with pytest.raises(ValueError, match="all that came before"):
        decoder().memory.input_span(0, 1)
