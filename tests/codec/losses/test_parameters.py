"""Losses of controls against parameters."""

import pytest
import torch

from codec.losses.parameters import ParameterLoss, aligned
from codec.nn.parameters import APERIODICITY, ENVELOPE, F0, PARAMETERS, f0_classes
from codec.nn.voice import Controls, VoiceSynthesis


def speech(frames: int = 40, f0: float = 130.0) -> torch.Tensor:
    x = torch.full((2, PARAMETERS, frames), -8.0)
    x[:, APERIODICITY] = -20.0
    x[:, F0] = f0
    return x


def told(parameters: torch.Tensor) -> torch.Tensor:
    """Controls that say just these parameters."""
    x = torch.zeros(parameters.shape[0], Controls(320).rows, parameters.shape[-1])
    x[:, Controls.envelope] = parameters[:, :ENVELOPE]
    x[:, Controls.aperiodicity] = parameters[:, APERIODICITY] / 10
    x[:, Controls.voicing] = torch.where(parameters[:, F0] > 0, 30.0, -30.0)
    classes = torch.from_numpy(f0_classes()).float()
    nearest = (classes[:, None] / parameters[0, F0].clamp(min=1.0)).log().abs().argmin(0)
    x[:, Controls.f0] = 40 * torch.nn.functional.one_hot(nearest, 128).T.float()
    return x


def test_what_is_right_costs_nothing():
    parameters = speech(f0=float(f0_classes()[50]))
    losses = ParameterLoss()(told(parameters), parameters)
    for name, value in vars(losses).items():
        assert float(value) == pytest.approx(0.0, abs=0.01), name


def test_an_envelope_that_is_off_by_a_nat_costs_one_and_no_change():
    parameters = speech()
    controls = told(parameters)
    controls[:, Controls.envelope] += 1.0
    losses = ParameterLoss()(controls, parameters)
    assert float(losses.envelope) == pytest.approx(1.0)
    assert float(losses.difference) == pytest.approx(0.0, abs=1e-6)
    controls[:, Controls.envelope, ::2] -= 2.0
    assert float(ParameterLoss()(controls, parameters).difference) == pytest.approx(2.0)


def test_silence_counts_little():
    parameters = speech()
    parameters[..., 20:] = -23.0
    parameters[:, F0, 20:] = 0.0
    controls = told(parameters)
    controls[:, Controls.envelope, :20] += 1.0
    of_speech = float(ParameterLoss()(controls, parameters).envelope)
    controls = told(parameters)
    controls[:, Controls.envelope, 20:] += 1.0
    of_silence = float(ParameterLoss()(controls, parameters).envelope)
    assert of_speech == pytest.approx(1 - of_silence)
    assert 0.05 < of_silence < 0.15


def test_pitch_and_aperiodicity_count_where_there_is_voice_alone():
    parameters = speech()
    parameters[:, F0] = 0.0
    controls = torch.randn_like(told(parameters))
    losses = ParameterLoss()(controls, parameters)
    assert float(losses.f0) == 0.0 and float(losses.aperiodicity) == 0.0
    assert float(losses.voicing) > 0.1


@pytest.mark.parametrize("f0", [62.3, 118.0, 247.0, 488.0])
def test_logits_that_learn_a_pitch_say_it(f0):
    """The least of the cross-entropy is read as the pitch itself, between classes too."""
    parameters = speech(4, f0)
    logits = torch.zeros(2, Controls(320).rows, 4, requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=0.2)
    loss = ParameterLoss()
    for _ in range(200):
        optimizer.zero_grad()
        loss(logits, parameters).f0.backward()
        optimizer.step()
    synthesis = VoiceSynthesis(16000, 80)
    read = 16000 * synthesis.cycles_per_sample(logits.detach().transpose(1, 2)[..., Controls.f0])
    assert (1200 * (read / f0).log2()).abs().max() < 8  # cents; classes are 29 apart


def test_frames_are_aligned_whichever_way_the_shift():
    parameters = torch.arange(12.0).expand(1, PARAMETERS, 12)
    for shift in (-2, 0, 2, 6):
        controls = (torch.arange(16.0) - shift).expand(1, 5, 16)
        one, other = aligned(controls, parameters, shift)
        assert torch.equal(one[0, 0], other[0, 0])
        assert one.shape[-1] == other.shape[-1] >= 10
