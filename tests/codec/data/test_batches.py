"""Batches: the same for any number of workers, resumed by the step alone."""

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from codec import audio
from codec.data.batches import StepSampler, batches
from codec.data.crops import RandomCrops
from codec.data.manifest import Entry


@pytest.fixture
def crops(tmp_path: Path) -> RandomCrops:
    wave = np.random.default_rng(0).uniform(-0.5, 0.5, (1, 22050)).astype(np.float32)
    audio.write_flac(tmp_path / "a.flac", wave, 22050)
    return RandomCrops(
        [Entry(tmp_path / "a.flac", 1.0)], sample_rate=16000, segment=500, seed=5, gain_db=(-6, 0)
    )


def first(crops: RandomCrops, count: int, start_step: int = 0, workers: int = 0) -> list[Tensor]:
    loader = batches(crops, batch_size=3, start_step=start_step, workers=workers)
    return [batch.wave.clone() for batch in islice(loader, count)]


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_nothing(crops: RandomCrops, workers: int) -> None:
    expected = first(crops, 5)
    assert expected[0].shape == (3, 1, 500) and expected[0].dtype == torch.float32
    found = first(crops, 5, workers=workers)
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_step_is_enough_to_resume(crops: RandomCrops, workers: int) -> None:
    expected = first(crops, 6)
    resumed = first(crops, 2, start_step=4, workers=workers)
    assert all(torch.equal(a, b) for a, b in zip(expected[4:], resumed, strict=True))


def test_ranks_share_what_one_process_would_see(crops: RandomCrops) -> None:
    whole = next(iter(batches(crops, batch_size=6, start_step=2))).wave
    parts = [
        next(iter(batches(crops, batch_size=3, start_step=2, rank=rank, world_size=2))).wave
        for rank in range(2)
    ]
    assert torch.equal(torch.cat(parts), whole)


def test_no_index_is_met_twice() -> None:
    met = [
        index
        for rank in range(3)
        for step in islice(StepSampler(batch_size=4, start_step=0, rank=rank, world_size=3), 5)
        for index in step
    ]
    assert sorted(met) == list(range(60))


def test_the_random_states_of_the_process_are_left_alone(crops: RandomCrops) -> None:
    torch.manual_seed(1)
    np.random.seed(1)
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()
    first(crops, 2, workers=1)
    first(crops, 2)
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(np.random.get_state()[1], numpy_before)


@pytest.mark.parametrize(
    "wrong", [{"batch_size": 0}, {"start_step": -1}, {"rank": 1}, {"rank": -1}], ids=str
)
def test_impossible_steps_are_refused(crops: RandomCrops, wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="need batch_size"):
        batches(crops, **{"batch_size": 2, **wrong})
