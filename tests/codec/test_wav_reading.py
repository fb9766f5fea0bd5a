import io
import struct

import pytest

from codec.wav_reading import missing_bytes


def wav(size: int, held: int, *, head: bytes = b"RIFF", before: bytes = b"") -> io.BytesIO:
    """A file whose data chunk says `size` and which has so many bytes of it."""
    form = b"fmt " + struct.pack("<I", 16) + bytes(16)
    data = b"data" + struct.pack("<I", size) + bytes(held)
    return io.BytesIO(head + bytes(4) + b"WAVE" + before + form + data)


def ds64(data: int) -> bytes:
    return b"ds64" + struct.pack("<IQQQI", 28, 0, data, 0, 0)


@pytest.mark.parametrize(
    ("file", "missing"),
    [
        pytest.param(wav(100, 100), 0, id="whole"),
        pytest.param(wav(100, 40), 60, id="cut"),
        pytest.param(wav(99, 100), 0, id="padded"),
        pytest.param(wav(100, 40, before=b"LIST" + struct.pack("<I", 3) + bytes(4)), 60, id="odd"),
        pytest.param(wav(0xFFFFFFFF, 40), 0, id="streamed"),
        pytest.param(wav(0x7FFFFFFF, 40), 0, id="streamed-by-others"),
        pytest.param(wav(0, 40), 0, id="never-finished"),
        pytest.param(wav(0xFFFFFFFF, 40, head=b"RF64", before=ds64(50)), 10, id="rf64-cut"),
        pytest.param(wav(0xFFFFFFFF, 40, head=b"RF64", before=ds64(40)), 0, id="rf64"),
        pytest.param(io.BytesIO(b"RIFF....WAVEfm"), 0, id="header-cut"),
        pytest.param(io.BytesIO(b"fLaC" + bytes(100)), 0, id="other"),
        pytest.param(io.BytesIO(b""), 0, id="empty"),
        pytest.param(io.BytesIO(b"RIFF....WAVE" + bytes(1000)), 0, id="no-chunks"),
    ],
)
def test_what_is_announced_beyond_the_end_is_missing(file: io.BytesIO, missing: int) -> None:
    assert missing_bytes(file) == missing
