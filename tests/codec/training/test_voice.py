"""What the controls of a voice learn from, step by step."""

import copy
import math

import pytest
import torch
from accelerate import Accelerator

from codec.config_files import parse_config
from codec.data.batches import Batch
from codec.data.sources import FixedCrops
from codec.errors import ConfigError
from codec.nn.parameters import ENVELOPE
from codec.training.learner import Learner
from codec.training.voice import VoiceObjective

SMALL = {
    "data": {"source": "fixed", "segment_samples": 6400, "batch_size": 4, "workers": 0},
    "model": {
        "strides": [80, 4],
        "dimension": 16,
        "encoder": {"kind": "voice", "channels": [16, 24], "blocks": [1, 1]},
        "decoder": {"kind": "voice", "channels": [16, 24], "blocks": [1, 1]},
        "quantizer": {"n_quantizers": 3, "codebook_size": 32},
        "default_kbps": 0.75,
    },
    "discriminators": {"stft": None, "parameters": {"channels": 4}},
    "losses": {
        "mel": {"weight": 0.0},
        "waveform": {"weight": 0.0},
        "adversarial": {"weight": 0.0},
        "feature_matching": {"weight": 0.0},
        "parameters": {"weight": 1.0},
        "commitment": {"weight": 0.1},
    },
    "balancer": {"kind": "none"},
    "optimizer": {"warmup_steps": 0, "learning_rate": 2e-3},
}


def config(**losses: object):
    keys = {**SMALL, "losses": {**SMALL["losses"], **losses}}
    return parse_config(keys, source="test")


def batch(count: int = 4) -> Batch:
    crops = FixedCrops(sample_rate=16000, segment=6400, items=count, analysed=True)
    return Batch.of([crops[i] for i in range(count)])


def learner(**losses: object) -> Learner:
    one = Learner(config(**losses), Accelerator(cpu=True))
    one.begin_voice([batch(8)])
    return one


def test_a_voice_learns_its_parameters():
    one, same = learner(), batch()
    reports = [one.step(step, same).scalars for step in range(60)]
    for name in ("voicing", "f0"):  # the envelope begins as the best that is linear
        first, last = (float(r[f"parameters/{name}"]) for r in (reports[0], reports[-1]))
        assert last < 0.8 * first, name


def test_regression_and_adversary_share_the_envelopes_gradient():
    shares = {}
    one = learner(parameters={"weight": 1.0, "adversarial": 2.0, "feature_matching": 1.0})
    for step in range(12):
        shares = one.step(step, batch()).scalars
    assert float(shares["share_parameters/envelope"]) == pytest.approx(0.25, abs=0.1)
    assert float(shares["share_parameters/adversarial"]) == pytest.approx(0.5, abs=0.15)


def test_the_regressions_own_size_is_kept_whatever_joins_it():
    """With weights next to nothing the adversary changes next to nothing."""
    gradients = []
    for weight in (0.0, 1e-6):
        one = learner(parameters={"weight": 1.0, "adversarial": weight, "feature_matching": weight})
        voice = one.voice
        assert isinstance(voice, VoiceObjective)
        one.model.eval()
        controls = one.model.decoder.controls(one.model.encoder(batch().wave)).detach()
        gradients.append(voice.judge(0, controls, batch().parameters).gradient)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-3, atol=1e-8)


def test_the_adversary_rests_until_its_step_and_then_learns():
    one = learner(parameters={"weight": 1.0, "start_step": 2})
    assert one.voice is not None and one.voice.discriminator is not None
    before = [p.clone() for p in one.voice.discriminator.parameters()]
    for step in range(2):
        assert "parameters/discriminator" not in one.step(step, batch()).scalars
    assert all(map(torch.equal, before, one.voice.discriminator.parameters()))
    assert "parameters/discriminator" in one.step(2, batch()).scalars
    assert not all(map(torch.equal, before, one.voice.discriminator.parameters()))


def test_the_discriminators_gradient_is_not_the_generators():
    """What the controls are told does not move the discriminator, and the other way round."""
    one = learner()
    assert one.voice is not None and one.voice.discriminator is not None
    one.model.eval()
    controls = one.model.decoder.controls(one.model.encoder(batch().wave))
    one.voice.judge(0, controls.detach(), batch().parameters)
    assert all(p.grad is not None for p in one.voice.discriminator.parameters())
    assert all(p.grad is None for p in one.model.parameters())


def test_losses_of_the_wave_take_their_part():
    one = learner(
        mel={"weight": 1.0, "n_ffts": [256, 512]}, parameters={"weight": 1.0, "wave": 0.5}
    )
    assert one.voice is not None
    parameters, wave = torch.randn(4, 20, 30), 1000 * torch.randn(4, 20, 30)
    joined = one.voice.join(parameters, wave)
    size = (joined - parameters).flatten(1).norm(dim=1).mean()
    assert float(size) == pytest.approx(0.5 * float(parameters.flatten(1).norm(dim=1).mean()), 1e-3)
    scalars = one.step(0, batch()).scalars
    assert "loss/mel" in scalars and "parameters/envelope" in scalars


def test_what_is_not_finite_is_skipped_and_leaves_no_trace():
    one, poisoned = learner(), batch()
    assert poisoned.parameters is not None
    one.step(0, batch())
    before = {name: p.clone() for name, p in one.model.named_parameters()}
    poisoned.parameters[0, :ENVELOPE] = math.nan
    assert one.step(1, poisoned).skipped
    for name, p in one.model.named_parameters():
        assert torch.equal(p, before[name]), name
    assert not one.step(2, batch()).skipped


def test_state_goes_on_where_it_was():
    losses = {"mel": {"weight": 1.0, "n_ffts": [256, 512]}}
    one = learner(**losses)
    for step in range(3):
        one.step(step, batch())
    state, rank = copy.deepcopy((one.state_dict(), one.rank_state()))
    mine = [one.step(step, batch()).scalars for step in range(3, 6)]
    other = Learner(config(**losses), Accelerator(cpu=True))
    other.load_state_dict(state)
    other.load_rank_state(rank)
    for step, expected in enumerate(mine, start=3):
        theirs = other.step(step, batch()).scalars
        for name, value in expected.items():
            assert float(value) == float(theirs[name]), (step, name)


def test_linear_paths_say_the_envelope_from_the_first_step():
    fresh = Learner(config(), Accelerator(cpu=True))
    begun = learner()
    errors = []
    for one in (fresh, begun):
        one.model.eval()
        controls = one.model.decoder.controls(one.model.encoder(batch(8).wave)).detach()
        report = one.voice.judge(0, controls, batch(8).parameters)
        errors.append(float(report.scalars["parameters/envelope"]))
    assert errors[1] < 0.5 * errors[0]


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"discriminators": {"stft": None}}, "discriminators.parameters is null"),
        (
            {"model": {**SMALL["model"], "decoder": {"kind": "seanet"}}},
            "set model.decoder.kind: voice",
        ),
        (
            {"model": {**SMALL["model"], "strides": [40, 8]}},
            "5 ms for a voice",
        ),
        ({"model": {**SMALL["model"], "causal": False}}, "a voice is causal"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(keys, says):
    with pytest.raises(ConfigError, match=says) as error:
        parse_config({**SMALL, **keys}, source="test")
    assert "\n" not in str(error.value)
