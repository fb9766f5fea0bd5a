import os

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
from rich.console import Console

from codec.config import TrainingConfig
from codec.training.processes import (
    any_process,
    average_gradients,
    begin_alike,
    usable_precision,
)
from codec.training.trainer import Trainer, train


def _set_up(rank, folder):
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "29517",
    }
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)


def _run(rank, straight, stopped, folder):
    _set_up(rank, folder)
    layer = torch.nn.Linear(2, 1)
    torch.nn.init.constant_(layer.weight, float(rank))
    begin_alike(layer)
    layer(torch.full((1, 2), 1.0 + rank)).sum().backward()
    average_gradients(layer.parameters())
    votes = [any_process(rank == 1, torch.device("cpu")), any_process(False, torch.device("cpu"))]

    train(straight, console=Console(quiet=True))
    take = Trainer._step

    def interrupted(self, wave):
        report = take(self, wave)
        self._stop_asked = rank == 1 and self.progress.step == 4
        return report

    Trainer._step = interrupted
    train(stopped, console=Console(quiet=True))
    Trainer._step = take
    resumed = Trainer(stopped, resume=True, console=Console(quiet=True))
    begun = resumed.progress.step
    resumed.run()
    result = {
        "weight": layer.weight.detach(),
        "gradient": layer.weight.grad,
        "votes": votes,
        "begun": begun,
        "model": resumed.learner.state_dict()["model"],
        "hits": [c.statistics.hits for c in resumed.learner.model.quantizer.layers()],
    }
    torch.save(result, f"{folder}/result_{rank}")
    dist.destroy_process_group()


@pytest.fixture
def results(tiny, tmp_path):
    training = {"steps": 8, "log_every": 2, "checkpoint_every": 100}
    straight = tiny(name="straight", training=training)
    stopped = tiny(name="stopped", training=training)
    multiprocessing.spawn(_run, (straight, stopped, str(tmp_path)), nprocs=2, join=True)
    return [torch.load(tmp_path / f"result_{rank}", weights_only=True) for rank in (0, 1)]


def test_two_processes_train_one_model_and_resume_it(results, tmp_path, tiny):
    one, other = results
    assert torch.equal(one["weight"], other["weight"])
    assert torch.equal(one["weight"], torch.zeros(1, 2)), "both begin as process 0"
    assert torch.equal(one["gradient"], torch.full((1, 2), 1.5)), "the mean of 1 and 2"
    assert torch.equal(one["gradient"], other["gradient"])
    assert one["votes"] == other["votes"] == [True, False]
    assert one["begun"] == other["begun"] == 4, "what one process is told, all do"
    assert one["model"].keys() == other["model"].keys()
    for name, tensor in one["model"].items():
        assert torch.equal(tensor, other["model"][name]), name
    assert all(map(torch.equal, one["hits"], other["hits"]))
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    assert (straight / "last.safetensors").read_bytes() == (
        stopped / "last.safetensors"
    ).read_bytes()
    for rank in (0, 1):
        name = f"checkpoints/step_00000008/rank_{rank}.safetensors"
        assert (straight / name).read_bytes() == (stopped / name).read_bytes()


@pytest.mark.parametrize(("capable", "expected"), [(True, "bf16"), (False, "no")])
def test_auto_precision_is_bf16_where_the_cpu_has_it(monkeypatch, capable, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: capable)
    assert usable_precision("auto") == expected
    assert usable_precision("bf16") == "bf16"


def test_a_plain_no_of_yaml_is_the_precision_no():
    assert TrainingConfig.model_validate({"mixed_precision": False}).mixed_precision == "no"
