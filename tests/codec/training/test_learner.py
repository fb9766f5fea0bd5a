import pytest
import torch
from accelerate import Accelerator

from codec.codec import Codec
from codec.config_files import parse_config
from codec.data.batches import Batch
from codec.errors import ConfigError
from codec.training.learner import Learner


@pytest.fixture(autouse=True)
def on_cpu():
    return Accelerator(cpu=True)


def learner_of(config, initial_model=None):
    return Learner(config, Accelerator(cpu=True), initial_model)


def batch(seed=0):
    return Batch(0.1 * torch.randn(2, 1, 800, generator=torch.Generator().manual_seed(seed)))


def copies(module):
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def changed(before, module):
    return {n for n, tensor in module.state_dict().items() if not torch.equal(before[n], tensor)}


def test_discriminators_rest_until_the_adversarial_start(tiny):
    learner = learner_of(tiny())
    before = copies(learner.discriminators)
    for step in range(3):
        report = learner.step(step, batch(step))
        assert "loss/adversarial" not in report.scalars
    assert not changed(before, learner.discriminators)
    report = learner.step(3, batch())
    assert {"loss/adversarial", "loss/feature_matching", "loss/discriminator"} <= set(
        report.scalars
    )
    assert changed(before, learner.discriminators)


def test_the_adversarial_losses_come_in_gradually(tiny):
    game = {"adversarial": {"start_step": 2, "ramp_steps": 4, "weight": 1.0}}
    learner = learner_of(tiny(losses=game, balancer={"kind": "none"}))
    weights = []
    for step in range(8):
        scalars = learner.step(step, batch(step)).scalars
        losses = ("adversarial", "feature_matching")
        weights.append(
            [scalars.get(f"balanced/{n}", 0) / scalars.get(f"loss/{n}", 1) for n in losses]
        )
    expected = [0, 0, 0.25, 0.5, 0.75, 1, 1, 1]
    torch.testing.assert_close(torch.tensor(weights)[:, 0], torch.tensor(expected))
    torch.testing.assert_close(torch.tensor(weights)[:, 1], 2 * torch.tensor(expected))


def test_the_log_spectrum_loss_takes_part_and_its_windows_take_turns(tiny):
    spectrum = {"weight": 1.0, "n_ffts": [64, 128], "windows_a_step": 1}
    learner = learner_of(tiny(losses={"spectrum": spectrum}))
    first, second = (learner.step(step, batch()).scalars for step in range(2))
    assert {"loss/spectrum", "share/spectrum", "loss_spectrum/64"} <= set(first)
    assert "loss_spectrum/128" in second
    assert "loss_spectrum/64" not in second


def test_a_batch_is_decoded_in_two_takes_that_differ(tiny):
    spectrum = {"weight": 1.0, "n_ffts": [64], "takes": 2}
    noisy = {"kind": "convnext", "channels": [4, 6], "blocks": [1, 1], "noise_channels": 4}
    learner = learner_of(tiny(losses={"spectrum": spectrum}, model={"decoder": noisy}))
    heard = {}
    for name, loss in learner.objective._wave_losses.items():
        learner.objective._wave_losses[name] = record(heard, name, loss)
    for step in range(5):  # with and without quantizer and discriminators
        scalars = learner.step(step, batch(step)).scalars
        first, second = heard["spectrum"].chunk(2)
        assert first.shape == (2, 1, 800)
        assert not torch.equal(first, second)
        assert torch.equal(heard["mel"], first)
    assert scalars["loss/adversarial"].isfinite()


def record(heard, name, loss):
    def judged(decoded, wave):
        heard[name] = decoded.detach()
        return loss(decoded, wave)

    return judged


def test_the_disturbance_loss_rests_and_comes_in_gradually(tiny):
    late = {"weight": 2.0, "start_step": 3, "ramp_steps": 4}
    learner = learner_of(tiny(losses={"disturbance": late}, balancer={"kind": "none"}))
    wave = 0.1 * torch.randn(2, 1, 8000, generator=torch.Generator().manual_seed(0))
    weights = []
    for step in range(9):
        scalars = learner.step(step, Batch(wave)).scalars
        assert ("loss/disturbance" in scalars) == (step >= 3)
        weights.append(
            float(scalars.get("balanced/disturbance", 0) / scalars.get("loss/disturbance", 1))
        )
    assert weights == pytest.approx([0, 0, 0, 0.5, 1, 1.5, 2, 2, 2])


