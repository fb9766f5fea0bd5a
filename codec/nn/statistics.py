"""What training remembers of a codebook: hits, moving averages, and its most recent vectors."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

_MOST_POWER = 0.9  # that dimensions in use hold

Learning = Literal["ema", "gradient"]


class VectorCache(nn.Module):
    """A ring of the most recent vectors, all of it in the state_dict.

    Args:
        size: vectors kept.
        dimension: of each.
    """

    vectors: Tensor
    filled: Tensor
    position: Tensor

    def __init__(self, size: int, dimension: int) -> None:
        super().__init__()
        self.register_buffer("vectors", torch.zeros(size, dimension))
        self.register_buffer("filled", torch.zeros((), dtype=torch.int64))
        self.register_buffer("position", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def append(self, vectors: Tensor, keep: Tensor | None = None) -> None:
        """Add `vectors` (n, dimension), evenly spaced ones of them if n exceeds the size.

        Args:
            vectors: float32.
            keep: 0-dimensional bool; where False nothing changes (and no device is waited for).
        """
        size = self.vectors.shape[0]
        vectors = evenly_spaced(vectors.detach(), size)
        rows = (self.position + torch.arange(vectors.shape[0], device=vectors.device)) % size
        added = torch.full_like(self.position, vectors.shape[0])
        if keep is not None:
            vectors = torch.where(keep, vectors, self.vectors[rows])
            added = added * keep
        self.vectors.index_copy_(0, rows, vectors)
        self.position.copy_((self.position + added) % size)
        self.filled.copy_((self.filled + added).clamp_max(size))

    def contents(self) -> Tensor:
        """The vectors held, (filled, dimension), oldest first."""
        if int(self.filled) < self.vectors.shape[0]:
            return self.vectors[: int(self.filled)]
        return self.vectors.roll(-int(self.position), 0)


@dataclass
class Revival:
    """Which rows `revive_dead_codes` replaced.

    Attributes:
        rows: for each codebook (codebook_size,) bool.
    """

    rows: list[Tensor]

    @property
    def per_layer(self) -> list[int]:
        """Rows replaced in each codebook."""
        return [int(rows.sum()) for rows in self.rows]

    @property
    def total(self) -> int:
        """Rows replaced in all codebooks."""
        return sum(self.per_layer)


@dataclass
class CodebookUsage:
    """How evenly a codebook is used.

    Attributes:
        perplexity: exp of the entropy (nats) of the codes, 1 to codebook_size; 0 if none was seen.
        used: share of the rows with at least one hit, 0 to 1.
    """

    perplexity: float
    used: float


class CodebookStatistics(nn.Module):
    """What only training needs of a codebook; none of it goes into a model file.

    Buffers: `initialized` () bool; `hits` (codebook_size,) int64, vectors per row since the last
    reset, over all processes; `cache`; and for EMA codebooks `sum` (codebook_size, dimension) and
    `count` (codebook_size,), moving averages of each row's vectors and hits in one step.
    """

    initialized: Tensor
    hits: Tensor
    sum: Tensor
    count: Tensor

    def __init__(
        self, *, codebook_size: int, dimension: int, cache_vectors: int, learning: Learning
    ) -> None:
        super().__init__()
        self.register_buffer("initialized", torch.zeros((), dtype=torch.bool))
        self.register_buffer("hits", torch.zeros(codebook_size, dtype=torch.int64))
        if learning == "ema":
            self.register_buffer("sum", torch.zeros(codebook_size, dimension))
            self.register_buffer("count", torch.zeros(codebook_size))
        self.cache = VectorCache(cache_vectors, dimension)


def evenly_spaced(vectors: Tensor, limit: int) -> Tensor:
    """At most `limit` of `vectors` (n, d), evenly spaced: (min(n, limit), d)."""
    n = vectors.shape[0]
    if n <= limit:
        return vectors
    return vectors[torch.arange(limit, device=vectors.device) * n // limit]


def usage_of(hits: Tensor) -> CodebookUsage:
    """Of a codebook whose rows were hit so often, (codebook_size,)."""
    hits = hits.cpu().double()  # MPS has no float64
    shares = hits / hits.sum().clamp_min(1)
    entropy = torch.special.entr(shares).sum()
    perplexity = float(entropy.exp()) if bool(hits.any()) else 0.0
    return CodebookUsage(perplexity, float((hits > 0).double().mean()))


def dimensions_in_use(vectors: Tensor) -> int:
    """Principal components that hold 90 % of the power of vectors (n, d); 0 for fewer than two."""
    if len(vectors) < 2:
        return 0
    powers = torch.linalg.eigvalsh(torch.cov(vectors.double().cpu().T)).flip(0).cumsum(0)
    return int((powers < _MOST_POWER * powers[-1]).sum()) + 1
