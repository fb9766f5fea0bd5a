"""What the encoder of a voice hears."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from codec.nn.features import ENVELOPE_MIDDLE, ENVELOPE_SPREAD, FEATURES, VoiceFeatures
from codec.nn.parameters import ENVELOPE, envelope_frequencies, f0_classes

RATE, HOP = 16000, 80


def tone(frequency: float, seconds: float = 0.5, rate: int = RATE) -> torch.Tensor:
    time = torch.arange(round(seconds * rate)) / rate
    return (0.3 * torch.sin(2 * torch.pi * frequency * time))[None, None]


def pulses(f0: float, seconds: float = 0.5) -> torch.Tensor:
    time = torch.arange(round(seconds * RATE)) / RATE
    harmonics = torch.arange(1, int(7900 / f0) + 1)[:, None]
    return (0.02 * torch.cos(2 * torch.pi * f0 * harmonics * time).sum(0))[None, None]


@pytest.mark.parametrize("frequency", [150.0, 700.0, 2500.0, 6000.0])
def test_a_tone_is_loudest_at_its_own_point(frequency):
    features = VoiceFeatures(RATE, HOP)(tone(frequency))[0, :ENVELOPE, 20:]
    points = envelope_frequencies(RATE)
    loudest = points[int(features.mean(1).argmax())]
    spacing = np.diff(points)[np.searchsorted(points, frequency) - 1]
    assert abs(loudest - frequency) <= max(spacing, RATE / 512)


@pytest.mark.parametrize("f0", [75.0, 120.0, 210.0, 390.0])
def test_pulses_repeat_at_their_own_period(f0):
    features = VoiceFeatures(RATE, HOP)(pulses(f0))[0, ENVELOPE:, 20:].mean(1)
    classes = f0_classes()
    best = int(features.argmax())
    # A period twice as long repeats as well, so that an octave below may be as high.
    near = np.abs(1200 * np.log2(classes / f0)) < 60
    assert features[torch.from_numpy(near)].max() > 0.97 * features[best]
    assert float(features.max()) <= 1.0


def test_a_gain_moves_log_power_and_no_repetition():
    wave = pulses(130.0)
    features = VoiceFeatures(RATE, HOP)
    soft, loud = features(wave)[..., 20:], features(4 * wave)[..., 20:]
    moved = (loud - soft)[:, 4:ENVELOPE] * ENVELOPE_SPREAD  # below the pitch there is nothing
    torch.testing.assert_close(moved, torch.full_like(moved, 2 * np.log(4)), rtol=0.01, atol=0.02)
    torch.testing.assert_close(loud[:, ENVELOPE:], soft[:, ENVELOPE:], rtol=0, atol=1e-3)


def test_white_noise_has_its_power_in_every_band():
    noise = 0.1 * torch.randn(1, 1, 4 * RATE, generator=torch.Generator().manual_seed(0))
    features = VoiceFeatures(RATE, HOP)(noise)[0, :ENVELOPE, 20:]
    power = (features * ENVELOPE_SPREAD + ENVELOPE_MIDDLE).exp().mean(1)
    torch.testing.assert_close(power[1:-1], torch.full((62,), 0.01), rtol=0.2, atol=0)


def test_silence_is_finite():
    features = VoiceFeatures(RATE, HOP)(torch.zeros(1, 1, 800))
    assert features.shape == (1, FEATURES, 10)
    assert torch.isfinite(features).all()


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 7), min_size=1, max_size=8), st.sampled_from([16000, 24000]))
def test_pieces_equal_the_whole(pieces, rate):
    hop = rate // 200
    layer = VoiceFeatures(rate, hop)
    wave = 0.1 * torch.randn(2, 1, sum(pieces) * hop, generator=torch.Generator().manual_seed(1))
    state, parts = layer.initial_state(2), []
    for piece in wave.split([hop * piece for piece in pieces], dim=-1):
        part, state = layer.step(piece, state)
        parts.append(part)
    torch.testing.assert_close(torch.cat(parts, dim=-1), layer(wave), rtol=0, atol=1e-5)


def test_a_frame_reads_what_its_span_says_and_no_more():
    layer = VoiceFeatures(RATE, HOP)
    wave = 0.1 * torch.randn(1, 1, 40 * HOP, generator=torch.Generator().manual_seed(2))
    first, last = layer.input_span(20, 20)
    assert last == 21 * HOP - 1
    changed = wave.clone()
    changed[..., :first] += 1
    changed[..., last + 1 :] += 1
    assert torch.equal(layer(changed)[..., 20], layer(wave)[..., 20])


def test_a_step_of_part_of_a_hop_is_refused():
    layer = VoiceFeatures(RATE, HOP)
    with pytest.raises(ValueError, match="whole hops of 80"):
        layer.step(torch.zeros(1, 1, 81), layer.initial_state(1))
