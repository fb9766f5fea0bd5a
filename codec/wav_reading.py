"""What the chunks of a WAV file say, which FFmpeg passes over: whether the file is cut."""

import os
import struct
from typing import BinaryIO

_UNKNOWN = 0xFFFFFFFF  # of a stream; its like from 0x7FFFF000 up, and 0, are written, too
_STREAMED = 0x7FFFF000
_MOST_CHUNKS = 64


def missing_bytes(file: BinaryIO) -> int:
    """Bytes of sound that a WAV file announces beyond its end; 0 for any other file.

    Sizes as of a stream, which were not known when they were written, announce nothing.

    Args:
        file: can seek; read from its beginning.
    """
    end = file.seek(0, os.SEEK_END)
    file.seek(0)
    head = file.read(12)
    if head[:4] not in (b"RIFF", b"RF64") or head[8:] != b"WAVE":
        return 0
    large = None
    for _ in range(_MOST_CHUNKS):
        chunk = file.read(8)
        if len(chunk) < 8:
            return 0
        size = int(struct.unpack("<I", chunk[4:])[0])
        start = file.tell()
        if chunk[:4] == b"ds64":
            large = int.from_bytes(file.read(16)[8:], "little")
        elif chunk[:4] == b"data":
            if size == _UNKNOWN and large is not None:
                size = large
            elif size >= _STREAMED and head[:4] == b"RIFF" and end - start < _STREAMED:
                return 0
            return max(0, size - (end - start))
        file.seek(start + size + size % 2)
    return 0
