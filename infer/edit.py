"""`.sc` files made smaller, shorter, or checked, without a model and in constant memory."""

import dataclasses
import itertools
from dataclasses import dataclass
from fractions import Fraction
from typing import BinaryIO

from codec.errors import BitstreamError
from infer.blocks import Damage, Tables
from infer.header import Header
from infer.reader import Reader
from infer.writer import Writer

# A file whose end tells of frames that are nowhere is filled up with so many lost blocks at most.
_MOST_LOST = 1 << 16


@dataclass(frozen=True)
class Edited:
    """What became of a file.

    Attributes:
        header: of the file written.
        damage: found in the part of the source that was read.
    """

    header: Header
    damage: list[Damage]


@dataclass(frozen=True)
class Verification:
    """What is to be said of a file.

    Attributes:
        header: of the file, completed from its end.
        blocks: that are whole (version 0: pieces of it, which carry no checks).
        damaged: what is wrong, in the order of the file.
        complete: whether the file goes on to its end.
        seconds: of audio that can be decoded; none: version 0 does not tell.
    """

    header: Header
    blocks: int
    damaged: list[Damage]
    complete: bool
    seconds: float | None

    @property
    def ok(self) -> bool:
        """Whether nothing at all is wrong."""
        return self.complete and not self.damaged


def trim(
    source: BinaryIO, target: BinaryIO, n_quantizers: int, *, tables: Tables | None = None
) -> Edited:
    """Drops all codebooks but the first `n_quantizers`: the same speech at a lower rate.

    Damaged blocks stay damaged. A source that breaks off gives a file that ends there.

    Args:
        source: a `.sc` file, seekable or not, of any version; the target is of the same.
        target: anything that takes bytes.
        n_quantizers: 1 to those of the source.
        tables: of the model that made the file; needed if it is compact.

    Raises:
        BitstreamError: the source cannot be read, is compact and there are no tables, or has fewer
            codebooks; nothing has been written then.
    """
    reader = Reader(source, tables=tables)
    header = reader.header
    if not 1 <= n_quantizers <= header.n_quantizers:
        raise BitstreamError(
            f"{n_quantizers} codebooks cannot be kept: the file has 1 to {header.n_quantizers}"
        )
    return _copy(reader, target, _Part(n_quantizers, 0, reader.frames), tables)


def cut(
    source: BinaryIO,
    target: BinaryIO,
    start_frame: int,
    stop_frame: int | None,
    *,
    tables: Tables | None = None,
) -> Edited:
    """Takes the frames from `start_frame` to before `stop_frame` (none: to the end).

    The target's `source_samples` are those of the source that these frames were made of. Damaged
    blocks damage the blocks of the target that they reach into.

    Args:
        source: a `.sc` file, seekable or not, of any version; the target is of the same.
        target: anything that takes bytes.
        start_frame: 0 or more.
        stop_frame: more than that; beyond the end means the end.
        tables: of the model that made the file; needed if it is compact.

    Raises:
        BitstreamError: the source cannot be read, is compact and there are no tables, or has no
            such frames.
    """
    reader = Reader(source, tables=tables)
    known = reader.frames
    stop = known if stop_frame is None else stop_frame
    if known is not None and stop is not None:
        stop = min(stop, known)
    if start_frame < 0 or (stop is not None and start_frame >= stop):
        there = "" if known is None else f": the file has {known}"
        to = "the end" if stop_frame is None else stop_frame
        raise BitstreamError(f"there are no frames from {start_frame} to {to}{there}")
    part = _Part(reader.header.n_quantizers, start_frame, stop)
    return _copy(reader, target, part, tables)


def verify(source: BinaryIO) -> Verification:
    """Checks every block; needs no model and no tables.

    Raises:
        BitstreamError: the header cannot be read.
    """
    reader = Reader(source)
    whole = frames = 0
    for record in reader.records():
        if record.body is not None:
            whole += 1
            frames += record.frames
    header = reader.header
    seconds = header.seconds
    if header.frame_rate is not None and (seconds is None or frames != header.frames):
        seconds = frames / header.frame_rate
    return Verification(header, whole, reader.damage, reader.complete, seconds)


@dataclass(frozen=True)
class _Part:
    """What to keep: codebooks, and frames from `start` to before `stop` (none: to the end)."""

    n_quantizers: int
    start: int
    stop: int | None


def _copy(reader: Reader, target: BinaryIO, part: _Part, tables: Tables | None) -> Edited:
    """Writes a part of a file; the header tells beforehand what the source's header told."""
    header = reader.header
    frames = None if part.stop is None else part.stop - part.start
    if reader.announced.frames is None or reader.frames is None:
        frames = None
    samples = _samples(header, part.start, part.stop, reader.frames)
    announced = None if reader.announced.source_samples is None else samples
    goal = dataclasses.replace(
        header, n_quantizers=part.n_quantizers, frames=frames, source_samples=announced
    )
    blocks = reader.blocks(part.start, None if part.stop is None else part.stop - part.start)
    first = next(blocks, None)
    if first is None and part.start > 0:
        raise BitstreamError(f"there are no frames from {part.start} on")
    writer = Writer(target, goal, tables=tables)
    for block in itertools.chain([] if first is None else [first], blocks):
        if block.codes is None:
            writer.write_lost(block.frames)
        else:
            writer.write(block.codes[:, : part.n_quantizers])
    missing = 0 if frames is None else frames - writer.frames
    if header.version == 1 and 0 < missing <= _MOST_LOST * header.block_frames:
        writer.write_lost(missing)
    samples = _samples(header, part.start, part.start + writer.frames, reader.frames)
    return Edited(writer.finish(source_samples=samples), reader.damage)


def _samples(header: Header, start: int, stop: int | None, end: int | None) -> int | None:
    """Samples of the source that frames from `start` to before `stop` were made of."""
    rate, model_rate, hop = header.source_rate, header.sample_rate, header.hop_length
    if rate is None or model_rate is None or hop is None:
        return header.source_samples if start == 0 and stop == end else None
    first, last = (
        None if frame is None else round(Fraction(frame * hop * rate, model_rate))
        for frame in (start, stop)
    )
    if header.source_samples is not None:
        if last is None or stop == end:
            last = header.source_samples
        last = min(last, header.source_samples)
    elif stop == end:
        return None
    return None if last is None or first is None else max(0, last - first)
