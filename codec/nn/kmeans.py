"""Nearest codes, and a k-means that leaves the codes in use exactly where they are."""

from collections.abc import Callable

import torch
from torch import Tensor

# Distances held at once (float32: 64 MiB), so that an hour of frames needs no more than a second.
_CHUNK_ELEMENTS = 1 << 24
# Two float32 vectors whose computed squared distance is below this share of their squared norms
# are taken for the same vector: what is left is rounding.
_SAME_VECTOR = 1e-6


def squared_distances(points: Tensor, centroids: Tensor) -> Tensor:
    """Squared Euclidean distances ‖x‖² + ‖e‖² − 2x·e, in float32 whatever autocast says.

    Args:
        points: (n, d), any float dtype.
        centroids: (k, d), any float dtype.

    Returns:
        (n, k) float32, never negative.
    """
    with torch.autocast(points.device.type, enabled=False):
        points, centroids = points.float(), centroids.float()
        norms = points.square().sum(1, keepdim=True) + centroids.square().sum(1)
        return torch.addmm(norms, points, centroids.T, alpha=-2).clamp_min(0)


def squared_norms(centroids: Tensor) -> Tensor:
    """‖e‖² of every row, (k,) float32: what `nearest` asks for at every call, and need not."""
    return centroids.float().square().sum(1)


def nearest(points: Tensor, centroids: Tensor, norms: Tensor | None = None) -> Tensor:
    """Index of the centroid nearest to each point, by true squared Euclidean distance in float32.

    ‖x‖² is the same for every centroid, so it is left out of the comparison.

    Args:
        points: (n, d), any float dtype.
        centroids: (k, d) with k >= 1.
        norms: their `squared_norms`; none: computed here, which for few points takes most of the
            time.

    Returns:
        (n,) int64 in 0..k-1; the first of equals.
    """
    centroids = centroids.float()
    if norms is None:
        norms = squared_norms(centroids)
    rows = max(1, _CHUNK_ELEMENTS // centroids.shape[0])
    with torch.autocast(points.device.type, enabled=False):
        parts = [
            torch.addmm(norms, part.float(), centroids.T, alpha=-2).argmin(1)
            for part in points.split(rows)
        ]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


@torch.no_grad()
def plus_plus_seeds(
    points: Tensor, live: Tensor, count: int, *, generator: torch.Generator | None = None
) -> Tensor:
    """k-means++ seeds: points drawn with probability ∝ squared distance to all rows so far.

    D² sampling of Arthur and Vassilvitskii (2007), started from rows that exist already.

    Args:
        points: (n, d) float32.
        live: (m, d) float32, m >= 0: rows that count as placed.
        count: seeds wanted.
        generator: source of the draws, on any device; the global CPU generator when None.

    Returns:
        (seeds, d) float32 with seeds <= count: fewer when every point lies on a row already.
    """
    n = points.shape[0]
    if n == 0 or count == 0:
        return points[:0]
    draws = torch.rand(count, generator=generator, device=_draw_device(generator))
    draws = draws.to(points.device)
    norms = points.square().sum(1)
    closest = torch.full_like(norms, torch.inf)
    if live.shape[0]:
        closest = _squared_distance(points, norms, live[nearest(points, live)])
    seeds: list[Tensor] = []
    for draw in draws:
        weights = closest if live.shape[0] or seeds else torch.ones_like(closest)
        cumulative = weights.cumsum(0)
        if cumulative[-1] <= 0:
            break
        chosen = torch.searchsorted(cumulative, draw * cumulative[-1], right=True)
        seed = points[chosen.clamp_max(n - 1)]
        seeds.append(seed)
        closest = torch.minimum(closest, _squared_distance(points, norms, seed))
    return torch.stack(seeds) if seeds else points[:0]


@torch.no_grad()
def frozen_kmeans(
    points: Tensor,
    centroids: Tensor,
    frozen: Tensor,
    *,
    iterations: int,
    generator: torch.Generator | None = None,
    project: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Fit the free rows to the points that the frozen rows serve worst.

    Free rows are seeded by k-means++ far from the frozen ones and from each other, then moved by
    Lloyd's iterations, in which frozen rows compete for points but stay put. With no row frozen
    this is plain k-means. The average distance from a point to its nearest row never rises over
    the iterations.

    Args:
        points: (n, d) float32.
        centroids: (k, d) float32; left as it is.
        frozen: (k,) bool.
        iterations: at most so many; fewer once no point changes its row. 0 only seeds.
        generator: source of the draws; the global CPU generator when None.
        project: brings rows back to where codes may lie, for example to the unit sphere.

    Returns:
        (k, d) float32: frozen rows bit-identical. Free rows for which there is no further point
        off every other row are left as they were.

    Raises:
        ValueError: the shapes do not fit together, or `iterations` is negative.
    """
    if points.shape[1:] != centroids.shape[1:] or frozen.shape != centroids.shape[:1]:
        raise ValueError(
            f"points {tuple(points.shape)}, centroids {tuple(centroids.shape)} and frozen "
            f"{tuple(frozen.shape)} do not fit: give (n, d), (k, d) and (k,)"
        )
    if iterations < 0:
        raise ValueError(f"iterations = {iterations}: give 0 or more")
    fixed = centroids[frozen]
    places = (~frozen).nonzero().squeeze(1)
    rows = plus_plus_seeds(points, fixed, places.shape[0], generator=generator)
    if rows.shape[0]:
        rows = _lloyd(points, rows, fixed, iterations, project)
    fitted = centroids.clone()
    fitted[places[: rows.shape[0]]] = rows.to(fitted.dtype)
    return fitted


def _lloyd(
    points: Tensor,
    rows: Tensor,
    fixed: Tensor,
    iterations: int,
    project: Callable[[Tensor], Tensor] | None,
) -> Tensor:
    """Move `rows` (m, d) to the means of the points they win from each other and from `fixed`."""
    m = rows.shape[0]
    norms = points.square().sum(1)
    rival = torch.full_like(norms, torch.inf)
    if fixed.shape[0]:
        rival = _squared_distance(points, norms, fixed[nearest(points, fixed)])
    previous = None
    for _ in range(iterations):
        owner = nearest(points, rows)
        won = _squared_distance(points, norms, rows[owner]) < rival
        owner = torch.where(won, owner, m)  # row m collects what the frozen rows keep
        if previous is not None and torch.equal(owner, previous):
            break
        previous = owner
        sums = points.new_zeros(m + 1, points.shape[1]).index_add_(0, owner, points)[:m]
        counts = points.new_zeros(m + 1).index_add_(0, owner, torch.ones_like(norms))[:m, None]
        means = sums / counts.clamp_min(1)
        rows = torch.where(counts > 0, means if project is None else project(means), rows)
    return rows


def _squared_distance(points: Tensor, norms: Tensor, rows: Tensor) -> Tensor:
    """‖x − e‖² (n,) to one row (d,) or to a row each (n, d); exactly 0 where equal to rounding."""
    with torch.autocast(points.device.type, enabled=False):
        products = points @ rows if rows.dim() == 1 else (points * rows).sum(1)
    sizes = norms + rows.square().sum(-1)
    distances = sizes - 2 * products
    return torch.where(distances > _SAME_VECTOR * sizes, distances, 0.0)


def _draw_device(generator: torch.Generator | None) -> torch.device:
    return torch.device("cpu") if generator is None else generator.device
