"""Codes of a `.sc` file of any version, as a stream."""

from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from codec.errors import BitstreamError
from infer import version0, version1
from infer.blocks import Block, Damage, Record, Tables
from infer.bytesource import ByteSource
from infer.header import SHORTEST, START, Header, header_bytes, parse
from infer.packing import unpack_rows

# A file may be damaged in more places than anyone wants to know of.
_MOST_DAMAGE = 10_000


class Reader:
    """Reads a `.sc` file of any version, from a file or a pipe, in memory of a few blocks.

    Attributes:
        announced: the header as it stands at the beginning of the file.
        damage: what was found wrong so far.
    """

    def __init__(
        self, file: BinaryIO, *, strict: bool = False, tables: Tables | None = None
    ) -> None:
        """Reads the header, and the end record where the file has a size.

        Args:
            file: open for reading bytes; read from where it stands.
            strict: raise an error at the first damage instead of noting it.
            tables: of the model that made the file; a compact file's codes need them.

        Raises:
            BitstreamError: no `.sc` file, of a newer version, its header damaged or cut, or the
                tables are others than the file needs.
        """
        self.damage: list[Damage] = []
        self._source = ByteSource(file)
        self._strict = strict
        self._tables: Tables | None = None
        name = self._source.name
        start = self._source.peek(SHORTEST)
        size = header_bytes(start, name)
        start = self._source.peek(size)
        header = parse(start[:size], name)
        if header.version == 0:
            self._check_not_version_1(start)
        self._source.skip(size)
        self.announced = header
        if tables is not None:
            self.use_tables(tables)
        body = version0.Body if header.version == 0 else version1.Body
        self._body: version0.Body | version1.Body = body(self._source, header, self._note)

    def use_tables(self, tables: Tables) -> None:
        """Takes the tables where they were not given before the header was known.

        Raises:
            BitstreamError: a compact file needs others.
        """
        if self.announced.compact and tables.fingerprint != self.announced.tables:
            raise BitstreamError(
                f"{self._source.name} needs the probability tables {self.announced.tables}, and "
                f"this model's are {tables.fingerprint}: pass the model file that made it"
            )
        self._tables = tables

    @property
    def header(self) -> Header:
        """What the file says of itself, completed from its end once that has been read."""
        return self._body.header

    @property
    def complete(self) -> bool:
        """Whether the end of the file has been found; blocks before it may be damaged.

        Known from the start where the file has a size, and at the end otherwise.
        """
        return self._body.complete

    @property
    def frames(self) -> int | None:
        """Frames up to where the file ends or breaks off, lost ones too; none: not known yet."""
        return self._body.frames

    def blocks(self, first_frame: int = 0, frames: int | None = None) -> Iterator[Block]:
        """Codes of `frames` frames (none: all) from `first_frame` on, as they lie in blocks.

        Reads only what it needs of a file that can be sought. One iteration at a time; one over a
        pipe goes on where the last one stopped.

        Raises:
            BitstreamError: the file is compact and there are no tables, a pipe would have to go
                back, or, if strict, something is damaged.
        """
        if self.header.compact and self._tables is None:
            raise BitstreamError(
                f"{self._source.name} is compact: its codes cannot be read without the model "
                f"(the one with the probability tables {self.header.tables})"
            )
        if first_frame < 0 or (frames is not None and frames < 0):
            raise ValueError(f"first_frame {first_frame} and frames {frames} must not be negative")
        stop = None if frames is None else first_frame + frames
        for run in self._runs(first_frame, stop):
            for block in self._decode(run):
                if (part := _part(block, first_frame, stop)) is not None:
                    yield part

    def records(self) -> Iterator[Record]:
        """All blocks as the file has them, in their order: needs no tables.

        Raises:
            BitstreamError: as `blocks`, but for the tables.
        """
        for run in self._runs(0, None):
            yield from run

    def _runs(self, first_frame: int, stop: int | None) -> Iterator[list[Record]]:
        block = self.header.block_frames
        first = first_frame // block
        if self._source.size is None and first < self._body.number:
            raise BitstreamError(f"{self._source.name} is a pipe: it cannot be read again")
        return self._body.runs(first, None if stop is None else -(-stop // block))

    def _decode(self, run: list[Record]) -> list[Block]:
        """Turns records into codes, all those of one length and kind together."""
        blocks: list[Block] = []
        start = 0
        while start < len(run):
            kind = self._kind(run[start])
            stop = start + 1
            while stop < len(run) and self._kind(run[stop]) == kind:
                stop += 1
            records, start = run[start:stop], stop
            frames, coding = kind
            if coding == "packed":
                blocks += self._unpack(records, frames)
            elif coding == "compact":
                blocks += self._decode_compact(records, frames)
            else:
                blocks += [Block(record.first_frame, frames, None) for record in records]
        return blocks

    def _kind(self, record: Record) -> tuple[int, str]:
        """Frames and coding of a record; where entropy coding did not pay, codes are packed."""
        if record.body is None:
            return record.frames, "lost"
        packed = not self.header.compact or len(record.body) == self.header.body_bytes(
            record.frames
        )
        return record.frames, "packed" if packed else "compact"

    def _unpack(self, records: list[Record], frames: int) -> list[Block]:
        header = self.header
        data = np.frombuffer(b"".join([record.body or b"" for record in records]), np.uint8)
        count = frames * header.codes_per_frame
        rows = unpack_rows(data.reshape(len(records), -1), count, header.bits)
        shape = (len(records), frames, header.channels, header.n_quantizers)
        codes = np.ascontiguousarray(rows.reshape(shape).transpose(0, 2, 3, 1))
        return [Block(r.first_frame, frames, c) for r, c in zip(records, codes, strict=True)]

    def _decode_compact(self, records: list[Record], frames: int) -> list[Block]:
        """Decodes blocks; if one makes no sense although its check is right, only that is lost."""
        try:
            codes = self._decoded([record.body or b"" for record in records], frames)
        except BitstreamError as error:
            if len(records) > 1:
                return [block for r in records for block in self._decode_compact([r], frames)]
            self._note(Damage(records[0].first_frame, frames, str(error)))
            return [Block(records[0].first_frame, frames, None)]
        return [Block(r.first_frame, frames, c) for r, c in zip(records, codes, strict=True)]

    def _decoded(self, bodies: list[bytes], frames: int) -> list[NDArray[np.uint16]]:
        assert self._tables is not None
        shape = (self.header.channels, self.header.n_quantizers, frames)
        codes = self._tables.decode(bodies, [shape] * len(bodies))
        for one in codes:
            if one.shape != shape or (one.size and int(one.max()) >> self.header.bits):
                raise BitstreamError("codes that its model does not have")
        return codes

    def _note(self, damage: Damage) -> None:
        if self._strict:
            where = damage.describe(self.announced.frame_rate)
            raise BitstreamError(f"{self._source.name} is damaged: {where}")
        if len(self.damage) < _MOST_DAMAGE and damage not in self.damage[-32:]:
            self.damage.append(damage)

    def _check_not_version_1(self, data: bytes) -> None:
        """Tells a version 1 file whose version byte is damaged from one of version 0."""
        name = self._source.name
        last = START.size - 1
        turned = data[:last] + b"\1" + data[last + 1 :]
        try:
            size = header_bytes(turned, name)
            data = self._source.peek(size)
            parse((data[:last] + b"\1" + data[last + 1 :])[:size], name)
        except BitstreamError:
            return
        raise BitstreamError(f"{name} is damaged: the version in its header is wrong")


def _part(block: Block, first: int, stop: int | None) -> Block | None:
    """The part of a block that lies in a range of frames."""
    start = max(first - block.first_frame, 0)
    end = block.frames if stop is None else min(stop - block.first_frame, block.frames)
    if start == 0 and end == block.frames:
        return block
    if start >= end:
        return None
    codes = None if block.codes is None else block.codes[:, :, start:end]
    return Block(block.first_frame + start, end - start, codes)
