import pytest
import torch

from codec.nn.statistics import VectorCache, evenly_spaced


def numbered(start: int, count: int) -> torch.Tensor:
    return torch.arange(start, start + count, dtype=torch.float32)[:, None].repeat(1, 3)


@pytest.mark.parametrize("batch", [1, 3, 4, 7, 10])
def test_cache_concatenates_and_keeps_its_length(batch: int) -> None:
    cache = VectorCache(10, 3)
    assert cache.contents().shape == (0, 3)
    for step in range(12):
        cache.append(numbered(step * batch, batch))
        seen = numbered(0, (step + 1) * batch)
        assert torch.equal(cache.contents(), seen[-10:])
        assert cache.vectors.shape == (10, 3)


def test_a_batch_longer_than_the_cache_is_thinned_evenly() -> None:
    cache = VectorCache(10, 3)
    cache.append(numbered(0, 40))
    assert cache.contents()[:, 0].tolist() == list(range(0, 40, 4))
    assert torch.equal(evenly_spaced(numbered(0, 5), 10), numbered(0, 5))


def test_nothing_is_kept_of_a_batch_that_is_not_to_be() -> None:
    cache = VectorCache(10, 3)
    cache.append(numbered(0, 4))
    before = {name: value.clone() for name, value in cache.state_dict().items()}
    cache.append(numbered(50, 20), torch.tensor(False))
    cache.append(numbered(50, 0))
    for name, value in cache.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_cache_goes_on_from_its_state_dict() -> None:
    first, second = VectorCache(7, 3), VectorCache(7, 3)
    first.append(numbered(0, 5))
    second.load_state_dict(first.state_dict())
    for cache in (first, second):
        cache.append(numbered(5, 4))
    assert torch.equal(first.contents(), second.contents())
