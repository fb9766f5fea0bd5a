"""One codebook: nearest rows, learning by EMA or by gradient, and the revival of dead rows."""

from dataclasses import dataclass
from typing import get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codec.nn.collectives import copy_from_first_process, gather_rows, is_first_process
from codec.nn.kmeans import frozen_kmeans, nearest, squared_distances, squared_norms
from codec.nn.start import normal
from codec.nn.statistics import CodebookStatistics, Learning

# An EMA row that is not hit keeps its place; below this count its sum and count stop shrinking
# too, or they would end as denormal numbers, which are slow, and then as 0 / 0.
_SMALLEST_COUNT = 1e-8
# Rows that start from the same vector are this far apart, relative to its size.
_JITTER = 0.01


@dataclass
class Lookup:
    """What one codebook makes of n residual vectors.

    Attributes:
        codes: (n,) int64.
        vectors: (n, codebook dimension) float32, the residuals in codebook space, detached.
        quantized: (n, dimension) float32. Its gradient reaches the projections (straight-through
            inside codebook space), never the residual.
        commitment: scalar, summed over vectors and averaged over the codebook dimension; its
            gradient reaches the residual.
        codebook_loss: scalar, likewise; its gradient reaches the rows. 0 for EMA.
    """

    codes: Tensor
    vectors: Tensor
    quantized: Tensor
    commitment: Tensor
    codebook_loss: Tensor


