import os
import signal

import pytest

from infer.live.stopping import Stop
from infer.workers import Terminated

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")


def test_ctrl_c_is_a_wish_and_twice_an_order() -> None:
    before = signal.getsignal(signal.SIGINT)
    with Stop() as stop:
        assert not stop()
        signal.raise_signal(signal.SIGINT)
        assert stop()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_sigterm_ends_the_command_after_its_block() -> None:
    finished = False
    with pytest.raises(Terminated, match="SIGTERM"), Stop() as stop:
        signal.raise_signal(signal.SIGTERM)
        assert stop()
        finished = True
    assert finished


def test_a_program_can_stop_it_too() -> None:
    with Stop() as stop:
        stop.request()
        assert stop()
