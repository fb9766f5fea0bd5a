"""Bytes of a file or a pipe, looked at before they are taken."""

import io
from typing import BinaryIO

from codec.audio_files import source_name

# What one read asks for, at the most and at the least where more than is needed does not wait.
_MOST = 1 << 20
_LEAST = 1 << 16


class ByteSource:
    """Reads a file from where it stands. Memory is that of the longest look ahead.

    Attributes:
        name: what to call the file in a message.
        position: bytes taken, counted from where the file stood.
        size: bytes from there to the end; none for a pipe.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.name = source_name(file, "the stream")
        self.position = 0
        self.size: int | None = None
        self._file = file
        self._start = 0
        self._buffer = bytearray()
        self._taken = 0  # of the buffer
        self._ended = False
        if is_seekable(file):
            self._start = file.tell()
            self.size = max(0, file.seek(0, io.SEEK_END) - self._start)
            file.seek(self._start)
        # read1 gives what there is instead of waiting for all that was asked for.
        read1 = getattr(file, "read1", None)
        self._read = read1 or file.read
        self._ahead = read1 is not None or self.size is not None

    @property
    def ended(self) -> bool:
        """Whether the last look ahead reached the end."""
        return self._ended

    def peek(self, count: int) -> bytes:
        """The bytes that come next: `count` and what has been read beyond, fewer only at the end.

        Waits for no more than `count` bytes.
        """
        while len(self._buffer) - self._taken < count and not self._ended:
            missing = count - len(self._buffer) + self._taken
            piece = self._read(min(max(missing, _LEAST) if self._ahead else missing, _MOST))
            self._buffer += piece or b""
            self._ended = not piece
        return bytes(memoryview(self._buffer)[self._taken :])

    def skip(self, count: int) -> None:
        """Takes bytes that `peek` has shown."""
        self._taken += count
        self.position += count
        if self._taken == len(self._buffer) or self._taken > _MOST:
            del self._buffer[: self._taken]
            self._taken = 0

    def seek(self, position: int) -> None:
        """Goes to a place of a file that has a size."""
        held = position - self.position + self._taken
        if 0 <= held <= len(self._buffer):
            self._taken, self.position = held, position
            return
        self._buffer.clear()
        self._taken, self._ended, self.position = 0, False, position
        self._file.seek(self._start + position)


def is_seekable(file: BinaryIO) -> bool:
    """Whether one can go back and forth in a file; pipes and sockets: no."""
    try:
        return file.seekable()
    except (AttributeError, ValueError, OSError):
        return False
