"""Quantizer dropout (Kumar et al. 2023): how many codebooks each item of a batch uses."""

import torch
from torch import Tensor


def drawn_depths(
    batch: int, n_quantizers: int, dropout: float, generator: torch.Generator | None
) -> Tensor:
    """Codebooks of each item, (batch,) int64 on the CPU: all, or with probability `dropout` fewer.

    Args:
        batch: items.
        n_quantizers: all codebooks.
        dropout: 0 to 1.
        generator: source of the draws; the global CPU generator when None.
    """
    likely = chance(batch, generator)
    device = "cpu" if generator is None else generator.device
    drawn = torch.randint(1, n_quantizers + 1, (batch,), generator=generator, device=device).cpu()
    return torch.where(likely < dropout, drawn, torch.full((batch,), n_quantizers))


def chance(batch: int, generator: torch.Generator | None) -> Tensor:
    """One draw from [0, 1) an item, (batch,) on the CPU."""
    device = "cpu" if generator is None else generator.device
    return torch.rand(batch, generator=generator, device=device).cpu()
