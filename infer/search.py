"""The way back into a `.sc` file of version 1 behind damage: the next record that is whole.

Every record carries a checksum that also tells its number, so it is recognised wherever it lies:
damaged lengths, and bytes too many or too few, cost no more than the blocks they are in.
"""

from dataclasses import dataclass

import numpy as np

from infer.bytesource import ByteSource
from infer.header import Header
from infer.records import SHORTEST_END, Layout

# Blocks that may be missing without the bytes that would hold them, in a whole file: more are not
# believed. 65536 blocks of 1 s are 18 hours.
_MISSING_BLOCKS = 1 << 16
# Bytes whose checksum is tried, in a whole file: a search that takes more is given up.
_TRIED_BYTES = 1 << 28
_SCANNED_BYTES = 1 << 16
_BIG_ENDIAN = 1 << np.arange(24, -1, -8, dtype=np.int64)


@dataclass(frozen=True)
class Found:
    """A record: the number it has, and how many frames the blocks before it hold."""

    number: int
    frames_before: int


class Search:
    """Looks for whole records in one file."""

    def __init__(self, source: ByteSource, header: Header, layout: Layout) -> None:
        self._source = source
        self._layout = layout
        self._block_frames = header.block_frames
        self._believed = _MISSING_BLOCKS
        self._untried = _TRIED_BYTES

    def next_record(self, least: int) -> Found | None:
        """Goes to the next whole record from this place on with a number from `least` up."""
        source, layout = self._source, self._layout
        start = source.position
        need = layout.prefix
        while len(data := source.peek(need)) >= layout.prefix and self._untried > 0:
            need = layout.prefix
            taken = min(len(data) - layout.prefix + 1, _SCANNED_BYTES)
            most = self._backed(least, source.position + taken - start) + self._believed
            for at in self._candidates(data, taken, least, most):
                size = self._size_at(data, at)
                if at + size > len(data):
                    if source.ended:
                        continue
                    taken, need = at, size
                    break
                found = self._try(data, at, size)
                backed = self._backed(least, source.position + at - start)
                if found is None or not least <= found.number <= backed + self._believed:
                    continue
                source.skip(at)
                if found.number <= backed or self._goes_on(found.number, size):
                    self._believed -= max(0, found.number - backed)
                    return found
                taken = 1
                break
            source.skip(taken)
        return None

    def _backed(self, least: int, skipped: int) -> int:
        """The highest number that a record may have by the bytes passed over, and one more."""
        return least + skipped // self._layout.shortest + 1

    def _candidates(self, data: bytes, scanned: int, least: int, most: int) -> list[int]:
        """Places where a record may begin: its first bytes are those of a block or of the end."""
        values = np.frombuffer(data, np.uint8)
        counts = values[:scanned].astype(np.uint16) << 8 | values[1 : scanned + 1]
        is_block = (counts > 0) & (counts <= self._block_frames)
        ends = np.flatnonzero(counts == 0)
        inner = ends[ends + SHORTEST_END <= len(data)]
        frames = values[inner[:, None] + np.arange(2, 6)].astype(np.int64) @ _BIG_ENDIAN
        blocks = -(-frames // self._block_frames)
        is_block[inner[(blocks >= least) & (blocks <= most)]] = True
        is_block[ends[len(inner) :]] = True  # not to be told yet
        places: list[int] = np.flatnonzero(is_block).tolist()
        return places

    def _size_at(self, data: bytes, at: int) -> int:
        """Bytes of the record that may begin here."""
        size = self._layout.size_at(data, at)
        if size:
            return size
        end = self._layout.end_at(data, at)
        return SHORTEST_END if end is None else end.size

    def _goes_on(self, number: int, size: int) -> bool:
        """Whether a record that comes next, of `size` bytes, is followed by the one that should.

        Where a number is not what the place suggests, chance is to be kept out.
        """
        layout = self._layout
        data = self._source.peek(size)
        if layout.end_at(data, 0) is not None:
            return True  # two of its fields tell the number
        data = self._source.peek(size + layout.prefix)
        next_size = layout.size_at(data, size) or SHORTEST_END
        data = self._source.peek(size + next_size)
        end = layout.end_at(data, size)
        if end is not None:
            return layout.blocks_of(end.frames) == number + 1
        whole = len(data) >= size + next_size
        return whole and layout.is_whole(data, size, next_size, number + 1)

    def _try(self, data: bytes, at: int, size: int) -> Found | None:
        """The record that begins here, if its bytes are whole, for some number."""
        self._untried -= size
        layout = self._layout
        end = layout.end_at(data, at)
        if end is not None:
            number = layout.blocks_of(end.frames)
            return Found(number, end.frames) if layout.is_end(data, at, end) else None
        if layout.size_at(data, at) != size:
            return None
        number = layout.number_at(data, at, size)
        return Found(number, number * self._block_frames)
