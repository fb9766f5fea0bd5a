import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from codec.nn import kmeans
from codec.nn.kmeans import frozen_kmeans, nearest, plus_plus_seeds, squared_distances


def brute_force(points: Tensor, centroids: Tensor) -> Tensor:
    return (points.double()[:, None] - centroids.double()).square().sum(2)


def mean_distance(points: Tensor, centroids: Tensor) -> float:
    return brute_force(points, centroids).min(1).values.mean().item()


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def blobs(count: int, per_blob: int = 40, dimension: int = 5) -> tuple[Tensor, Tensor]:
    centres = 20 * torch.randn(count, dimension, generator=generator(1))
    noise = 0.1 * torch.randn(count, per_blob, dimension, generator=generator(2))
    return (centres[:, None] + noise).flatten(0, 1), centres


@pytest.mark.parametrize("spread", [0.0, 2.0], ids=["equal norms", "norms from 0.01 to 100"])
def test_nearest_equals_brute_force_in_float64(spread: float) -> None:
    draw = generator()

    def rows(count: int) -> Tensor:
        exponents = spread * (2 * torch.rand(count, 1, generator=draw) - 1)
        return torch.randn(count, 16, generator=draw) * 10.0**exponents

    points, centroids = rows(2000), rows(300)
    assert torch.equal(nearest(points, centroids), brute_force(points, centroids).argmin(1))


def test_squared_distances_equal_brute_force() -> None:
    points, centroids = torch.randn(50, 8, generator=generator()), torch.randn(20, 8)
    expected = brute_force(points, centroids).float()
    torch.testing.assert_close(squared_distances(points, centroids), expected)


def test_distances_are_float32_under_autocast() -> None:
    points = torch.randn(200, 32, generator=generator())
    centroids = torch.randn(64, 32, generator=generator(1))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        distances, codes = squared_distances(points, centroids), nearest(points, centroids)
    assert distances.dtype == torch.float32
    assert torch.equal(codes, brute_force(points, centroids).argmin(1))


def test_nearest_in_chunks_is_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    points, centroids = torch.randn(101, 4, generator=generator()), torch.randn(10, 4)
    whole = nearest(points, centroids)
    monkeypatch.setattr(kmeans, "_CHUNK_ELEMENTS", 70)
    assert torch.equal(nearest(points, centroids), whole)


@pytest.mark.parametrize("n_live", [0, 4], ids=["no live rows", "4 live rows"])
def test_seeds_spread_over_blobs_that_no_live_row_serves(n_live: int) -> None:
    points, centres = blobs(12)
    seeds = plus_plus_seeds(points, centres[:n_live], 12 - n_live, generator=generator())
    blob_of_seed = nearest(seeds, centres)
    assert sorted(blob_of_seed.tolist()) == list(range(n_live, 12))


def test_seeds_are_points_and_no_more_than_distinct_ones() -> None:
    points = torch.randn(3, 4, generator=generator()).repeat(5, 1)
    seeds = plus_plus_seeds(points, points[:1], 10, generator=generator())
    assert seeds.shape == (2, 4)
    assert mean_distance(seeds, points) == 0


def test_kmeans_lowers_the_average_quantization_loss() -> None:
    points = torch.randn(600, 6, generator=generator())
    start = torch.randn(30, 6, generator=generator(1))
    free = torch.zeros(30, dtype=torch.bool)
    losses = [
        mean_distance(
            points, frozen_kmeans(points, start, free, iterations=n, generator=generator())
        )
        for n in (0, 1, 2, 5, 20)
    ]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.9 * losses[0] < 0.9 * mean_distance(points, start)


def test_converged_rows_are_the_means_of_their_points() -> None:
    points = torch.randn(300, 4, generator=generator())
    rows = frozen_kmeans(
        points,
        torch.zeros(8, 4),
        torch.zeros(8, dtype=torch.bool),
        iterations=200,
        generator=generator(),
    )
    owners = nearest(points, rows)
    means = torch.stack([points[owners == row].mean(0) for row in range(8)])
    torch.testing.assert_close(rows, means)


def test_frozen_rows_are_bit_identical_and_compete_for_points() -> None:
    points, centres = blobs(10)
    frozen = torch.arange(10) % 2 == 0
    start = torch.where(frozen[:, None], centres + 0.3, torch.full_like(centres, 1e3))
    rows = frozen_kmeans(points, start, frozen, iterations=10, generator=generator())
    assert torch.equal(rows[frozen], start[frozen])
    # Each free row ends in a blob of its own: the frozen rows keep theirs though not centred.
    assert sorted(nearest(rows[~frozen], centres).tolist()) == [1, 3, 5, 7, 9]
    assert mean_distance(centres[1::2], rows[~frozen]) < 0.01


def test_rows_without_a_further_point_stay_as_they_were() -> None:
    points = torch.randn(2, 3, generator=generator()).repeat(4, 1)
    start = torch.full((5, 3), 7.0)
    free = torch.zeros(5, dtype=torch.bool)
    rows = frozen_kmeans(points, start, free, iterations=3, generator=generator())
    assert mean_distance(points, rows[:2]) < 1e-12
    assert torch.equal(rows[2:], start[2:])


def test_project_keeps_rows_on_the_sphere() -> None:
    points = F.normalize(torch.randn(200, 4, generator=generator()), dim=1)
    rows = frozen_kmeans(
        points,
        torch.zeros(6, 4),
        torch.zeros(6, dtype=torch.bool),
        iterations=5,
        generator=generator(),
        project=lambda rows: F.normalize(rows, dim=1),
    )
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(6))


@given(n=st.integers(0, 30), k=st.integers(1, 12), d=st.integers(1, 5), seed=st.integers(0, 10_000))
@settings(deadline=None, max_examples=40)
def test_any_shape_gives_finite_rows_and_no_higher_loss(n: int, k: int, d: int, seed: int) -> None:
    draw = generator(seed)
    points, start = torch.randn(n, d, generator=draw), torch.randn(k, d, generator=draw)
    frozen = torch.rand(k, generator=draw) < 0.5
    seeded, moved = (
        frozen_kmeans(points, start, frozen, iterations=n_iter, generator=generator(seed))
        for n_iter in (0, 4)
    )
    assert moved.shape == (k, d)
    assert bool(moved.isfinite().all())
    assert torch.equal(moved[frozen], start[frozen])
    if n:
        assert mean_distance(points, moved) <= mean_distance(points, seeded) + 1e-5


def test_shapes_that_do_not_fit_are_refused() -> None:
    points, rows = torch.zeros(4, 3), torch.zeros(2, 2)
    with pytest.raises(ValueError, match=r"\(4, 3\).*\(2, 2\)"):
        frozen_kmeans(points, rows, torch.zeros(2, dtype=torch.bool), iterations=1)
    with pytest.raises(ValueError, match="iterations = -1"):
        frozen_kmeans(points, points, torch.zeros(4, dtype=torch.bool), iterations=-1)