def test_discriminators_learn_at_one_step_of_every(tiny):
    learner = learner_of(tiny(losses={"adversarial": {"start_step": 0, "every": 3}}))
    learnt = []
    for step in range(6):
        before = copies(learner.discriminators)
        learner.step(step, batch(step))
        learnt.append(bool(changed(before, learner.discriminators)))
    assert learnt == [True, False, False, True, False, False]


def test_the_generator_meets_them_at_one_step_of_every_and_then_counts_them_the_more(tiny):
    game = {"start_step": 1, "every": 2, "generator_every": 3, "ramp_steps": 0, "weight": 0.5}
    learner = learner_of(tiny(losses={"adversarial": game}, balancer={"kind": "none"}))
    met, learnt = [], []
    for step in range(8):
        scalars = learner.step(step, batch(step)).scalars
        met.append("loss/adversarial" in scalars)
        learnt.append("loss/discriminator" in scalars)
        if met[-1]:
            weights = [
                float(scalars[f"balanced/{n}"] / scalars[f"loss/{n}"])
                for n in ("adversarial", "feature_matching")
            ]
            assert weights == pytest.approx([3 * 0.5, 3 * 2.0])
    assert met == [False, True, False, False, True, False, False, True]
    assert learnt == [False, True, False, True, False, True, False, True]


def test_discriminators_hear_the_same_piece_of_real_and_decoded(tiny):
    game = {"start_step": 0, "seconds": 0.02, "items": 0.5}
    learner = learner_of(tiny(losses={"adversarial": game}))
    seen, made = [], []
    judges = learner.objective.discriminators
    judges.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    learner.model.decoder.register_forward_hook(lambda _m, _i, out: made.append(out.detach()))
    heard = batch()
    wave = heard.wave
    learner.step(0, heard)
    real, fake = seen
    assert real.shape == fake.shape == (1, 1, 320)
    places = [
        (item, start)
        for item in range(len(wave))
        for start in range(800 - 320 + 1)
        if torch.equal(wave[item, 0, start : start + 320], real[0, 0])
    ]
    ((item, start),) = places
    assert torch.equal(made[0][item, 0, start : start + 320], fake[0, 0])


def test_discriminators_see_real_and_decoded_once_a_step(tiny):
    learner = learner_of(tiny(losses={"adversarial": {"start_step": 0}}))
    seen = []
    judges = learner.objective.discriminators
    judges.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    heard = batch()
    learner.step(0, heard)
    assert len(seen) == 2
    assert seen[0] is heard.wave


def test_the_generator_step_gives_discriminators_no_gradient(tiny):
    learner = learner_of(tiny(losses={"adversarial": {"start_step": 0, "every": 2}}))
    learner.step(1, batch())
    assert all(p.grad is None for p in learner.discriminators.parameters())
    assert all(p.grad is not None for p in learner.model.decoder.parameters())


def test_second_stage_freezes_encoder_and_quantizer_bit_for_bit(tiny):
    learner = learner_of(tiny(training={"freeze_step": 4}, codebooks={"revive_every": 1}))
    for step in range(5):
        learner.step(step, batch(step))
    before = copies(learner.model)
    for step in range(5, 12):
        learner.step(step, batch(step))
        assert not learner.revival_is_due(step)
    moved = changed(before, learner.model)
    assert moved
    assert all(name.startswith("decoder.") for name in moved)


def test_second_stage_goes_on_with_quantizer_dropout(tiny):
    config = tiny(training={"freeze_step": 0}, codebooks={"dropout": 1.0})
    learner = learner_of(config)
    learner.step(0, batch())
    seen = []
    learner.model.quantizer.register_forward_hook(lambda _m, _i, out: seen.append(out.codes))
    for step in range(1, 8):
        learner.step(step, batch(step))
    depths = (torch.cat(seen)[..., 0] >= 0).sum(dim=1)
    assert len(set(depths.tolist())) > 1


def test_what_ships_in_the_second_stage_has_the_encoder_the_decoder_heard(tiny):
    learner = learner_of(tiny(training={"freeze_step": 3}))
    for step in range(6):
        learner.step(step, batch(step))
    with torch.no_grad():
        heard = learner.model.encoder(batch().wave)
        with learner.average.applied(learner.model):
            ships = learner.model.encoder(batch().wave)
    assert torch.equal(heard, ships)


