"""Codes to a `.sc` file of any version, as a stream."""

import dataclasses
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from codec.errors import BitstreamError
from infer.blocks import Tables
from infer.bytesource import is_seekable
from infer.header import UNKNOWN_FRAMES, Header
from infer.packing import pack_rows
from infer.records import INDEX_STEP, Layout
from infer.version0 import check_codes

# Blocks packed at a time hold about so many codes: they stay in the processor's cache.
_PACKED_CODES = 1 << 15
# Blocks entropy coded at a time: side by side they take much less time. Into a pipe, which may be
# listened to, they go one by one.
_COMPACT_BLOCKS = 128


class Writer:
    """Writes a `.sc` file, block by block, to anything that takes bytes.

    Attributes:
        header: as it has been written.
        frames: given so far.
    """

    def __init__(self, file: BinaryIO, header: Header, *, tables: Tables | None = None) -> None:
        """Writes the header.

        Args:
            file: open for writing bytes; need not be seekable.
            header: what is known beforehand; `frames` may be none in version 1.
            tables: for a compact file; the header's `tables` follows from them.

        Raises:
            BitstreamError: no file can hold such a header; nothing has been written then.
        """
        if header.compact:
            if tables is None:
                raise BitstreamError(
                    "a compact file needs the probability tables of its model: "
                    "name one that has them, or write at the fixed rate"
                )
            header = dataclasses.replace(header, tables=tables.fingerprint)
        self.header = header.checked()
        self.frames = 0
        self._file = file
        self._tables = tables if header.compact else None
        self._layout = Layout(self.header)
        self._pending = np.zeros((header.channels, header.n_quantizers, 0), np.uint16)
        self._pending_is_lost = False
        self._to_code: list[NDArray[np.uint16]] = []
        self._at_once = _COMPACT_BLOCKS if is_seekable(file) else 1
        self._blocks = 0
        self._offsets: list[int] = []
        self._position = 0
        self._finished = False
        self._put(self.header.to_bytes())

    def write(self, codes: NDArray[np.integer]) -> None:
        """Takes any number of frames, and writes the blocks that are full.

        Args:
            codes: integers in 0 .. 2^bits - 1, (channels, n_quantizers, frames).

        Raises:
            BitstreamError: codes of another shape or out of range, or more frames than the header
                announced; none of these codes has been written then.
        """
        shape = (self.header.channels, self.header.n_quantizers)
        if codes.ndim != 3 or codes.shape[:2] != shape:
            raise BitstreamError(
                f"codes of shape {codes.shape}: this file takes (channels, n_quantizers, frames) "
                f"of {shape[0]} and {shape[1]}"
            )
        check_codes(codes, self.header.bits)
        self._count(codes.shape[2])
        if self._pending_is_lost:
            rest = self.header.block_frames - self._pending.shape[2]
            self._append(codes[:, :, :rest])
            codes = codes[:, :, rest:]
        self._append(codes)

    def write_lost(self, frames: int) -> None:
        """Goes on `frames` frames whose codes are lost: their blocks will read as damaged.

        Raises:
            BitstreamError: version 0 cannot tell that, or the header announced fewer frames.
        """
        if self.header.version == 0:
            raise BitstreamError("version 0 of .sc cannot mark lost frames: write version 1")
        self._count(frames)
        shape = self._pending.shape[:2]
        while frames:
            count = min(frames, self.header.block_frames - self._pending.shape[2])
            self._pending_is_lost = True
            self._append(np.zeros((*shape, count), np.uint16))
            frames -= count

    def finish(self, *, source_samples: int | None = None) -> Header:
        """Writes what is left and the end; the file stays open.

        Args:
            source_samples: of each channel of the source, if the header could not tell.

        Returns:
            the header as it is now known.

        Raises:
            BitstreamError: the header announced more frames, or an impossible `source_samples`.
        """
        self._check_open()
        header = self.header
        if header.frames not in (None, self.frames):
            raise BitstreamError(
                f"the header announced {header.frames} frames, but {self.frames} were given"
            )
        if header.version == 1:
            if source_samples is None:
                source_samples = header.source_samples
            header = dataclasses.replace(
                header, frames=self.frames, source_samples=source_samples
            ).checked()
        if self._pending.shape[2]:
            self._flush(self._pending, self._pending.shape[2])
        self._code(self._to_code)
        if header.version == 1:
            self._put(self._layout.end(self.frames, source_samples, self._offsets))
        self._finished = True
        return header

    def _check_open(self) -> None:
        if self._finished:
            raise BitstreamError("this .sc file has been finished already")

    def _count(self, frames: int) -> None:
        self._check_open()
        most = UNKNOWN_FRAMES - 1 if self.header.frames is None else self.header.frames
        if self.frames + frames > most:
            raise BitstreamError(f"{self.frames + frames} frames: this file holds up to {most}")
        self.frames += frames

    def _append(self, codes: NDArray[np.integer]) -> None:
        """Writes the blocks that these codes fill up."""
        block = self.header.block_frames
        given = codes.astype(np.uint16)
        if self._pending.shape[2]:
            given = np.concatenate([self._pending, given], axis=2)
        whole = given.shape[2] // block * block
        if whole:
            self._flush(given[:, :, :whole], block)
        self._pending = given[:, :, whole:].copy()

    def _flush(self, codes: NDArray[np.uint16], block: int) -> None:
        """Writes whole blocks of so many frames, some at a time."""
        if self._pending_is_lost:
            self._pending_is_lost = False
            self._code(self._to_code)
            body = b"" if self.header.compact else self._packed(codes, block).tobytes()
            self._put_block(block, body, lost=True)
        elif self.header.compact:
            for start in range(0, codes.shape[2], block):
                self._to_code.append(np.ascontiguousarray(codes[:, :, start : start + block]))
                if len(self._to_code) == self._at_once:
                    self._code(self._to_code)
        else:
            at_once = max(1, _PACKED_CODES // (block * self.header.codes_per_frame)) * block
            for start in range(0, codes.shape[2], at_once):
                self._put_rows(self._packed(codes[:, :, start : start + at_once], block), block)

    def _packed(self, codes: NDArray[np.uint16], block: int) -> NDArray[np.uint8]:
        """Packs blocks, one a row: frame by frame, channel by channel, codebook by codebook."""
        channels, n_quantizers, frames = codes.shape
        split = codes.reshape(channels, n_quantizers, frames // block, block)
        return pack_rows(split.transpose(2, 3, 0, 1).reshape(frames // block, -1), self.header.bits)

    def _put_rows(self, rows: NDArray[np.uint8], block: int) -> None:
        if self.header.version == 0:
            self._put(rows.tobytes())
        else:
            self._put(self._layout.rows(self._blocks, block, rows))
        self._blocks += len(rows)

    def _code(self, blocks: list[NDArray[np.uint16]]) -> None:
        """Writes these blocks of a compact file, and empties the list."""
        if not blocks or self._tables is None:
            return
        for codes, body in zip(blocks, self._tables.encode(blocks), strict=True):
            frames = codes.shape[2]
            if len(body) >= self._layout.body_bytes(frames):  # it did not pay
                body = self._packed(codes, frames).tobytes()
            self._put_block(frames, body)
        blocks.clear()

    def _put_block(self, frames: int, body: bytes, *, lost: bool = False) -> None:
        if self.header.compact and self._blocks and self._blocks % INDEX_STEP == 0:
            self._offsets.append(self._position)
        self._put(self._layout.block(self._blocks, frames, body, lost=lost))
        self._blocks += 1

    def _put(self, data: bytes) -> None:
        """Writes all of it, also to a raw file that takes a part at a time."""
        left = memoryview(data)
        while len(left):
            taken = self._file.write(left)
            left = left[len(left) if taken is None else taken :]
        self._position += len(data)
