import signal

import numpy as np
import pytest
import torch
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from codec import audio
from codec.codec import Codec
from codec.config_files import parse_config
from codec.data.batches import Batch
from codec.errors import ConfigError, DataError, SottoError, TrainingError
from codec.evaluation.judges import DEFAULT
from codec.training.trainer import Trainer, train


def quiet():
    return Console(quiet=True)


def interrupt_at(monkeypatch, step):
    """Ctrl-C arrives while this step runs."""
    take = Trainer._step

    def interrupted(self, wave):
        report = take(self, wave)
        if self.progress.step == step:
            signal.raise_signal(signal.SIGINT)
        return report

    monkeypatch.setattr(Trainer, "_step", interrupted)


def leaves(tree, path=""):
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from leaves(value, f"{path}/{key}")
    elif isinstance(tree, list | tuple):
        for i, value in enumerate(tree):
            yield from leaves(value, f"{path}/{i}")
    else:
        yield path, tree


def assert_bitwise_equal(one, other):
    ones, others = dict(leaves(one)), dict(leaves(other))
    assert ones.keys() == others.keys()
    for path, value in ones.items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, others[path]), path
        else:
            assert value == others[path], path


VARIANTS = {
    "ema": {},
    "gradient-codebooks": {"codebooks": {"learning": "gradient"}},
    "ema-balancer": {"balancer": {"kind": "ema"}},
    "two-stages": {"training": {"freeze_step": 7}},
    "pieces": {
        "discriminators": {
            "stft": None,
            "bands": {"n_ffts": [64], "channels": 2},
            "frames": {"n_ffts": [64], "channels": 8},
        },
        "losses": {
            "mel": {"n_ffts": [64, 256]},
            "adversarial": {"start_step": 1, "every": 2, "seconds": 0.02, "items": 0.5}
            | {"generator_every": 3},
        },
    },
    "noise": {
        "model": {
            "decoder": {"kind": "convnext", "channels": [4, 6], "blocks": [1, 1]}
            | {"noise_channels": 4}
        },
        "losses": {"spectrum": {"weight": 1.0, "n_ffts": [64], "takes": 2}},
    },
}


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS.keys())
@pytest.mark.parametrize("at", [2, 8])
def test_resuming_equals_never_having_stopped(tiny, monkeypatch, variant, at):
    variant = {**variant, "training": {"steps": 10, "log_every": 2, **variant.get("training", {})}}
    straight = train(tiny(name="straight", **variant), console=quiet())
    with monkeypatch.context() as patch:
        interrupt_at(patch, at)
        stopped = train(tiny(name="resumed", **variant), console=quiet())
    assert stopped.checkpoints.steps()[-1] == at
    torch.manual_seed(99)  # whatever happened in between must not matter
    resumed = train(tiny(name="resumed", **variant), resume=True, console=quiet())
    assert_bitwise_equal(straight.checkpoints.read(10, 0), resumed.checkpoints.read(10, 0))
    assert straight.last.read_bytes() == resumed.last.read_bytes()


def test_resuming_with_other_workers_equals_never_having_stopped(tiny, monkeypatch):
    run = VARIANTS["noise"] | {"training": {"steps": 6}}
    straight = train(tiny(name="straight", **run), console=quiet())
    with monkeypatch.context() as patch:
        interrupt_at(patch, 3)
        train(tiny(name="resumed", **run), console=quiet())
    config = tiny(
        name="resumed",
        **run,
        data={"source": "fixed", "segment_samples": 800, "batch_size": 2, "workers": 1},
    )
    resumed = train(config, resume=True, console=quiet())
    assert straight.last.read_bytes() == resumed.last.read_bytes()


def test_ctrl_c_saves_what_was_learnt(tiny, monkeypatch):
    interrupt_at(monkeypatch, 3)
    folder = train(tiny(), console=quiet())
    assert folder.checkpoints.steps() == [3]
    assert Codec.load(folder.last).n_quantizers == 3
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("balancer", ["ema", "gradient", "none"])
def test_losses_fall_on_a_small_fixed_set(tiny, balancer):
    config = tiny(
        balancer={"kind": balancer},
        losses={
            "mel": {"n_ffts": [64, 256], "weight": 1.0},
            "waveform": {"weight": 1.0 if balancer != "none" else 10.0},
            "adversarial": {"weight": 0},
            "feature_matching": {"weight": 0},
        },
        optimizer={"warmup_steps": 2, "learning_rate": 5e-3},
        training={"steps": 120, "log_every": 1, "checkpoint_every": 1000},
        validation={"every": 1000, "clips": 1, "seconds": 0.5, "workers": 0},
    )
    folder = train(config, console=quiet())
    for loss, share in (("mel", 0.7), ("waveform", 0.9)):
        values = [event.value for event in curves(folder).Scalars(f"loss/{loss}")]
        assert np.mean(values[-5:]) < share * np.mean(values[:5]), loss


