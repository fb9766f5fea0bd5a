"""Making items on a thread of their own, while what was made is being used."""

import threading
from collections.abc import Iterator
from queue import SimpleQueue
from typing import TypeVar

T = TypeVar("T")

_GRACE_SECONDS = 5.0  # a thread that waits for a silent pipe cannot be stopped: it is left behind


def decoded_ahead(items: Iterator[T], depth: int = 4) -> Iterator[T]:
    """The same items in the same order, made on another thread up to ``depth`` ahead.

    The thread starts with the first item asked for. It ends with the last item, or when this
    iterator is closed or dropped; then the other iterator has been closed as well. What the
    other iterator raises is raised here, after the items that came before.

    Args:
        items: used by the thread alone from then on; a generator is closed there too.
        depth: items that may wait, at least 1; that many and the one in use are in memory.

    Raises:
        ValueError: ``depth`` is below 1.
    """
    if depth < 1:
        raise ValueError(f"depth must be at least 1, got {depth}")
    return _ahead(items, depth)


def _ahead(items: Iterator[T], depth: int) -> Iterator[T]:
    ready: SimpleQueue[tuple[T] | BaseException | None] = SimpleQueue()
    room = threading.Semaphore(depth)
    stopped = threading.Event()

    def make() -> None:
        end: BaseException | None = None
        try:
            try:
                while room.acquire() and not stopped.is_set():
                    ready.put((next(items),))
            finally:
                if hasattr(items, "close"):
                    items.close()
        except StopIteration:
            pass
        except BaseException as error:
            end = error
        ready.put(end)

    thread = threading.Thread(target=make, name="decoded_ahead", daemon=True)
    thread.start()
    try:
        while isinstance(item := ready.get(), tuple):
            room.release()
            yield item[0]
        if item is not None:
            raise item
    finally:
        stopped.set()
        room.release()
        thread.join(_GRACE_SECONDS)
