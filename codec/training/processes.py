"""What training processes do together: average gradients, begin alike, agree."""

from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import nn

from codec.nn.collectives import copy_from_first_process, distributed, sum_over_processes


def usable_precision(wanted: str) -> str:
    """What Accelerator gets for `training.mixed_precision`: "auto" becomes "bf16" or "no".

    On a CPU without bf16 instructions a step in bf16 took eight times as long as in fp32.
    """
    if wanted != "auto":
        return wanted
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "no"
    if torch.accelerator.is_available():
        return "no"
    capable = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bf16" if capable else "no"


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replaces gradients by their mean over all processes; alone, does nothing.

    One flat all-reduce instead of DistributedDataParallel: the balancer differentiates twice
    through parts of the graph and the second stage freezes parts of the model, neither of which
    DDP's hooks allow for.
    """
    if not distributed():
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
    sum_over_processes(flat)
    flat /= dist.get_world_size()
    for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))


def begin_alike(module: nn.Module) -> None:
    """Gives every process the parameters and buffers of process 0."""
    for tensor in [*module.parameters(), *module.buffers()]:
        copy_from_first_process(tensor)


def any_process(flag: bool, device: torch.device) -> bool:
    """Whether any process says so; every process has to ask at the same step."""
    if not distributed():
        return flag
    votes = torch.tensor(float(flag), device=device)
    sum_over_processes(votes)
    return bool(votes.item() > 0)
