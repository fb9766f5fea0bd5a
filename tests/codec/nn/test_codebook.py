import math
from typing import Any

import pytest
import torch
from torch import Tensor

from codec.nn.codebook import VectorQuantizer, reset_moments

KINDS: dict[str, dict[str, Any]] = {
    "ema": {},
    "gradient": {"learning": "gradient"},
    "factorised": {"codebook_dimension": 4},
    "cosine": {"codebook_dimension": 4, "l2_normalize": True},
    "cosine gradient": {"l2_normalize": True, "learning": "gradient"},
}
every_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make(**settings: Any) -> VectorQuantizer:
    torch.manual_seed(0)
    given = {"dimension": 6, "codebook_size": 16, "cache_vectors": 256} | settings
    return VectorQuantizer(**given)


def started(points: Tensor, **settings: Any) -> VectorQuantizer:
    layer = make(**settings)
    layer.initialize(points, generator())
    layer.statistics.initialized.fill_(True)
    return layer


def teach(layer: VectorQuantizer, points: Tensor) -> None:
    """One EMA step on `points`, as the residual quantizer makes it."""
    with torch.no_grad():
        found = layer(points)
    k = layer.codebook.shape[0]
    hits = torch.zeros(k).index_add_(0, found.codes, torch.ones(len(points)))
    sums = torch.zeros_like(layer.codebook).index_add_(0, found.codes, found.vectors)
    layer.learn(hits, sums if layer.learning == "ema" else None)
    layer.statistics.cache.append(found.vectors)


def kill(layer: VectorQuantizer, rows: Tensor) -> None:
    """Put rows where nothing hits them."""
    with torch.no_grad():
        layer.codebook[rows] = 100.0 + torch.arange(len(rows))[:, None]
        if layer.learning == "ema":
            layer.statistics.sum[rows] = layer.codebook[rows] * layer.statistics.count[rows, None]


def loss(layer: VectorQuantizer, points: Tensor) -> float:
    return (points - layer.decode(layer.encode(points))).square().mean().item()


@every_kind
def test_forward_encode_and_decode_agree(kind: dict[str, Any]) -> None:
    points = torch.randn(50, 6, generator=generator())
    layer = started(points, **kind)
    found = layer(points)
    assert torch.equal(found.codes, layer.encode(points))
    torch.testing.assert_close(found.quantized, layer.decode(found.codes))
    assert torch.equal(
        layer.decode(found.codes.view(5, 10)).flatten(0, 1), layer.decode(found.codes)
    )


@every_kind
def test_rows_start_from_vectors_of_the_batch(kind: dict[str, Any]) -> None:
    points = torch.randn(100, 6, generator=generator())
    layer = started(points, **kind)
    vectors = layer(points).vectors
    distances = (layer.rows()[:, None] - vectors).square().sum(2).min(1)
    torch.testing.assert_close(distances.values, torch.zeros(16), atol=1e-8, rtol=0)
    assert len(set(distances.indices.tolist())) == 16


@pytest.mark.parametrize("n", [1, 5, 16, 40], ids=lambda n: f"{n} vectors")
def test_start_with_fewer_vectors_than_rows_and_what_it_leaves_over(n: int) -> None:
    points = torch.randn(n, 6, generator=generator())
    layer = make()
    left = layer.initialize(points, generator())
    assert len({tuple(row) for row in layer.codebook.tolist()}) == 16  # jitter tells them apart
    nearest_row = (points[:, None] - layer.codebook).norm(dim=2).min(1).values
    if n <= 16:
        assert nearest_row.max() < 0.1  # every vector started a row
    if n > 1:  # but what is left over is measured against the others' rows
        assert left.norm(dim=1).min() > 0.5
    assert bool(left.isfinite().all())


