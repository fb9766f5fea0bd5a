"""Pieces of work run side by side, each on one thread.

A window of a speech codec is too little work to be shared by the threads of one operator: two of
them took longer over a window than one. Two windows at a time, on a thread each, took half as long
as one after the other; and what comes out does not depend on the number of threads.
"""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice

import torch
from torch import Tensor


def side_by_side(tasks: Iterator[Callable[[], Tensor]]) -> Iterator[Tensor]:
    """Results of CPU tasks in their order, as many at a time as PyTorch has threads.

    A task is taken from the iterator when there is a thread for it, or nearly.
    """
    with _one_thread() as threads:
        first = list(islice(tasks, 2))
        if threads == 1 or len(first) < 2:
            yield from (task() for task in first)
            yield from (task() for task in tasks)
            return
        with ThreadPoolExecutor(threads, "windows", torch.set_num_threads, (1,)) as pool:
            waiting: deque[Future[Tensor]] = deque(pool.submit(task) for task in first)
            try:
                for task in tasks:
                    waiting.append(pool.submit(task))
                    if len(waiting) > threads + 1:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                for future in waiting:
                    future.cancel()


@contextmanager
def _one_thread() -> Iterator[int]:
    """Operators use one thread inside; gives how many they may use outside."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield threads
    finally:
        torch.set_num_threads(threads)
