"""What live commands show: lines that change on a terminal, plain ones now and then elsewhere.

All of it goes to stderr, since stdout may be the sound.
"""

import sys
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.table import Table

from infer.live.meter import SILENCE, Level, Load, bar

Row = tuple[str, str]

_REDRAW_SECONDS = 0.1
_PLAIN_SECONDS = 10.0


class Display:
    """Shows rows of a name and a text while a block runs.

    Args:
        rows: gives them as they are now.
        console: to show them on; else stderr.
    """

    def __init__(
        self,
        rows: Callable[[], Sequence[Row]],
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rows, self._clock = rows, clock
        self._console = console or Console(
            file=sys.stderr, markup=False, emoji=False, highlight=False
        )
        self._live: Live | None = None
        self._shown = clock()

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live = Live(console=self._console, auto_refresh=False, transient=True)
            self._live.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.__exit__(kind, error, traceback)

    def tick(self) -> None:
        """Shows the rows anew if it is time."""
        now = self._clock()
        if now - self._shown < (_PLAIN_SECONDS if self._live is None else _REDRAW_SECONDS):
            return
        self._shown = now
        if self._live is not None:
            self._live.update(_table(self._rows()), refresh=True)
        else:
            self.say(", ".join(f"{name} {text}" for name, text in self._rows()))

    def say(self, line: str) -> None:
        """Shows a line that stays."""
        self._console.print(line, soft_wrap=True)


def level_row(name: str, level: Level) -> Row:
    """A level meter: dBFS of RMS and peak."""
    if level.peak <= SILENCE:
        return name, f"{bar(level.rms, level.peak)} silence"
    return name, f"{bar(level.rms, level.peak)} {level.rms:5.1f} dBFS, peak {level.peak:5.1f}"


def load_row(load: Load) -> Row:
    """What coding takes of the time there is."""
    return "load", f"{load.now:.0%} of the time, {load.highest:.0%} at most"


def clock_time(seconds: float) -> str:
    """`1:02:03`, or `02:03`."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes:02}:{rest:02}"


def _table(rows: Sequence[Row]) -> Table:
    table = Table.grid(padding=(0, 2))
    for name, text in rows:
        table.add_row(name, text)
    return table
