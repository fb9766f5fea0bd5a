"""The source and the filter: what controls ask for is what sounds."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from codec.nn.parameters import ENVELOPE, f0_classes
from codec.nn.voice import REACH, Controls, VoiceSynthesis

RATE, HOP = 16000, 80
LEVEL = math.log(0.01)  # power of a wave of rms 0.1


def controls(
    synthesis: VoiceSynthesis,
    f0: torch.Tensor | float,
    *,
    frames: int = 200,
    voiced: bool = True,
    aperiodicity: float = -60.0,
    seed: int = 0,
) -> torch.Tensor:
    """A flat envelope of rms 0.1 with a pitch, (1, rows, frames)."""
    rows = synthesis.controls
    x = torch.zeros(1, rows.rows, frames)
    x[:, rows.envelope] = LEVEL
    x[:, rows.aperiodicity] = aperiodicity / 10
    x[:, rows.voicing] = 30.0 if voiced else -30.0
    logs = torch.from_numpy(f0_classes()).log().float()
    wanted = torch.as_tensor(f0, dtype=torch.float32).log().expand(frames)
    x[:, rows.f0] = -((logs[:, None] - wanted) / (logs[1] - logs[0])).square() / 2
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(rows.noise.stop - rows.noise.start, frames, generator=generator)
    x[:, rows.noise] = noise
    return x


def power_spectrum(wave: torch.Tensor) -> torch.Tensor:
    """Mean power a bin of 1 Hz over a second from the middle on."""
    piece = wave[0, 0, -RATE:] * torch.hann_window(RATE)
    return torch.fft.rfft(piece).abs().square() / torch.hann_window(RATE).square().sum()


@pytest.mark.parametrize("f0", [80.0, 150.0, 333.0])
def test_a_voice_has_harmonics_of_its_pitch_up_to_the_top_and_nothing_between(f0):
    synthesis = VoiceSynthesis(RATE, HOP)
    wave = synthesis(controls(synthesis, f0, frames=400))
    spectrum = power_spectrum(wave)
    # Halfway between the classes F0 is told to a thousandth: find it by its first harmonic.
    told = int(spectrum[: int(1.5 * f0)].argmax())
    assert abs(told - f0) <= max(0.01 * f0, 1)
    high = spectrum[5000:7800]
    assert high.max() > 200 * high.median()
    assert float(wave[..., RATE // 2 :].square().mean()) == pytest.approx(0.01, rel=0.15)


def test_noise_has_the_envelopes_power_everywhere():
    synthesis = VoiceSynthesis(RATE, HOP)
    x = controls(synthesis, 100.0, frames=800, voiced=False)
    wave = synthesis(x)
    assert float(wave[..., 800:].square().mean()) == pytest.approx(0.01, rel=0.1)
    bands = power_spectrum(wave)[500:7500].view(14, 500).mean(1)
    assert float(bands.max() / bands.min()) < 1.6


def test_an_envelope_shapes_voice_and_noise():
    synthesis = VoiceSynthesis(RATE, HOP)
    for voiced in (True, False):
        x = controls(synthesis, 120.0, frames=400, voiced=voiced)
        x[:, 40:ENVELOPE] -= 6.0  # from about 2.9 kHz on
        spectrum = power_spectrum(synthesis(x))
        fall = spectrum[500:2000].mean().log() - spectrum[4500:7500].mean().log()
        assert float(fall) == pytest.approx(6.0, abs=0.4)


def test_aperiodicity_is_noise_between_the_harmonics_at_the_top():
    synthesis = VoiceSynthesis(RATE, HOP)
    clear = power_spectrum(synthesis(controls(synthesis, 200.0, frames=400)))
    breathy = power_spectrum(synthesis(controls(synthesis, 200.0, frames=400, aperiodicity=0.0)))
    between = [i for i in range(5000, 7500) if 40 < i % 200 < 160]
    assert breathy[between].mean() > 3 * clear[between].mean()
    assert float(breathy.sum()) == pytest.approx(float(clear.sum()), rel=0.15)


def test_the_phase_goes_on_from_window_to_window():
    """A second of one pitch is one tone: its first harmonic holds a single bin."""
    synthesis = VoiceSynthesis(RATE, HOP)
    x = controls(synthesis, 200.0, frames=400)
    x[:, 8:ENVELOPE] = -40.0  # all but the lowest 230 Hz
    spectrum = power_spectrum(synthesis(x))
    peak = int(spectrum.argmax())
    assert float(spectrum[peak - 2 : peak + 3].sum() / spectrum.sum()) > 0.99


def test_a_free_spectrum_is_added_as_it_is():
    synthesis = VoiceSynthesis(RATE, HOP)
    x = controls(synthesis, 100.0, frames=60)
    x[:, synthesis.controls.envelope] = -60.0
    rows = synthesis.controls
    x[:, rows.free.start + 20, 30] = 1.0  # the real part of 1 kHz
    wave = synthesis(x)[0, 0]
    spectrum = torch.fft.rfft(wave[28 * HOP : 34 * HOP]).abs()
    assert int(spectrum.argmax()) == round(1000 * 6 * HOP / RATE)


@pytest.mark.parametrize("part", ["envelope", "aperiodicity", "voicing", "free"])
def test_gradients_reach_every_control_but_pitch_and_noise(part):
    synthesis = VoiceSynthesis(RATE, HOP)
    x = controls(synthesis, 140.0, frames=20, aperiodicity=-20.0)
    x[:, synthesis.controls.voicing] = 0.5
    x.requires_grad_()
    synthesis(x).square().sum().backward()
    rows = getattr(synthesis.controls, part)
    assert x.grad is not None and torch.isfinite(x.grad).all()
    assert float(x.grad[:, rows, 5:15].abs().max()) > 0
    assert float(x.grad[:, synthesis.controls.f0].abs().max()) == 0


def test_the_filter_has_minimum_phase():
    """A pulse through it begins at its place: what lies before it is no echo of the window."""
    synthesis = VoiceSynthesis(RATE, HOP)
    log_magnitude = torch.zeros(1, 161)
    log_magnitude[:, 20:60] = 2.0
    phase = log_magnitude @ synthesis.hilbert
    response = torch.fft.irfft(torch.polar(log_magnitude.exp(), phase), 320)[0].square()
    assert float(response[:40].sum()) > 0.9 * float(response.sum())
    assert float(response[-40:].sum()) < 0.02 * float(response.sum())


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=8), st.integers(0, 5))
def test_pieces_equal_the_whole(pieces, seed):
    synthesis = VoiceSynthesis(RATE, HOP)
    frames = sum(pieces)
    f0 = 90 + 150 * torch.rand(max(frames, 1), generator=torch.Generator().manual_seed(seed))
    x = controls(synthesis, f0[:frames], frames=frames, aperiodicity=-20.0, seed=seed)
    state, parts = synthesis.initial_state(1), []
    for piece in x.split(pieces, dim=-1):
        part, state = synthesis.step(piece, state)
        parts.append(part)
    whole = synthesis(x) if frames else torch.zeros(1, 1, 0)
    torch.testing.assert_close(torch.cat(parts, dim=-1), whole, rtol=0, atol=2e-4)


def test_a_frame_reaches_so_many_hops_and_no_more():
    synthesis = VoiceSynthesis(RATE, HOP)
    x = controls(synthesis, 140.0, frames=30, voiced=False)
    y = synthesis(x)
    x[:, synthesis.controls.envelope, 10] += 2.0
    changed = (synthesis(x) - y)[0, 0].view(-1, HOP).abs().amax(1).nonzero().flatten() - REACH
    assert changed.tolist() == list(range(10 - REACH, 10 + REACH + 1))


def test_rows_have_each_their_own_place():
    rows = Controls(320)
    assert (rows.envelope.stop, rows.aperiodicity, rows.voicing) == (64, 64, 65)
    assert rows.f0 == slice(66, 194) and rows.parameters == rows.free.start == 194
    assert rows.free.stop == rows.predicted == rows.noise.start == 516
    assert rows.rows == rows.noise.stop == 838


def test_an_odd_hop_is_refused():
    with pytest.raises(ValueError, match="even, not 55"):
        VoiceSynthesis(11025, 55)