@pytest.mark.parametrize("l2_normalize", [False, True], ids=["euclidean", "cosine"])
def test_first_update_keeps_each_row_at_its_average(l2_normalize: bool) -> None:
    """sum = row × count from the start: a row moves towards its vectors, it does not shrink."""
    points = torch.randn(200, 6, generator=generator()) + 3
    layer = started(points, l2_normalize=l2_normalize, decay=0.9)
    before, count = layer.codebook.clone(), layer.statistics.count.clone()
    with torch.no_grad():
        found = layer(points)
    teach(layer, points)
    for row in range(16):
        mine = found.vectors[found.codes == row]
        expected = 0.9 * count[row] * before[row] + 0.1 * mine.sum(0)
        expected = expected / (
            expected.norm() if l2_normalize else 0.9 * count[row] + 0.1 * len(mine)
        )
        torch.testing.assert_close(layer.codebook[row], expected)


def test_rows_settle_at_the_mean_of_their_vectors() -> None:
    points = torch.randn(400, 2, generator=generator())
    layer = started(points, dimension=2, codebook_size=5, decay=0.8)
    for _ in range(200):
        teach(layer, points)
    codes = layer.encode(points)
    means = torch.stack([points[codes == row].mean(0) for row in range(5)])
    torch.testing.assert_close(layer.codebook, means, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(layer.statistics.count, codes.bincount(minlength=5).float())


def test_rows_without_hits_never_move_and_never_divide_by_zero() -> None:
    points = torch.randn(100, 6, generator=generator())
    layer = started(points, decay=0.5)
    kill(layer, torch.tensor([2, 3]))
    before = layer.codebook.clone()
    for _ in range(400):  # 0.5 ** 400 is no float32
        teach(layer, points)
    assert torch.equal(layer.codebook[2:4], before[2:4])
    assert layer.statistics.count[2:4].min() > 1e-9  # neither 0 nor denormal
    teach(layer, torch.full((1, 6), 100.2))
    assert bool(layer.codebook.isfinite().all())
    torch.testing.assert_close(layer.codebook[2], torch.full((6,), 100.2))


@pytest.mark.parametrize("hit", [True, False], ids=["with hits", "without hits"])
def test_a_revived_row_survives_the_next_update(hit: bool) -> None:
    points = torch.randn(400, 6, generator=generator())
    layer = started(points)
    dead = torch.tensor([1, 4, 9])
    kill(layer, dead)
    before = loss(layer, points)
    teach(layer, points)
    revived = layer.revive(iterations=10, dead_below=1, vectors_per_code=1, generator=generator())
    assert revived.nonzero().flatten().tolist() == dead.tolist()
    assert loss(layer, points) < before
    placed, count = layer.codebook[dead].clone(), layer.statistics.count[dead].clone()
    torch.testing.assert_close(layer.statistics.sum[dead], placed * count[:, None])
    fresh = torch.randn(400, 6, generator=generator(1))
    codes = layer.encode(fresh)
    if not hit:
        fresh = fresh[~torch.isin(codes, dead)]
    else:
        assert bool(torch.isin(dead, codes).all())
    teach(layer, fresh)
    moved = (layer.codebook[dead] - placed).norm(dim=1)
    assert moved.max() < 0.1 * math.sqrt(6)
    if not hit:
        assert moved.max() == 0


def test_a_revived_row_survives_adam_with_its_moments_reset() -> None:
    points = torch.randn(400, 6, generator=generator())
    layer = started(points, learning="gradient")
    layer.codebook = torch.nn.Parameter(layer.codebook.detach())
    optimizer = torch.optim.Adam([layer.codebook], lr=0.01)
    dead = torch.tensor([1, 4])
    kill(layer, dead)
    layer.codebook.grad = torch.zeros_like(layer.codebook)
    layer.codebook.grad[dead] = 1e3  # moments that have nothing to do with the new rows
    layer.codebook.grad[0] = 1.0
    optimizer.step()
    teach(layer, points)
    rows = layer.revive(iterations=5, dead_below=1, vectors_per_code=1, generator=generator())
    assert rows[dead].all()
    reset_moments(optimizer, layer.codebook, rows)
    state = optimizer.state[layer.codebook]
    assert state["exp_avg"][rows].count_nonzero() == 0
    assert state["exp_avg_sq"][rows].count_nonzero() == 0
    assert state["exp_avg"][0].count_nonzero() == 6
    placed = layer.codebook.detach().clone()
    layer.codebook.grad = torch.zeros_like(layer.codebook)
    optimizer.step()
    assert torch.equal(layer.codebook[dead], placed[dead])
    assert not torch.equal(layer.codebook[0], placed[0])


@every_kind
def test_live_rows_are_bit_identical_after_a_revival(kind: dict[str, Any]) -> None:
    points = torch.randn(400, 6, generator=generator())
    layer = started(points, **kind)
    if kind.get("l2_normalize"):  # a double never wins against the first of equals
        with torch.no_grad():
            layer.codebook[12:] = layer.codebook[:4]
    else:
        kill(layer, torch.arange(12, 16))
    teach(layer, points)
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    live = layer.statistics.hits >= 1
    revived = layer.revive(iterations=10, dead_below=1, vectors_per_code=1, generator=generator())
    assert revived.sum() == 4
    assert not (revived & live).any()
    names = ["codebook"]
    if layer.learning == "ema":
        names += ["statistics.sum", "statistics.count"]
    for name in names:
        assert torch.equal(layer.state_dict()[name][~revived], before[name][~revived]), name
        assert not torch.equal(layer.state_dict()[name][revived], before[name][revived]), name
    if kind.get("l2_normalize"):
        torch.testing.assert_close(layer.rows().norm(dim=1), torch.ones(16))


def test_cool_down_leaves_a_layer_alone_that_has_seen_little() -> None:
    points = torch.randn(100, 6, generator=generator())
    layer = started(points)
    kill(layer, torch.tensor([0]))
    teach(layer, points)
    options = {"iterations": 5, "dead_below": 1, "generator": generator()}
    assert not layer.revive(vectors_per_code=8, **options).any()  # 100 < 8 * 16
    assert layer.statistics.hits.sum() == 100  # and goes on counting
    teach(layer, points)
    assert layer.revive(vectors_per_code=8, **options).sum() == 1
    assert layer.statistics.hits.sum() == 0
    assert not layer.revive(vectors_per_code=8, **options).any()  # not again at once


def test_rows_stay_dead_where_there_is_nothing_to_revive_them_from() -> None:
    points = torch.randn(3, 6, generator=generator()).repeat(20, 1)
    layer = started(points)
    with torch.no_grad():
        layer.codebook[:3] = points[:3]
    kill(layer, torch.arange(3, 16))
    before = layer.codebook.clone()
    teach(layer, points)
    layer.codebook.copy_(before)
    assert not layer.revive(iterations=5, dead_below=1, vectors_per_code=1).any()
    assert torch.equal(layer.codebook, before)


def test_training_goes_on_from_a_state_without_statistics() -> None:
    layer = started(torch.randn(100, 6, generator=generator()))
    weights = {k: v for k, v in layer.state_dict().items() if "statistics." not in k}
    other = make()
    other.load_state_dict(weights, strict=False)
    assert bool(other.statistics.initialized)
    assert torch.equal(other.codebook, layer.codebook)
    torch.testing.assert_close(
        other.statistics.sum, other.codebook * other.statistics.count[:, None]
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dimension": 0}, "dimension = 0"),
        ({"codebook_size": 0}, "codebook_size = 0"),
        ({"codebook_dimension": -1}, "codebook_dimension = -1"),
        ({"cache_vectors": 0}, "cache_vectors = 0"),
        ({"decay": 1.0}, "decay = 1.0"),
        ({"learning": "sgd"}, "learning = 'sgd'.*ema, gradient"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_values_out_of_range_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**settings)
