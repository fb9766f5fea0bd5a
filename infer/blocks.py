"""What a reader gives: blocks of codes, their packed records, and what was damaged."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Block:
    """Codes of some frames.

    Attributes:
        first_frame: where they lie in the file.
        frames: how many.
        codes: uint16 (channels, n_quantizers, frames); none: they are damaged.
    """

    first_frame: int
    frames: int
    codes: NDArray[np.uint16] | None


@dataclass(frozen=True)
class Record:
    """A block as the file has it.

    Attributes:
        first_frame: where its frames lie in the file.
        frames: how many.
        body: the codes, packed or entropy coded; none: they are damaged.
    """

    first_frame: int
    frames: int
    body: bytes | None


@dataclass(frozen=True)
class Damage:
    """A place where the file is not what it was.

    Attributes:
        first_frame: where it begins.
        frames: that are lost; 0: none, something else is wrong there; none: all to the end.
        reason: what is wrong, a few words.
    """

    first_frame: int
    frames: int | None
    reason: str

    def describe(self, frame_rate: float | None) -> str:
        """Says where and why: `0:59.00 to 1:01.00: ...`, in frames if the rate is not known."""
        stop = None if self.frames is None else self.first_frame + self.frames
        ends = [
            _moment(frame, frame_rate) for frame in (self.first_frame, stop) if frame is not None
        ]
        if self.frames is None:
            where = f"from {ends[0]} on"
        else:
            where = " to ".join(dict.fromkeys(ends)) if self.frames else f"at {ends[0]}"
        return f"{where}: {self.reason}"


Note = Callable[[Damage], None]


class Tables(Protocol):
    """Probability tables that code blocks compactly, such as codec.entropy.EntropyTables."""

    @property
    def fingerprint(self) -> str:
        """32 hex digits."""
        ...

    def encode(self, blocks: Sequence[NDArray[np.uint16]]) -> list[bytes]:
        """Codes blocks, (channels, n_quantizers, frames) uint16, each by itself."""
        ...

    def decode(
        self, blocks: Sequence[bytes], shapes: Sequence[tuple[int, int, int]]
    ) -> list[NDArray[np.uint16]]:
        """Undoes `encode`.

        Raises:
            BitstreamError: these bytes are no block of such a shape.
        """
        ...


def _moment(frame: int, frame_rate: float | None) -> str:
    if frame_rate is None:
        return f"frame {frame}"
    hundredths = round(frame / frame_rate * 100)
    seconds, hundredths = divmod(hundredths, 100)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    start = f"{hours}:{minutes:02}" if hours else f"{minutes}"
    return f"{start}:{seconds:02}.{hundredths:02}"
