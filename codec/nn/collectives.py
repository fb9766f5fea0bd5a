"""The three things the quantizer asks of other processes; no-ops where there is only one."""

import torch
import torch.distributed as dist
from torch import Tensor


def distributed() -> bool:
    """Whether `torch.distributed` is initialised with more than one process."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def is_first_process() -> bool:
    """Whether this is the only process, or rank 0 of several."""
    return not distributed() or dist.get_rank() == 0


def sum_over_processes(tensor: Tensor) -> None:
    """Replace `tensor`, in place, by its sum over all processes."""
    if distributed():
        dist.all_reduce(tensor)


def copy_from_first_process(tensor: Tensor) -> None:
    """Replace `tensor`, in place, by rank 0's."""
    if distributed():
        shared = tensor.detach().contiguous()
        dist.broadcast(shared, src=0)
        tensor.detach().copy_(shared)


def gather_rows(rows: Tensor) -> Tensor:
    """Join every process's `rows` (n, d), n differing between them, in order of rank."""
    if not distributed():
        return rows
    world_size = dist.get_world_size()
    lengths = [rows.new_zeros(1, dtype=torch.int64) for _ in range(world_size)]
    dist.all_gather(lengths, torch.full_like(lengths[0], rows.shape[0]))
    counts = [int(length) for length in lengths]
    padded = rows.new_zeros(max(counts), rows.shape[1])
    padded[: rows.shape[0]] = rows
    parts = [torch.empty_like(padded) for _ in range(world_size)]
    dist.all_gather(parts, padded)
    return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])
