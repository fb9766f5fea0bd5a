"""How a version 1 file is laid out behind its header: records of blocks, and of the end.

docs/format.md gives the bytes. Each record ends in a check: the CRC-32 of all of it before the
check, followed by the record's number. So a check tells whether a record is whole and in its place,
and a record that is out of its place tells by its check which one it is.
"""

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from infer.header import UNKNOWN_SAMPLES, Header

# A compact file's end record tells where each so manyth block is.
INDEX_STEP = 16
_LOST = 2**32 - 1
_CHECK = struct.Struct(">I")
_COUNT = struct.Struct(">H")
_END = struct.Struct(">HIQ")
_LENGTH = struct.Struct(">I")
_OFFSET = struct.Struct(">Q")
SHORTEST_END = _END.size + _LENGTH.size + _CHECK.size


@dataclass(frozen=True)
class End:
    """What an end record says: frames in all, the source's samples, bytes of the record."""

    frames: int
    source_samples: int | None
    size: int


class Layout:
    """Sizes and checks of the records of one file.

    Attributes:
        prefix: bytes of a block's record before its codes.
        full: bytes of the longest record of a block (a fixed-rate one of block_frames frames).
        shortest: bytes of the shortest record of a block.
    """

    def __init__(self, header: Header) -> None:
        self._header = header
        self._full_body = header.body_bytes(header.block_frames)
        width = -(-self._full_body.bit_length() // 8) if header.compact else 0
        self._width = width
        self.prefix = _COUNT.size + width
        self.full = self.prefix + self._full_body + _CHECK.size
        self._full_count = _COUNT.pack(header.block_frames)
        least = 0 if header.compact else header.body_bytes(1)
        self.shortest = self.prefix + least + _CHECK.size

    def body_bytes(self, frames: int) -> int:
        """Bytes of the packed codes of so many frames."""
        full = frames == self._header.block_frames
        return self._full_body if full else self._header.body_bytes(frames)

    def block(self, number: int, frames: int, body: bytes, *, lost: bool = False) -> bytes:
        """The record of a block; a lost one gets a check that is wrong in every bit."""
        length = len(body).to_bytes(self._width) if self._width else b""
        data = _COUNT.pack(frames) + length + body
        return data + _CHECK.pack(_check(zlib.crc32(data), number) ^ (_LOST if lost else 0))

    def rows(self, number: int, frames: int, bodies: NDArray[np.uint8]) -> bytes:
        """The records of successive fixed-rate blocks, (blocks, body bytes), all of `frames`."""
        count = _COUNT.pack(frames)
        pieces = []
        for at, body in enumerate(bodies):
            data = count + body.tobytes()
            pieces += [data, _CHECK.pack(_check(zlib.crc32(data), number + at))]
        return b"".join(pieces)

    def size_at(self, data: bytes, at: int) -> int:
        """Bytes of the block's record that begins at `at`; 0: none does. Needs `prefix` bytes."""
        if len(data) < at + self.prefix:
            return 0
        if not self._width and data.startswith(self._full_count, at):
            return self.full
        frames = data[at] << 8 | data[at + 1]
        if not 0 < frames <= self._header.block_frames:
            return 0
        most = self.body_bytes(frames)
        if not self._width:
            return self.prefix + most + _CHECK.size
        length = int.from_bytes(data[at + 2 : at + self.prefix])
        return self.prefix + length + _CHECK.size if length <= most else 0

    def frames_at(self, data: bytes, at: int) -> int:
        """Frames of the record that begins at `at`."""
        return data[at] << 8 | data[at + 1]

    def body_at(self, data: bytes, at: int, size: int) -> bytes:
        """The codes of a block's record."""
        return data[at + self.prefix : at + size - _CHECK.size]

    @staticmethod
    def is_whole(data: bytes, at: int, size: int, number: int) -> bool:
        """Whether the record that has these bytes is right, and has this number."""
        stop = at + size - _CHECK.size
        check: int = _CHECK.unpack_from(data, stop)[0]
        return _check(zlib.crc32(memoryview(data)[at:stop]), number) == check

    @staticmethod
    def number_at(data: bytes, at: int, size: int) -> int:
        """The number of the record that has these bytes, if it is right."""
        stop = at + size - _CHECK.size
        check: int = _CHECK.unpack_from(data, stop)[0]
        return _number(zlib.crc32(memoryview(data)[at:stop]), check)

    def blocks_of(self, frames: int) -> int:
        """Blocks that hold so many frames."""
        return -(-frames // self._header.block_frames)

    def end(self, frames: int, source_samples: int | None, offsets: Sequence[int]) -> bytes:
        """The end record; `offsets` of blocks 16, 32, ... from the file's start, if compact."""
        samples = UNKNOWN_SAMPLES if source_samples is None else source_samples
        data = _END.pack(0, frames, samples)
        data += b"".join(_OFFSET.pack(offset) for offset in offsets)
        data += _LENGTH.pack(len(data) + _LENGTH.size + _CHECK.size)
        return data + _CHECK.pack(_check(zlib.crc32(data), self.blocks_of(frames)))

    def end_at(self, data: bytes, at: int) -> End | None:
        """The end record that may begin at `at`, its check not looked at; needs SHORTEST_END."""
        if len(data) < at + _END.size:
            return None
        count, frames, samples = _END.unpack_from(data, at)
        if count:
            return None
        entries = 0
        if self._header.compact:
            entries = max(0, self.blocks_of(frames) - 1) // INDEX_STEP
        size = SHORTEST_END + entries * _OFFSET.size
        return End(frames, None if samples == UNKNOWN_SAMPLES else samples, size)

    def is_end(self, data: bytes, at: int, end: End) -> bool:
        """Whether the bytes of an end record that `end_at` gave are there and whole."""
        if at + end.size > len(data):
            return False
        same = self.end_size(data[at + end.size - 8 :]) == end.size
        return same and self.is_whole(data, at, end.size, self.blocks_of(end.frames))

    @staticmethod
    def end_size(tail: bytes) -> int:
        """What the last 8 bytes of a file say the length of its end record is."""
        return int(_LENGTH.unpack_from(tail)[0])

    def is_end_crc(self, crc: int, check: int, end: End) -> bool:
        """As `is_end`, by the CRC-32 of the record before its check, and its check."""
        return _check(crc, self.blocks_of(end.frames)) == check

    @staticmethod
    def index_entry(number: int) -> int:
        """Where in the end record the offset of block `number` is, a multiple of 16 above 0."""
        return _END.size + (number // INDEX_STEP - 1) * _OFFSET.size


def _check(crc: int, number: int) -> int:
    """The check of record `number` whose bytes before it have this CRC-32."""
    return zlib.crc32(number.to_bytes(4), crc)


def _number(crc: int, check: int) -> int:
    """The number that gives the check: a CRC is linear, each bit of one adds its share."""
    shares = check ^ _check(crc, 0)
    number = 0
    for bit, inverse in enumerate(_INVERSE):
        if shares >> bit & 1:
            number ^= inverse
    return number


def _inverted() -> list[int]:
    """For each bit of a check, the number that changes this bit and no other (Gauss-Jordan)."""
    zero = _check(0, 0)
    rows = [(_check(0, 1 << bit) ^ zero, 1 << bit) for bit in range(32)]
    for bit in range(32):
        pivot = next(at for at in range(bit, 32) if rows[at][0] >> bit & 1)
        rows[bit], rows[pivot] = rows[pivot], rows[bit]
        for at, (share, number) in enumerate(rows):
            if at != bit and share >> bit & 1:
                rows[at] = (share ^ rows[bit][0], number ^ rows[bit][1])
    return [number for _, number in rows]


_INVERSE = _inverted()
