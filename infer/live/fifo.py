"""Samples between two threads: one puts them in, the other takes them out, neither waits long."""

import threading
from collections import deque

import numpy as np
from numpy.typing import NDArray

Wave = NDArray[np.float32]


class Fifo:
    """A queue of samples (n,) float32.

    Attributes:
        capacity: samples that are kept; beyond that the oldest are lost.
        overruns: times that some were.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.overruns = 0
        self._pieces: deque[Wave] = deque()
        self._size = 0
        self._ready = threading.Condition()

    def __len__(self) -> int:
        """Samples in it."""
        return self._size

    def put(self, wave: Wave) -> None:
        """Appends a copy of samples."""
        if not wave.size:
            return
        with self._ready:
            self._pieces.append(np.array(wave, np.float32))
            self._size += wave.size
            if self._size > self.capacity:
                self.overruns += 1
                self._take(self._size - self.capacity)
            self._ready.notify()

    def take(self, most: int) -> Wave:
        """Removes and returns the oldest samples, at most so many."""
        with self._ready:
            return self._take(min(most, self._size))

    def wait(self, seconds: float) -> bool:
        """Waits until there is a sample, or so long; whether there is one."""
        with self._ready:
            return self._ready.wait_for(lambda: self._size > 0, seconds)

    def _take(self, count: int) -> Wave:
        out = np.empty(count, np.float32)
        filled = 0
        while filled < count:
            piece = self._pieces.popleft()
            part = piece[: count - filled]
            out[filled : filled + part.size] = part
            filled += part.size
            if part.size < piece.size:
                self._pieces.appendleft(piece[part.size :])
        self._size -= count
        return out