class VectorQuantizer(nn.Module):
    """A codebook with its statistics, and optional projections into a space of its own.

    Args:
        dimension: of the vectors to quantize.
        codebook_size: rows.
        codebook_dimension: of the rows; None for `dimension`. When given, linear layers lead into
            codebook space and back (factorised codes: Yu et al. 2022, Kumar et al. 2023). They
            begin as an orthogonal projection and its transpose.
        l2_normalize: rows and vectors lie on the unit sphere, so that the nearest row is that of
            the largest cosine. Implies the projections, which carry the magnitude.
        learning: "ema", rows are moving averages of their vectors (van den Oord et al. 2017,
            appendix A.1); "gradient", rows are a parameter trained by `Lookup.codebook_loss`.
        decay: of the moving averages per step, 0 <= decay < 1.
        cache_vectors: recent vectors kept for k-means.

    `codebook` (codebook_size, codebook_dimension) is a buffer for EMA and a parameter otherwise.

    Raises:
        ValueError: an argument is out of range.
    """

    codebook: Tensor

    def __init__(
        self,
        *,
        dimension: int,
        codebook_size: int,
        codebook_dimension: int | None = None,
        l2_normalize: bool = False,
        learning: Learning = "ema",
        decay: float = 0.99,
        cache_vectors: int = 8192,
    ) -> None:
        super().__init__()
        width = dimension if codebook_dimension is None else codebook_dimension
        sizes = {
            "dimension": dimension,
            "codebook_size": codebook_size,
            "codebook_dimension": width,
            "cache_vectors": cache_vectors,
        }
        for name, size in sizes.items():
            if size < 1:
                raise ValueError(f"{name} = {size}: give 1 or more")
        if learning not in get_args(Learning):
            raise ValueError(
                f"learning = {learning!r}: give one of {', '.join(get_args(Learning))}"
            )
        if not 0 <= decay < 1:
            raise ValueError(f"decay = {decay}: give 0 <= decay < 1")
        self.learning = learning
        self.decay = decay
        self.l2_normalize = l2_normalize
        self.project_in: nn.Linear | None = None
        self.project_out: nn.Linear | None = None
        if codebook_dimension is not None or l2_normalize:
            self.project_in, self.project_out = _projections(dimension, width)
        rows = self._place(normal(codebook_size, width))
        if learning == "gradient":
            self.codebook = nn.Parameter(rows)
        else:
            self.register_buffer("codebook", rows)
        self.statistics = CodebookStatistics(
            codebook_size=codebook_size,
            dimension=width,
            cache_vectors=cache_vectors,
            learning=learning,
        )

    def rows(self) -> Tensor:
        """The rows codes stand for, (codebook_size, codebook_dimension)."""
        return self._place(self.codebook) if self.learning == "gradient" else self.codebook

    def squared_norms(self) -> Tensor:
        """Of the rows, (codebook_size,) float32: for `encode`, as long as the rows stay."""
        return squared_norms(self.rows())

    def encode(self, vectors: Tensor, norms: Tensor | None = None) -> Tensor:
        """Codes (n,) int64 of `vectors` (n, dimension) float32; `norms` are `squared_norms`."""
        return nearest(self._enter(vectors), self.rows(), norms)

    def decode(self, codes: Tensor) -> Tensor:
        """Vectors (..., dimension) of `codes` (...) int64."""
        return self._leave(F.embedding(codes, self.rows()))

    def forward(self, residual: Tensor) -> Lookup:
        """Quantize `residual` (n, dimension) float32; see `Lookup`."""
        vectors = self._enter(residual)
        rows = self.rows()
        codes = nearest(vectors.detach(), rows.detach())
        chosen = F.embedding(codes, rows)
        width = rows.shape[1]
        commitment = F.mse_loss(vectors, chosen.detach(), reduction="sum") / width
        codebook_loss = torch.zeros_like(commitment)
        if self.learning == "gradient":
            codebook_loss = F.mse_loss(chosen, vectors.detach(), reduction="sum") / width
        chosen = chosen.detach()
        if self.project_in is not None and torch.is_grad_enabled():
            entered = self._enter(residual.detach())
            chosen = chosen + (entered - entered.detach())
        return Lookup(codes, vectors.detach(), self._leave(chosen), commitment, codebook_loss)

    @torch.no_grad()
    def initialize(self, points: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Start the rows from random ones of `points`, and return what they leave over.

        With fewer points than rows, rows share a point and differ by a small jitter.

        Args:
            points: (n, dimension) float32, n >= 1.
            generator: source of the draws; the global CPU generator when None.

        Returns:
            (n, dimension): each point less the nearest row *that did not start from it*. Its own
            row would leave nothing over, and the next codebook would start around zero.
        """
        raw = points if self.project_in is None else self.project_in(points)
        if self.l2_normalize and self.project_out is not None:
            size = raw.norm(dim=1).mean()  # unit rows leave it to the projection
            self.project_out.weight.mul_(torch.where(size > 0, size, 1.0))
        vectors = self._place(raw)
        n, k = vectors.shape[0], self.codebook.shape[0]
        device = "cpu" if generator is None else generator.device
        order = torch.randperm(n, generator=generator, device=device)
        sources = order.repeat(k // n + 1)[:k].to(points.device)
        rows = vectors[sources]
        if k > n:
            noise = torch.randn(k - n, rows.shape[1], generator=generator, device=device)
            scale = _JITTER * rows.square().mean(1, keepdim=True).sqrt()
            rows[n:] += scale[n:] * noise.to(rows.device)
        rows = self._place(rows)
        self.codebook.copy_(rows)
        if self.learning == "ema":
            # The average step brings n / k vectors to a row: the count it would settle at.
            self._set_averages(torch.full_like(self.statistics.count, n / k))
        distances = squared_distances(vectors, rows)
        own = sources == torch.arange(n, device=points.device)[:, None]
        other = distances.masked_fill(own & (n > 1), torch.inf).argmin(1)
        return points - self.decode(other)

    @torch.no_grad()
    def fit(
        self, points: Tensor, *, iterations: int, generator: torch.Generator | None = None
    ) -> Tensor:
        """Fit the rows to `points` (n, dimension) by k-means; for several points a row.

        Returns:
            (n, dimension): each point less its nearest row.
        """
        self.initialize(points, generator)
        vectors = self._enter(points)
        nothing = torch.zeros(self.codebook.shape[0], dtype=torch.bool, device=points.device)
        rows = frozen_kmeans(
            vectors,
            self.codebook,
            nothing,
            iterations=iterations,
            generator=generator,
            project=self._place,
        )
        self.codebook.copy_(rows)
        owners = nearest(vectors, rows)
        if self.learning == "ema":
            hits = torch.bincount(owners, minlength=rows.shape[0]).to(rows)
            self._set_averages(hits.clamp_min(1))
        return points - self.decode(owners)

    @torch.no_grad()
    def learn(self, hits: Tensor, sums: Tensor | None) -> None:
        """Take in one step's statistics, those of all processes together.

        Only rows that were hit are written: their average is over at least one vector, so no
        smoothing constant is needed and none biases them.

        Args:
            hits: (codebook_size,) float32, vectors per row.
            sums: (codebook_size, codebook_dimension) float32, their sums; None if not EMA.
        """
        statistics = self.statistics
        statistics.hits += hits.long()
        if sums is None:
            return
        decay = torch.where(statistics.count < _SMALLEST_COUNT, 1.0, self.decay)
        statistics.count.mul_(decay).add_(hits, alpha=1 - self.decay)
        statistics.sum.mul_(decay[:, None]).add_(sums, alpha=1 - self.decay)
        hit = hits > 0
        averages = statistics.sum / torch.where(hit, statistics.count, 1.0)[:, None]
        self.codebook.copy_(torch.where(hit[:, None], self._place(averages), self.codebook))

    @torch.no_grad()
    def revive(
        self,
        *,
        iterations: int,
        dead_below: int,
        vectors_per_code: float,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Frozen k-means over the cache; see `ResidualVectorQuantizer.revive_dead_codes`.

        Returns:
            (codebook_size,) bool, True for the rows that were replaced. Equal on every process.
        """
        statistics = self.statistics
        dead = statistics.hits < dead_below
        revived = torch.zeros_like(dead)
        seen = int(statistics.hits.sum())
        if not bool(statistics.initialized) or seen < vectors_per_code * dead.shape[0]:
            return revived  # too little seen to call any row dead: go on counting
        statistics.hits.zero_()
        if not bool(dead.any()):
            return revived
        points = gather_rows(statistics.cache.contents())
        if is_first_process() and points.shape[0]:
            revived = self._revive_from(points, dead, iterations, generator)
        self.copy_codebook_from_first_process()
        copy_from_first_process(revived)
        return revived

    def _revive_from(
        self, points: Tensor, dead: Tensor, iterations: int, generator: torch.Generator | None
    ) -> Tensor:
        rows = self.rows()
        fitted = frozen_kmeans(
            points,
            rows,
            ~dead,
            iterations=iterations,
            generator=generator,
            project=self._place,
        )
        owners = nearest(points, fitted)
        owned = torch.zeros_like(fitted[:, 0]).index_add_(
            0, owners, torch.ones_like(owners, dtype=fitted.dtype)
        )
        revived = dead & (owned > 0)
        self.codebook.copy_(torch.where(revived[:, None], fitted, self.codebook))
        if self.learning == "ema":
            # The count a row with this share of the vectors would settle at, and no less than
            # the average row's, so that a few hits do not carry the row off again.
            count = self.statistics.count
            share = (owned / points.shape[0]).clamp_min(1 / dead.shape[0])
            self._set_averages(torch.where(revived, share * count.sum(), count), revived)
        return revived

    def copy_codebook_from_first_process(self) -> None:
        """Make parameters, rows and their averages those of rank 0."""
        tensors: list[Tensor] = list(self.parameters())
        if self.learning == "ema":
            tensors += [self.codebook, self.statistics.sum, self.statistics.count]
        for tensor in tensors:
            copy_from_first_process(tensor)

    def _set_averages(self, count: Tensor, where: Tensor | None = None) -> None:
        """Set count *and* sum so that sum / count is the row, everywhere or only `where`."""
        total = self.codebook * count[:, None]
        if where is not None:
            total = torch.where(where[:, None], total, self.statistics.sum)
        self.statistics.count.copy_(count)
        self.statistics.sum.copy_(total)

    def _enter(self, vectors: Tensor) -> Tensor:
        return vectors if self.project_in is None else self._place(self.project_in(vectors))

    def _leave(self, rows: Tensor) -> Tensor:
        return rows if self.project_out is None else self.project_out(rows)

    def _place(self, rows: Tensor) -> Tensor:
        """Bring rows to where codes may lie: the unit sphere, or anywhere."""
        return F.normalize(rows, dim=-1) if self.l2_normalize else rows

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args: object) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args)
        if f"{prefix}statistics.initialized" in state_dict or f"{prefix}codebook" not in state_dict:
            return
        # A model file: no statistics, but rows that training must go on from, not start over.
        self.statistics.initialized.fill_(True)
        if self.learning == "ema":
            with torch.no_grad():
                self._set_averages(torch.ones_like(self.statistics.count))


def reset_moments(optimizer: torch.optim.Optimizer, parameter: Tensor, rows: Tensor) -> None:
    """Forget what the optimizer knows of some rows of a parameter, after they were replaced.

    Every state of the parameter's own shape (Adam's moments, SGD's momentum) is set to 0 there;
    otherwise the next steps would carry new rows along the old ones' directions.

    Args:
        optimizer: any torch optimizer; nothing happens if it does not hold the parameter.
        parameter: (k, ...).
        rows: (k,) bool.
    """
    for value in optimizer.state.get(parameter, {}).values():
        if isinstance(value, Tensor) and value.shape == parameter.shape:
            value[rows.to(value.device)] = 0


def _projections(dimension: int, width: int) -> tuple[nn.Linear, nn.Linear]:
    enter, leave = nn.Linear(dimension, width), nn.Linear(width, dimension)
    if enter.weight.is_meta:
        return enter, leave
    nn.init.orthogonal_(enter.weight)
    with torch.no_grad():
        leave.weight.copy_(enter.weight.T)
    for layer in (enter, leave):
        nn.init.zeros_(layer.bias)
    return enter, leave
