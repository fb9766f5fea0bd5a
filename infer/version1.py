"""The blocks of a `.sc` file of version 1: read in their order, checked, reached directly."""

import dataclasses
import zlib
from collections.abc import Iterator

from infer.blocks import Damage, Note, Record
from infer.bytesource import ByteSource
from infer.header import Header
from infer.records import INDEX_STEP, SHORTEST_END, End, Layout
from infer.search import Search

# Records handled at a time hold about so many codes, and are at most so many.
_RUN_CODES = 1 << 17
_RUN_RECORDS = 512


class Body:
    """Reads what comes after the header.

    Attributes:
        header: with the frames and source_samples of the end record as soon as it has been read:
            at once where the file has a size, at the end otherwise.
        complete: whether the end record has been read.
        number: of the block that comes next.
    """

    def __init__(self, source: ByteSource, header: Header, note: Note) -> None:
        self.header = header
        self.complete = False
        self.number = 0
        self._source = source
        self._note = note
        self._layout = Layout(header)
        self._search = Search(source, header, self._layout)
        self._first = source.position
        self._next_frame = 0
        self._end_position: int | None = None
        codes = header.codes_per_frame * header.block_frames
        self._most_in_run = min(_RUN_RECORDS, max(1, _RUN_CODES // codes))
        if source.size is not None:
            self._find_end(source.size)

    @property
    def frames(self) -> int | None:
        """Frames of the file as its end counts them; none: it has not been read."""
        return self.header.frames if self.complete else None

    def runs(self, first: int, stop: int | None) -> Iterator[list[Record]]:
        """Records of the blocks from `first` on (or some before it) and before `stop`.

        Lost blocks come as records without a body. What is wrong is noted as it is met.
        """
        if self._source.size is not None:
            self._go_to(first)
        while stop is None or self.number < stop:
            run = self._whole_run(stop)
            if run:
                if run[0].first_frame != self._next_frame:
                    self._note(Damage(self._next_frame, 0, "a block is shorter than it should be"))
                self.number += len(run)
                self._next_frame = run[-1].first_frame + run[-1].frames
                yield run
            elif self._take_end():
                return
            else:
                start = self._source.position
                beginning = self._source.peek(self._layout.full)[: self._layout.full]
                found = self._search.next_record(self.number)
                if found is None:
                    yield from self._broken_off(beginning)
                    return
                yield from self._lost(found.frames_before, self._source.position - start)
                self.number = found.number

    def _whole_run(self, stop: int | None) -> list[Record]:
        """The records that come next, as many as are there, whole and in their order."""
        layout, block_frames, first = self._layout, self.header.block_frames, self.number
        most = self._most_in_run if stop is None else min(self._most_in_run, stop - first)
        data = self._source.peek(layout.prefix)
        size = layout.size_at(data, 0)
        if size > len(data):
            data = self._source.peek(size)
        run: list[Record] = []
        at = 0
        while size and at + size <= len(data) and len(run) < most:
            number = first + len(run)
            if not layout.is_whole(data, at, size, number):
                break
            frames = layout.frames_at(data, at)
            run.append(Record(number * block_frames, frames, layout.body_at(data, at, size)))
            at += size
            if frames < block_frames:
                break
            size = layout.size_at(data, at)
        self._source.skip(at)
        return run

    def _lost(self, frame: int, skipped: int) -> Iterator[list[Record]]:
        """Gives records without a body from here to `frame`."""
        lost = frame - self._next_frame
        if lost > 0:
            reason = "the checksum is wrong" if skipped else "blocks are missing"
            self._note(Damage(self._next_frame, lost, reason))
        else:
            self._note(Damage(self._next_frame, 0, f"{skipped} bytes that belong to no block"))
        block = self.header.block_frames
        while self._next_frame < frame:
            first = self._next_frame
            self._next_frame = min(frame, (first // block + 1) * block)
            yield [Record(first, self._next_frame - first, None)]

    def _broken_off(self, beginning: bytes) -> Iterator[list[Record]]:
        """Gives the whole frames of a block that a fixed-rate file breaks off in.

        Its checksum is not there, but what came before it was right.
        """
        header, layout = self.header, self._layout
        size = layout.size_at(beginning, 0)
        is_end = len(beginning) >= SHORTEST_END and layout.end_size(beginning[-8:]) == len(
            beginning
        )
        if not header.compact and size > len(beginning) and not is_end:
            bits = (len(beginning) - layout.prefix) * 8
            held = min(
                bits // (header.codes_per_frame * header.bits), layout.frames_at(beginning, 0)
            )
            if header.frames is not None:
                held = min(held, header.frames - self._next_frame)
            if held > 0:
                body = beginning[layout.prefix :][: layout.body_bytes(held)]
                yield [Record(self._next_frame, held, body)]
                self._next_frame += held
        if header.frames == self._next_frame:
            self._note(Damage(self._next_frame, 0, "the record of its end is missing or damaged"))
        else:
            self._note(Damage(self._next_frame, None, "the file is cut short"))

    def _take_end(self) -> bool:
        """Takes the end record, if it comes next, and notes what does not fit it."""
        source, layout = self._source, self._layout
        end = layout.end_at(source.peek(SHORTEST_END), 0)
        if end is None or layout.blocks_of(end.frames) != self.number:
            return False
        if not layout.is_end(source.peek(end.size), 0, end):
            return False
        source.skip(end.size)
        said = self.header.frames
        if end.frames != self._next_frame:
            self._note(Damage(self._next_frame, 0, f"its end counts {end.frames} frames"))
        if said is not None and said != end.frames:
            self._note(Damage(end.frames, 0, f"its header counts {said} frames"))
        if source.peek(1):
            self._note(Damage(end.frames, 0, "the file goes on after its end"))
        self._complete(end)
        return True

    def _complete(self, end: End) -> None:
        self.complete = True
        samples = end.source_samples
        if samples is None:
            samples = self.header.source_samples
        self.header = dataclasses.replace(self.header, frames=end.frames, source_samples=samples)

    def _find_end(self, size: int) -> None:
        """Reads the end record from the end of the file, and goes back to the first block."""
        source = self._source
        if size - self._first >= SHORTEST_END:
            source.seek(size - 8)
            length = self._layout.end_size(source.peek(8).ljust(8, b"\0"))
            if SHORTEST_END <= length <= size - self._first:
                source.seek(size - length)
                end = self._layout.end_at(source.peek(SHORTEST_END), 0)
                if end is not None and end.size == length and self._is_whole(end):
                    self._end_position = size - length
                    said = self.header.frames
                    if said is not None and said != end.frames:
                        self._note(Damage(end.frames, 0, f"its header counts {said} frames"))
                    self._complete(end)
        source.seek(self._first)

    def _is_whole(self, end: End) -> bool:
        """Checks an end record, which may be long in a long compact file, a piece at a time."""
        source, crc, left = self._source, 0, end.size - 4
        while left and (data := source.peek(1)[:left]):
            crc = zlib.crc32(data, crc)
            left -= len(data)
            source.skip(len(data))
        check = int.from_bytes(source.peek(4)[:4])
        return not left and self._layout.is_end_crc(crc, check, end)

    def _go_to(self, wanted: int) -> None:
        """Goes to block `wanted`, or to one before it from where it can be reached."""
        if self.complete and self.header.frames is not None:
            wanted = min(wanted, self._layout.blocks_of(self.header.frames))
        for number, position in self._places(wanted):
            self._source.seek(position)
            self.number = number
            if number == 0 or self._is_here(number):
                break
        self._next_frame = self.number * self.header.block_frames
        if self.complete and self.header.frames is not None:
            self._next_frame = min(self._next_frame, self.header.frames)

    def _is_here(self, number: int) -> bool:
        """Whether block `number` comes next, or the end behind the one before it."""
        source, layout = self._source, self._layout
        size = layout.size_at(source.peek(layout.prefix), 0)
        if size:
            data = source.peek(size)
            return len(data) >= size and layout.is_whole(data, 0, size, number)
        return source.position == self._end_position

    def _places(self, wanted: int) -> Iterator[tuple[int, int]]:
        """Where to look for a block: its own place, those of some before it, the first one's."""
        if not self.header.compact:
            for number in [wanted - back for back in (0, 1, 2, 4, 8, 16)]:
                if number > 0:
                    yield number, self._first + number * self._layout.full
        elif self._end_position is not None:
            nearest = (
                min(wanted, self._layout.blocks_of(self.header.frames or 0) - 1)
                // INDEX_STEP
                * INDEX_STEP
            )
            for number in (nearest, nearest - INDEX_STEP):
                if number > 0:
                    self._source.seek(self._end_position + self._layout.index_entry(number))
                    position = int.from_bytes(self._source.peek(8)[:8])
                    if self._first < position < self._end_position:
                        yield number, position
        yield 0, self._first
