"""The `.sc` format, version 0: a header of 27 bytes and one run of packed codes, without checks.

The body has for each frame the codes of codebook 0, 1, ..., each most significant bit first, with
nothing between them; the last byte is filled up with zero bits. The file ends with the body, so its
length follows from the header.
"""

from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from codec.errors import BitstreamError
from infer.blocks import Damage, Note, Record
from infer.bytesource import ByteSource
from infer.header import START, Header, header_bytes, is_sc, parse
from infer.packing import pack, unpack


class Body:
    """Reads the codes in pieces of `header.block_frames`, a multiple of 8: whole bytes.

    Attributes:
        header: as it was given.
        complete: whether the file has been seen to end where it should.
        frames: that a file with a size holds; that the header counts, otherwise.
        number: of the piece that comes next.
    """

    def __init__(self, source: ByteSource, header: Header, note: Note) -> None:
        self.header = header
        self.complete = False
        self.frames = self._counted = header.frames or 0
        self.number = 0
        self._source = source
        self._note = note
        self._first = source.position
        self._frame_bits = header.n_quantizers * header.bits
        if source.size is not None:
            there = source.size - self._first
            self.complete = there == header.body_bytes(self._counted)
            self.frames = min(self._counted, there * 8 // self._frame_bits)

    def runs(self, first: int, stop: int | None) -> Iterator[list[Record]]:
        """Records of the pieces from `first` on and before `stop`."""
        header, piece = self.header, self.header.block_frames
        if self._source.size is not None:
            self.number = min(first, -(-self.frames // piece))
            self._source.seek(self._first + self.number * header.body_bytes(piece))
        while stop is None or self.number < stop:
            at = self.number * piece
            count = min(piece, self._counted - at)
            if count <= 0:
                self._check_end()
                return
            size = header.body_bytes(count)
            body = self._source.peek(size)[:size]
            self._source.skip(len(body))
            self.number += 1
            held = min(count, len(body) * 8 // self._frame_bits)
            if held:
                yield [Record(at, held, body[: header.body_bytes(held)])]
            if held < count:
                there = f"{at + held} of its {self._counted} frames are there"
                self._note(Damage(at + held, None, f"the file is cut short, {there}"))
                return
            filling = size * 8 - count * self._frame_bits
            if filling and body[-1] & (2**filling - 1):
                reason = "the bits after the last code are not zero"
                self._note(Damage(self._counted, 0, reason))

    def _check_end(self) -> None:
        if self._source.peek(1):
            reason = f"the file goes on after the {self._counted} frames that its header counts"
            self._note(Damage(self._counted, 0, reason))
        else:
            self.complete = True


def write(file: BinaryIO, codes: NDArray[np.integer], *, bits: int, fingerprint: str) -> Header:
    """Writes a whole `.sc` file of version 0 to anything that takes bytes.

    Args:
        file: open for writing bytes; need not be seekable.
        codes: (n_quantizers, frames), any integer type, values in 0 .. 2^bits - 1.
        bits: bits of one code, 1 to 16.
        fingerprint: of the model, 32 hex digits.

    Raises:
        BitstreamError: the format cannot hold these codes; nothing has been written then.
    """
    if codes.ndim != 2 or not np.issubdtype(codes.dtype, np.integer):
        raise BitstreamError(
            f"codes must be integers of shape (n_quantizers, frames), not {codes.dtype} of shape "
            f"{codes.shape}"
        )
    n_quantizers, frames = codes.shape
    header = Header(0, frames, n_quantizers, bits, fingerprint).checked()
    check_codes(codes, bits)
    file.write(header.to_bytes())
    for start in range(0, frames, header.block_frames):
        file.write(pack(codes[:, start : start + header.block_frames].T.reshape(-1), bits))
    return header


def read(file: BinaryIO) -> tuple[Header, NDArray[np.uint16]]:
    """Reads a whole `.sc` file of version 0: its header and its codes, (n_quantizers, frames).

    Takes memory in proportion to what the file holds, whatever its header claims.

    Raises:
        BitstreamError: no `.sc` file, of another version, cut short, or damaged.
    """
    source = ByteSource(file)
    data = source.peek(START.size)[: START.size]
    if is_sc(data) and data[START.size - 1 :] == b"\1":
        raise BitstreamError(f"{source.name} is of .sc version 1, not 0")
    header_bytes(data, source.name)
    header = parse(data, source.name)
    source.skip(START.size)

    def refuse(damage: Damage) -> None:
        raise BitstreamError(f"{source.name} is damaged: {damage.reason}; get the whole file again")

    pieces = [np.zeros((header.n_quantizers, 0), np.uint16)]
    for run in Body(source, header, refuse).runs(0, None):
        for record in run:
            count = record.frames * header.n_quantizers
            codes = unpack(record.body or b"", count, header.bits)
            pieces.append(codes.reshape(record.frames, -1).T)
    return header, np.concatenate(pieces, axis=1)


def check_codes(codes: NDArray[np.integer], bits: int) -> None:
    """Refuses codes that are no integers in 0 .. 2^bits - 1.

    Raises:
        BitstreamError: naming the first extreme that does not fit.
    """
    if not np.issubdtype(codes.dtype, np.integer):
        raise BitstreamError(f"codes must be integers, not {codes.dtype}")
    for extreme in (codes.min(), codes.max()) if codes.size else ():
        if not 0 <= extreme < 2**bits:
            raise BitstreamError(f"code {extreme} does not fit {bits} bits (0 to {2**bits - 1})")
