from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor

from codec.nn.quantizer import ResidualVectorQuantizer

WORLD_SIZE = 2
STEPS = 4
KINDS: dict[str, dict[str, Any]] = {
    "ema": {},
    "gradient": {"learning": "gradient"},
    "cosine": {"codebook_dimension": 3, "l2_normalize": True},
}
Result = dict[str, dict[str, Tensor]]


def batch(rank: int, step: int) -> Tensor:
    """Latents that differ in number, place and scale between the processes."""
    draws = torch.Generator().manual_seed(100 * rank + step)
    return torch.randn(3, 6, 10 + 4 * rank, generator=draws) * (1 + rank) + rank


def average_gradients(quantizer: ResidualVectorQuantizer) -> None:
    for parameter in quantizer.parameters():
        dist.all_reduce(parameter.grad)
        parameter.grad /= WORLD_SIZE


def train(rank: int, kind: dict[str, Any]) -> Result:
    torch.manual_seed(rank)  # so that they start unequal
    quantizer = ResidualVectorQuantizer(
        dimension=6, n_quantizers=3, codebook_size=16, cache_vectors=64, decay=0.9, **kind
    )
    parameters = list(quantizer.parameters())
    optimizer = torch.optim.Adam(parameters, lr=1e-2) if parameters else None
    draws = torch.Generator().manual_seed(rank)
    result: Result = {}

    def step(number: int) -> None:
        output = quantizer(batch(rank, number), generator=draws)
        if optimizer is None:
            return
        optimizer.zero_grad()
        loss = output.quantized.square().mean() + output.commitment + output.codebook_loss
        loss.backward()
        average_gradients(quantizer)
        optimizer.step()

    def keep(name: str) -> None:
        result[name] = {key: value.clone() for key, value in quantizer.state_dict().items()}

    for number in range(STEPS):
        step(number)
    keep("forwards")
    for number in range(STEPS, 2 * STEPS):
        step(number)
    revival = quantizer.revive_dead_codes(vectors_per_code=1, dead_below=20, generator=draws)
    if optimizer is not None:
        quantizer.reset_moments(optimizer, revival)
    keep("revival")
    result["rows"] = {str(index): rows for index, rows in enumerate(revival.rows)}
    step(2 * STEPS)
    keep("one more")
    return result


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/rendezvous",
        rank=rank,
        world_size=WORLD_SIZE,
        timeout=timedelta(seconds=60),
    )
    for name, kind in KINDS.items():
        torch.save(train(rank, kind), f"{folder}/{name}-{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not dist.is_gloo_available():
        pytest.skip("this torch has no gloo")
    path = tmp_path_factory.mktemp("processes")
    mp.spawn(work, args=(str(path),), nprocs=WORLD_SIZE)
    return path


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("moment", ["forwards", "revival", "one more"])
def test_processes_end_with_equal_codebooks(folder: Path, name: str, moment: str) -> None:
    first, second = (
        torch.load(folder / f"{name}-{rank}.pt", weights_only=True) for rank in range(2)
    )
    for key, value in first[moment].items():
        if ".cache." not in key:
            assert torch.equal(value, second[moment][key]), key
    own = "codebooks.0.statistics.cache.vectors"
    assert not torch.equal(first[moment][own], second[moment][own])


@pytest.mark.parametrize("name", KINDS)
def test_revival_replaces_the_same_rows_in_every_process(folder: Path, name: str) -> None:
    first, second = (
        torch.load(folder / f"{name}-{rank}.pt", weights_only=True)["rows"] for rank in range(2)
    )
    assert sum(int(rows.sum()) for rows in first.values()) > 0
    for index, rows in first.items():
        assert torch.equal(rows, second[index]), index


def test_processes_learn_what_one_learns_from_their_vectors_joined(folder: Path) -> None:
    """Without dropout the first codebook of both saw the same vectors in the same order."""
    single = ResidualVectorQuantizer(
        dimension=6, n_quantizers=3, codebook_size=16, cache_vectors=64, decay=0.9, dropout=0.0
    )
    for number in range(STEPS):
        vectors = [batch(rank, number).transpose(1, 2).flatten(0, 1) for rank in range(2)]
        joined = torch.cat(vectors).T[None]
        single(joined, generator=torch.Generator().manual_seed(0))
    shared = torch.load(folder / "ema-0.pt", weights_only=True)["forwards"]
    for name in ("codebook", "statistics.sum", "statistics.count", "statistics.hits"):
        key = f"codebooks.0.{name}"  # every item uses the first codebook, whatever dropout draws
        torch.testing.assert_close(shared[key], single.state_dict()[key])
