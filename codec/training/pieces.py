"""Pieces of a batch, for judges that do not need to hear all of it."""

import torch
from torch import Tensor


def random_piece(
    real: Tensor,
    fake: Tensor,
    *,
    samples: int | None,
    share: float,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """The same random piece of the same random items of two batches.

    Args:
        real: (batch, 1, samples), or parameters (batch, rows, frames), a frame being a sample then.
        fake: shaped the same; its gradient comes back through the piece.
        samples: length of the piece, which starts alike in all items; None, or no less than there
            are: all. Nothing is drawn then.
        share: of the items, more than 0; rounded, one at least, kept in order. Nothing is drawn
            where that is all of them.
        generator: of the CPU, what is drawn comes from it alone.

    Returns:
        The pieces of both, (items, 1 or rows, samples).
    """
    batch, _, length = real.shape
    items = max(round(share * batch), 1)
    if items < batch:
        drawn = torch.randperm(batch, generator=generator)[:items].sort().values.to(real.device)
        real, fake = real[drawn], fake[drawn]
    if samples is not None and samples < length:
        start = int(torch.randint(length - samples + 1, (), generator=generator))
        real, fake = (wave[..., start : start + samples] for wave in (real, fake))
    return real, fake
