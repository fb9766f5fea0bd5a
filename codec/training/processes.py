"""What training processes do together: average gradients, begin alike, agree."""

from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor, nn


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replaces gradients by their mean over all processes; alone, does nothing.

    One flat all-reduce instead of DistributedDataParallel: the balancer differentiates twice
    through parts of the graph and the second stage freezes parts of the model, neither of which
    DDP's hooks allow for.
    """
    if not _many():
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))


def begin_alike(module: nn.Module) -> None:
    """Gives every process the parameters and buffers of process 0."""
    if not _many():
        return
    for tensor in [*module.parameters(), *module.buffers()]:
        dist.broadcast(tensor.data, src=0)


def any_process(flag: bool, device: torch.device) -> bool:
    """Whether any process says so; every process has to ask at the same step."""
    if not _many():
        return flag
    votes: Tensor = torch.tensor(float(flag), device=device)
    dist.all_reduce(votes, op=dist.ReduceOp.MAX)
    return bool(votes.item())


def _many() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
