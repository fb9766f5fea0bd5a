"""Ctrl-C as a wish: what is being written is finished first."""

import signal
import threading
from types import FrameType
from typing import Self

from infer.workers import Terminated


class Stop:
    """Whether to end, within whose block Ctrl-C and SIGTERM only say so.

    Called, it says whether it is time. The second Ctrl-C ends the program where it is.
    """

    def __init__(self) -> None:
        self._number: int | None = None
        self._before: dict[int, object] = {}

    def __call__(self) -> bool:
        """Whether to end."""
        return self._number is not None

    def request(self) -> None:
        """Says so from the program."""
        self._number = self._number or signal.SIGINT

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for name in ("SIGINT", "SIGTERM", "SIGHUP"):
                number = getattr(signal, name, None)
                if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        if kind is None and self._number not in (None, signal.SIGINT):
            raise Terminated(signal.Signals(self._number or 0).name)

    def _note(self, number: int, _: FrameType | None) -> None:
        if self._number is not None:
            raise KeyboardInterrupt
        self._number = number
