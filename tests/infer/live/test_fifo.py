import threading

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from infer.live.fifo import Fifo


@given(moves=st.lists(st.tuples(st.booleans(), st.integers(0, 30)), max_size=50))
def test_samples_come_out_as_they_went_in(moves: list[tuple[bool, int]]) -> None:
    fifo = Fifo(40)
    put, expected, overruns = 0, np.zeros(0, np.float32), 0
    for puts, count in moves:
        if puts:
            wave = np.arange(put, put + count, dtype=np.float32)
            put += count
            fifo.put(wave)
            expected = np.concatenate((expected, wave))
            overruns += expected.size > 40
            expected = expected[-40:]
        else:
            np.testing.assert_array_equal(fifo.take(count), expected[:count])
            expected = expected[count:]
        assert len(fifo) == expected.size
        assert fifo.overruns == overruns


def test_what_was_put_is_a_copy() -> None:
    fifo, wave = Fifo(10), np.ones(3, np.float32)
    fifo.put(wave)
    wave[:] = 0
    assert fifo.take(3).sum() == 3


def test_waiting_ends_when_something_comes_or_in_time() -> None:
    fifo = Fifo(10)
    assert not fifo.wait(0.01)
    thread = threading.Timer(0.02, fifo.put, [np.ones(1, np.float32)])
    thread.start()
    assert fifo.wait(10)
    thread.join()
