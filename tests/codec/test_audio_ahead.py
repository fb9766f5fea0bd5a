"""Items made on a thread of their own."""

import threading
import time
from collections.abc import Iterator

import pytest

from codec.audio_ahead import decoded_ahead


def threads() -> int:
    return sum(thread.name == "decoded_ahead" for thread in threading.enumerate())


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    assert not threads()


@pytest.mark.parametrize("depth", [1, 2, 100])
@pytest.mark.parametrize("count", [0, 1, 50])
def test_all_items_come_in_order(depth: int, count: int) -> None:
    assert list(decoded_ahead(iter(range(count)), depth)) == list(range(count))


def test_they_are_made_on_another_thread_and_none_before_the_first_is_asked_for() -> None:
    makers = []

    def make() -> Iterator[None]:
        makers.append(threading.get_ident())
        yield None

    items = decoded_ahead(make())
    time.sleep(0.01)
    assert not makers
    assert list(items) == [None]
    assert makers != [threading.get_ident()]


@pytest.mark.parametrize("depth", [1, 3])
def test_no_more_than_depth_wait(depth: int) -> None:
    made = 0

    def make() -> Iterator[int]:
        nonlocal made
        for number in range(100):
            made += 1
            yield number

    for used, _ in enumerate(decoded_ahead(make(), depth), start=1):
        time.sleep(0.001)
        assert made <= used + depth


def test_it_does_run_ahead() -> None:
    both = threading.Barrier(2, timeout=5)

    def make() -> Iterator[int]:
        yield 0
        both.wait()  # passes only while the consumer still holds the first item
        yield 1

    items = decoded_ahead(make(), 1)
    assert next(items) == 0
    both.wait()
    assert next(items) == 1 and next(items, None) is None


@pytest.mark.parametrize("error", [OSError("disk"), KeyboardInterrupt()], ids=["error", "ctrl-c"])
def test_errors_come_after_the_items_before_them(error: BaseException) -> None:
    def make() -> Iterator[int]:
        yield 1
        yield 2
        raise error

    items = decoded_ahead(make(), 5)
    assert [next(items), next(items)] == [1, 2]
    with pytest.raises(type(error)) as raised:
        next(items)
    assert raised.value is error
    assert next(items, "no more") == "no more"


@pytest.mark.parametrize("used", [1, 3])
@pytest.mark.parametrize("depth", [1, 2, 10])
def test_stopping_early_closes_what_makes_the_items(used: int, depth: int) -> None:
    closed = threading.Event()

    def make() -> Iterator[int]:
        try:
            yield from range(1000)
        finally:
            closed.set()

    items = decoded_ahead(make(), depth)
    for _ in range(used):
        next(items)
    items.close()  # type: ignore[attr-defined]
    assert closed.is_set()


def test_an_error_of_the_consumer_stops_the_thread() -> None:
    def consume() -> None:
        for number in decoded_ahead(iter(range(1000)), 2):
            if number == 5:
                raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        consume()


def test_depth_is_checked_at_once() -> None:
    with pytest.raises(ValueError, match="depth must be at least 1, got 0"):
        decoded_ahead(iter([]), 0)