def test_a_non_finite_batch_changes_nothing(tiny):
    learner = learner_of(tiny())
    for step in range(4):
        learner.step(step, batch(step))
    model, judges = copies(learner.model), copies(learner.discriminators)
    average = {name: tensor.clone() for name, tensor in learner.average.average.items()}
    damaged = batch()
    damaged.wave[0, 0, 3] = float("nan")
    assert learner.step(4, damaged).skipped
    # Counts fade, sums with them: what a row stands for, their quotient, does not move.
    assert not {n for n in changed(model, learner.model) if not n.endswith(("count", "sum"))}
    assert not changed(judges, learner.discriminators)
    assert all(torch.equal(average[n], t) for n, t in learner.average.average.items())
    assert not learner.step(5, batch()).skipped
    assert changed(model, learner.model)


def test_the_codec_has_the_averaged_weights(tiny):
    learner = learner_of(tiny(training={"ema_decay": 0.9}))
    for step in range(4):
        learner.step(step, batch(step))
    wave = batch().wave
    ours = learner.codec().encode(wave)
    learner.model.eval()
    with torch.no_grad(), learner.average.applied(learner.model):
        expected = learner.model.quantizer.encode(learner.model.encoder(wave))
    assert torch.equal(ours, expected)


def test_weights_of_a_model_file_start_a_run(tiny, tmp_path):
    first = learner_of(tiny())
    for step in range(4):
        first.step(step, batch(step))
    path = tmp_path / "model.safetensors"
    first.codec().save(path)
    second = learner_of(tiny(), str(path))
    one, other = Codec.load(path), second.codec()
    assert torch.equal(one.encode(batch().wave), other.encode(batch().wave))
    torch.testing.assert_close(
        one.decode(one.encode(batch().wave)),
        other.decode(other.encode(batch().wave)),
        rtol=1e-4,
        atol=1e-5,
    )
    codebook = second.model.quantizer.codebooks[0].codebook.clone()
    second.step(0, batch())
    drift = (second.model.quantizer.codebooks[0].codebook - codebook).norm() / codebook.norm()
    assert drift < 0.5, "the codebooks were started over instead of going on"


def test_weights_in_half_precision_start_a_run_in_full_precision(tiny, tmp_path):
    path = tmp_path / "model.safetensors"
    half = learner_of(tiny()).codec().halved()
    half.save(path)
    learner = learner_of(tiny(), str(path))
    assert {tensor.dtype for tensor in learner.model.parameters()} == {torch.float32}
    codes = half.encode(batch().wave)
    torch.testing.assert_close(
        learner.codec().decode(codes), half.decode(codes), rtol=1e-4, atol=1e-5
    )
    assert not learner.step(0, batch()).skipped


def test_another_architecture_cannot_start_a_run(tiny, tmp_path):
    path = tmp_path / "model.safetensors"
    learner_of(tiny()).codec().save(path)
    values = tiny().model_dump()
    values["model"]["dimension"] = 16
    with pytest.raises(ConfigError, match=r"model\.dimension is 8, this run's is 16"):
        learner_of(parse_config(values, source="test"), str(path))


def test_revived_gradient_codes_lose_their_old_moments(tiny):
    values = tiny(codebooks={"learning": "gradient", "revive_every": 40}).model_dump()
    values["model"]["quantizer"]["codebook_size"] = 256  # more than there are different vectors
    values["model"]["default_kbps"] = 12.8
    learner = learner_of(parse_config(values, source="test"))
    for step in range(40):
        learner.step(step, batch(step % 3))
    codebook = learner.model.quantizer.codebooks[0].codebook
    hits = learner.model.quantizer.codebooks[0].statistics.hits
    dead = hits == 0
    assert dead.any(), "the test needs a dead code"
    learner.optimizer.state[codebook]["exp_avg"].fill_(1.0)
    assert learner.revival_is_due(40)
    assert learner.revive_dead_codes()
    moments = learner.optimizer.state[codebook]["exp_avg"]
    revived = (moments == 0).all(dim=1)
    assert revived.any()
    assert not revived[~dead].any()


def test_the_decoder_hears_the_latent_itself_until_the_quantizer_starts(tiny):
    learner = learner_of(tiny(codebooks={"start_step": 2, "revive_every": 1}))
    quantizer = copies(learner.model.quantizer)
    encoder = copies(learner.model.encoder)
    for step in range(2):
        report = learner.step(step, batch(step))
        assert not learner.revival_is_due(step + 1)
    assert not changed(quantizer, learner.model.quantizer)
    assert changed(encoder, learner.model.encoder)
    assert "loss/commitment" not in report.scalars
    report = learner.step(2, batch(2))
    assert changed(quantizer, learner.model.quantizer)
    assert report.scalars["loss/commitment"] > 0
    assert learner.revival_is_due(3)
