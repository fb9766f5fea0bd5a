"""Tasks on threads: order, threads, errors, and what they leave behind."""

import threading
import time
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from codec.side_by_side import side_by_side


@pytest.fixture(params=[1, 3], ids="threads={}".format)
def threads(request: pytest.FixtureRequest) -> int:
    torch.set_num_threads(request.param)
    return int(request.param)


def numbered(count: int, seen: list[int]) -> Iterator[Callable[[], Tensor]]:
    def task(number: int) -> Tensor:
        time.sleep(0.002 * (number % 3))
        seen.append(torch.get_num_threads())
        return torch.tensor(number)

    for number in range(count):
        yield lambda number=number: task(number)  # type: ignore[misc]


@pytest.mark.parametrize("count", [0, 1, 2, 20])
def test_results_come_in_order_from_one_thread_each(threads: int, count: int) -> None:
    seen: list[int] = []
    assert [int(r) for r in side_by_side(numbered(count, seen))] == list(range(count))
    assert seen == [1] * count
    assert torch.get_num_threads() == threads


def test_several_are_at_work_at_a_time() -> None:
    torch.set_num_threads(3)
    all_there = threading.Barrier(3, timeout=20)

    def task() -> Tensor:
        all_there.wait()
        return torch.zeros(1)

    assert len(list(side_by_side(iter([task] * 6)))) == 6


def test_tasks_are_taken_as_they_are_needed() -> None:
    torch.set_num_threads(2)
    taken = 0

    def tasks() -> Iterator[Callable[[], Tensor]]:
        nonlocal taken
        for _ in range(50):
            taken += 1
            yield lambda: torch.zeros(1)

    next(side_by_side(tasks()))
    assert taken <= 5


def test_an_error_comes_out_and_threads_are_as_before(threads: int) -> None:
    def fail() -> Tensor:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        list(side_by_side(iter([lambda: torch.zeros(1), fail, lambda: torch.zeros(1)])))
    assert torch.get_num_threads() == threads