def curves(folder):
    events = EventAccumulator(str(folder.path / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    return events


def test_tensorboard_has_every_curve_and_the_same_clips(tiny):
    events = curves(train(tiny(), console=quiet()))
    scalars = set(events.Tags()["scalars"])
    losses = ("mel", "waveform", "adversarial", "feature_matching")
    assert {f"loss/{name}" for name in (*losses, "discriminator", "commitment")} <= scalars
    assert {f"balanced/{name}" for name in losses} <= scalars
    assert {f"share/{name}" for name in losses} <= scalars
    assert {"gradient_norm/generator", "gradient_norm/discriminator"} <= scalars
    assert {"learning_rate/generator", "learning_rate/discriminator"} <= scalars
    assert {f"codebook_used/{i}" for i in (1, 2, 3)} <= scalars
    assert {f"codebook_perplexity/{i}" for i in (1, 2, 3)} <= scalars
    assert {"throughput/steps_per_second", "training/skipped_steps"} <= scalars
    for metric in DEFAULT:
        assert {f"validation_{metric}/{kbps}_kbps" for kbps in ("3.2", "6.4")} <= scalars
    assert set(events.Tags()["audio"]) == {"training_0/original", "training_0/decoded"}
    assert events.Tags()["images"] == ["training_0/spectrograms"]
    steps = [event.step for event in events.Scalars("validation_mel_distance/6.4_kbps")]
    assert steps == [6, 12]


def test_curves_are_means_over_the_steps_between_two_points(tiny, monkeypatch):
    raw = []
    take = Trainer._step

    def remembered(self, wave):
        report = take(self, wave)
        raw.append({tag: float(value) for tag, value in report.scalars.items()})
        return report

    monkeypatch.setattr(Trainer, "_step", remembered)
    config = tiny(
        losses={"mel": {"n_ffts": [64, 256]}, "adversarial": {"start_step": 3, "every": 2}},
        training={"steps": 8, "log_every": 4},
    )
    events = curves(train(config, console=quiet()))
    mel = [event.value for event in events.Scalars("loss/mel")]
    expected = [np.mean([step["loss/mel"] for step in raw[i : i + 4]]) for i in (0, 4)]
    assert mel == pytest.approx(expected)
    learnt = [step["loss/discriminator"] for step in raw[4:] if "loss/discriminator" in step]
    assert len(learnt) == 2
    judged = [event.value for event in events.Scalars("loss/discriminator")]
    assert judged[-1] == pytest.approx(np.mean(learnt))


def test_a_resumed_run_continues_the_curves(tiny, monkeypatch):
    with monkeypatch.context() as patch:
        interrupt_at(patch, 6)  # logged, validated and revived in this very step
        train(tiny(), console=quiet())
    events = curves(train(tiny(), resume=True, console=quiet()))

    def steps(tag):
        return [event.step for event in events.Scalars(tag)]

    assert steps("loss/mel") == [2, 4, 6, 8, 10, 12]
    assert steps("validation_stoi/6.4_kbps") == [6, 12]
    assert steps("codebooks/revived") == [4, 8, 12]
    assert [event.step for event in events.Audio("training_0/decoded")] == [6, 12]


def test_usage_of_codebooks_is_logged_where_nothing_revives_them(tiny):
    config = tiny(codebooks={"revive_every": 0})
    events = curves(train(config, console=quiet()))
    values = [(event.step, event.value) for event in events.Scalars("codebook_used/1")]
    assert [step for step, _ in values] == [6, 12]
    assert all(value > 0 for _, value in values)


def test_weights_that_are_not_finite_are_never_saved(tiny, monkeypatch):
    update = Trainer._step

    def poisoned(self, wave):
        report = update(self, wave)
        if self.progress.step == 6:
            next(self.learner.model.decoder.parameters()).data.fill_(float("nan"))
        return report

    monkeypatch.setattr(Trainer, "_step", poisoned)
    config = tiny(training={"steps": 8, "checkpoint_every": 2})
    folder = train(config, console=quiet())
    assert folder.checkpoints.steps()[-1] == 4
    Codec.load(folder.last)


def test_a_full_disk_elsewhere_names_the_run_and_what_is_intact(tiny, monkeypatch):
    def full(self, step, scalars):
        if step >= 4:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("codec.training.monitor.Monitor.log_scalars", full)
    config = tiny(training={"steps": 8, "checkpoint_every": 2, "log_every": 2})
    with pytest.raises(TrainingError, match=r"tiny: step 4: .*No space.*step 2 is intact"):
        train(config, console=quiet())


def test_resuming_does_not_need_the_initial_model_again(tiny, tmp_path):
    first = train(tiny(name="first", training={"steps": 1}), console=quiet())
    second = {"name": "second", "training": {"steps": 1, "initial_model": str(first.last)}}
    train(tiny(**second), console=quiet())
    first.last.unlink()
    Trainer(tiny(**second), resume=True, console=quiet())


def test_only_metrics_asked_for_are_scored_and_the_best_is_a_sum(tiny):
    validation = {"every": 2, "clips": 1, "workers": 0, "metrics": ["buzz"]}
    validation["best_by"] = {"mel_distance": 2}
    sections = {"training": {"steps": 2}, "data": {"segment_samples": 2000}}
    folder = train(tiny(validation=validation, **sections), console=quiet())
    events = curves(folder)
    scored = {tag for tag in events.Tags()["scalars"] if tag.startswith("validation_")}
    rates = ("3.2_kbps", "6.4_kbps")
    assert scored == {f"validation_{m}/{rate}" for m in ("buzz", "mel_distance") for rate in rates}
    progress = folder.checkpoints.read(2, 0)[0]["progress"]
    assert progress["best_by"] == "- 2 mel_distance"
    distance = events.Scalars("validation_mel_distance/6.4_kbps")[-1].value
    assert progress["best_value"] == pytest.approx(-2 * distance, rel=1e-5)


def test_a_judge_that_is_not_installed_is_told_before_anything_is_read(tiny, monkeypatch):
    monkeypatch.setattr("codec.evaluation.judges.Metric.missing", lambda metric: "visqol")
    config = tiny(validation={"every": 2, "best_by": {"visqol": 1, "stoi": 5}})
    with pytest.raises(SottoError, match=r"visqol, which is not installed: .*sotto\[metrics\]"):
        Trainer(config, console=quiet())


def test_models_tell_the_losses_they_learnt_from(tiny):
    """Those of the model that a run began as among them; what does not tell is not known."""
    first = train(tiny(name="first", training={"steps": 1}), console=quiet())
    learnt = Codec.load(first.last).losses
    assert learnt["mel"] == 2 and {"waveform", "adversarial", "commitment"} <= learnt.keys()
    assert "disturbance" not in learnt and "whisper" not in learnt
    assert Codec.load(first.best).losses == learnt
    second = {"name": "second", "training": {"steps": 2, "initial_model": str(first.last)}}
    more = {"losses": {"mel": {"n_ffts": [64], "weight": 1}, "waveform": {"weight": 0}}}
    told = Codec.load(train(tiny(**second, **more), console=quiet()).last).losses
    assert (told["mel"], told["waveform"]) == (1, learnt["waveform"])
    silent = Codec.load(first.last)
    silent.losses = None
    silent.save(first.last)
    third = tiny(name="third", training={"steps": 1, "initial_model": str(first.last)})
    assert Codec.load(train(third, console=quiet()).last).losses is None


def test_a_checkpoint_of_before_losses_were_noted_resumes(tiny):
    config = tiny(training={"steps": 2})
    folder = train(config, console=quiet())
    shared, own = folder.checkpoints.read(2, 0)
    del shared["progress"]["losses"]
    folder.checkpoints.write_rank(2, 0, own)
    folder.checkpoints.commit(2, shared)
    trainer = Trainer(config, resume=True, console=quiet())
    assert trainer.progress.losses == config.losses.weights()


def test_another_best_metric_does_not_compare_with_the_old_one(tiny):
    config = tiny(training={"steps": 2}, validation={"every": 2, "clips": 1, "workers": 0})
    train(config, console=quiet())
    values = config.model_dump()
    values["validation"]["best_by"] = "mel_distance"
    trainer = Trainer(parse_config(values, source="test"), resume=True, console=quiet())
    assert (trainer.progress.best_by, trainer.progress.best_value) == ("- mel_distance", None)


def test_a_changed_cache_cannot_resume(tiny):
    train(tiny(training={"steps": 1}), console=quiet())
    changed = tiny(training={"steps": 2}, codebooks={"cache_vectors": 128})
    with pytest.raises(ConfigError, match=r"codebooks\.cache_vectors is 128.*256"):
        train(changed, resume=True, console=quiet())


def test_the_last_checkpoints_and_the_best_are_kept(tiny, monkeypatch):
    values = iter([0.5, 0.9, 0.7, 0.6, 0.4, 0.3])

    def scored(*args, **kwargs):
        result = real_validate(*args, **kwargs)
        for scores in result.scores.values():
            scores["stoi"] = value[0]
        return result

    value = [0.0]

    def next_value(*args, **kwargs):
        value[0] = next(values)
        return scored(*args, **kwargs)

    from codec.training import trainer

    real_validate = trainer.validate
    monkeypatch.setattr(trainer, "validate", next_value)
    config = tiny(
        training={"steps": 12, "checkpoint_every": 2, "keep_checkpoints": 2},
        validation={"every": 2, "clips": 1, "seconds": 0.5, "workers": 0, "best_by": "stoi"},
    )
    folder = train(config, console=quiet())
    assert folder.checkpoints.steps() == [4, 10, 12]
    assert folder.best.exists()
    assert folder.checkpoints.read(12, 0)[0]["progress"]["best_step"] == 4


def test_a_second_run_does_not_overwrite_the_first(tiny):
    train(tiny(training={"steps": 2}), console=quiet())
    with pytest.raises(TrainingError, match=r"step 2; add --resume"):
        train(tiny(training={"steps": 2}), console=quiet())


def test_another_model_cannot_resume(tiny):
    train(tiny(training={"steps": 2}), console=quiet())
    with pytest.raises(ConfigError, match=r"discriminators\.stft"):
        train(
            tiny(discriminators={"stft": {"n_ffts": [128], "channels": 4}}),
            resume=True,
            console=quiet(),
        )


def test_a_damaged_checkpoint_is_named(tiny):
    folder = train(tiny(training={"steps": 2}), console=quiet())
    file = folder.checkpoints.path(2) / "shared.safetensors"
    data = bytearray(file.read_bytes())
    data[-5] ^= 1
    file.write_bytes(data)
    with pytest.raises(TrainingError, match=r"shared\.safetensors: damaged; remove"):
        train(tiny(training={"steps": 2}), resume=True, console=quiet())


def test_a_checkpoint_of_another_version_is_refused(tiny, monkeypatch):
    config = tiny(training={"steps": 1})
    train(config, console=quiet())
    monkeypatch.setattr("codec.training.trainer._CHECKPOINT_VERSION", 99)
    with pytest.raises(TrainingError, match=r"another version.*initial_model=.*last\.safetensors"):
        Trainer(config, resume=True, console=quiet())


def test_a_full_disk_ends_the_run_and_keeps_the_last_checkpoint(tiny, monkeypatch):
    from codec.training import checkpoint

    write = checkpoint.save_file

    def full(tensors, path):
        if ".writing_00000004" in str(path):
            path.write_bytes(b"half")
            raise OSError(28, "No space left on device")
        write(tensors, path)

    monkeypatch.setattr(checkpoint, "save_file", full)
    config = tiny(training={"steps": 6, "checkpoint_every": 2})
    with pytest.raises(TrainingError, match=r"No space left.*step 2 is intact") as caught:
        train(config, console=quiet())
    assert "\n" not in str(caught.value)
    store = Trainer(config, resume=True, console=quiet()).folder.checkpoints
    assert store.steps() == [2]
    assert [entry.name for entry in store.folder.iterdir()] == ["step_00000002"]


def test_persistent_non_finite_losses_end_the_run(tiny, monkeypatch):
    def broken(self):
        for batch in batches(self):
            yield Batch(batch.wave * float("nan")) if self.progress.step >= 4 else batch

    batches = Trainer._batches
    monkeypatch.setattr(Trainer, "_batches", broken)
    config = tiny(training={"steps": 50, "max_nonfinite_steps": 3, "checkpoint_every": 2})
    with pytest.raises(TrainingError, match=r"step 7.*\(3 steps skipped\).*learning_rate"):
        train(config, console=quiet())


def test_every_other_step_not_finite_ends_the_run_too(tiny, monkeypatch):
    def broken(self):
        for batch in batches(self):
            yield Batch(batch.wave * float("nan")) if self.progress.step % 2 else batch

    batches = Trainer._batches
    monkeypatch.setattr(Trainer, "_batches", broken)
    config = tiny(training={"steps": 60, "max_nonfinite_steps": 3, "checkpoint_every": 100})
    with pytest.raises(TrainingError, match="steps skipped"):
        train(config, console=quiet())


def test_a_folder_of_audio_is_trained_on(tiny, tmp_path):
    rng = np.random.default_rng(0)
    for i in range(6):
        wave = 0.1 * rng.standard_normal((1, 4000)).astype(np.float32)
        audio.write_wav(tmp_path / "audio" / f"{i}.wav", wave, 8000)
    data = {"path": str(tmp_path / "audio"), "segment_samples": 800, "batch_size": 2, "workers": 0}
    values = tiny().model_dump()
    values["data"] = data
    values["training"]["steps"] = 2
    folder = train(parse_config(values, source="test"), console=quiet())
    assert folder.last.exists()


def test_an_empty_folder_is_named_and_nothing_is_written(tiny, tmp_path):
    (tmp_path / "empty").mkdir()
    values = tiny().model_dump()
    values["data"] = {"path": str(tmp_path / "empty"), "segment_samples": 800}
    with pytest.raises(DataError, match="no audio files found"):
        train(parse_config(values, source="test"), console=quiet())
    assert [entry.name for entry in tmp_path.iterdir()] == ["empty"]
