"""Endless batches that any step can be resumed at."""

import signal
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler


class Crop(NamedTuple):
    """An item of a training data set.

    Attributes:
        wave: (1, samples) float32 in [-1, 1].
        parameters: of the voice, (66, frames) float32 with rows as in `codec.nn.parameters`, frame
            t at the middle of the wave's t-th 5 ms; None where they are not wanted.
    """

    wave: Tensor
    parameters: Tensor | None = None


class Batch(NamedTuple):
    """What a step learns from: crops, stacked.

    Attributes:
        wave: (batch, 1, samples) float32 in [-1, 1].
        parameters: (batch, 66, frames) float32, or None.
    """

    wave: Tensor
    parameters: Tensor | None = None

    @classmethod
    def of(cls, crops: Sequence[Crop]) -> Self:
        """Crops of one length, all of them with parameters or none."""
        parameters = [crop.parameters for crop in crops if crop.parameters is not None]
        wave = torch.stack([crop.wave for crop in crops])
        return cls(wave, torch.stack(parameters) if parameters else None)

    def to(self, device: torch.device) -> Self:
        """The same on a device; from pinned memory without waiting for it."""
        wave = self.wave.to(device, non_blocking=True)
        if self.parameters is None:
            return type(self)(wave)
        return type(self)(wave, self.parameters.to(device, non_blocking=True))


class StepSampler(Sampler[list[int]]):
    """The indices of every step from ``start_step`` on, without end.

    Step s of rank r has the indices (s · world_size + r) · batch_size + i, so that no index is
    met twice and a step's batch depends on nothing that came before.
    """

    def __init__(self, *, batch_size: int, start_step: int, rank: int, world_size: int) -> None:
        if batch_size < 1 or start_step < 0 or not 0 <= rank < world_size:
            raise ValueError(
                "need batch_size >= 1, start_step >= 0 and 0 <= rank < world_size, got "
                f"{batch_size}, {start_step}, {rank}, {world_size}"
            )
        self.batch_size = batch_size
        self.start_step = start_step
        self.rank = rank
        self.world_size = world_size

    def __iter__(self) -> Iterator[list[int]]:
        step = self.start_step
        while True:
            first = (step * self.world_size + self.rank) * self.batch_size
            yield list(range(first, first + self.batch_size))
            step += 1


def batches(
    dataset: Dataset[Crop],
    *,
    batch_size: int,
    start_step: int = 0,
    workers: int = 0,
    rank: int = 0,
    world_size: int = 1,
) -> Iterable[Batch]:
    """An endless loader of batches of ``batch_size`` crops.

    The same seed gives the same batches with any number of workers; to resume, give the step.
    Neither the loader nor its workers touch the random states of the process.

    Args:
        dataset: indexed from 0 without end, such as ``RandomCrops``.
        batch_size: items a step and rank.
        start_step: the first step to give.
        workers: processes that decode ahead; 0 decodes in this one.
        rank: of this process among ``world_size``.
        world_size: processes that train together.
    """
    sampler = StepSampler(
        batch_size=batch_size, start_step=start_step, rank=rank, world_size=world_size
    )
    options: dict[str, Any] = {}
    if workers > 0:
        options = {
            "persistent_workers": True,
            "prefetch_factor": 4,
            "worker_init_fn": _start_worker,
        }
    # It takes crops and gives batches, which its type cannot say.
    loader: DataLoader[Any] = DataLoader(
        dataset,
        batch_sampler=sampler,
        num_workers=workers,
        collate_fn=Batch.of,
        pin_memory=torch.cuda.is_available(),
        # Its own generator: the loader draws a base seed from the global one otherwise, and a
        # resumed run would no longer equal an uninterrupted one.
        generator=torch.Generator(),
        **options,
    )
    return loader


def _start_worker(_: int) -> None:
    torch.set_num_threads(1)
    # Ctrl-C, and the SIGTERM that a cluster sends to every process, are the trainer's to handle:
    # it still needs its workers to save first, and its end ends them.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
