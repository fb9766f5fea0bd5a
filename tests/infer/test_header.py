import io
import struct
import zlib

import numpy as np
import pytest

from codec.errors import BitstreamError
from infer.bitstream import Reader
from tests.support.bitstreams import MODEL, Pipe, joined, random_codes, read_all, written

CODES = random_codes((1, 2, 22))


def small() -> bytes:
    return written(CODES, MODEL)


def with_header(data: bytes, header: bytes) -> bytes:
    """The file with another header, its length and checksum made right."""
    header = header[:27] + struct.pack(">H", len(header) + 4) + header[29:]
    return header + struct.pack(">I", zlib.crc32(header)) + data[62:]


def with_fields(*fields: tuple[int, bytes]) -> bytes:
    data = small()
    packed = b"".join(struct.pack(">BH", kind, len(value)) + value for kind, value in fields)
    return with_header(data, data[:58] + packed)


@pytest.mark.parametrize("source", [io.BytesIO, Pipe], ids=["file", "pipe"])
def test_unknown_optional_fields_are_skipped(source: type) -> None:
    data = with_fields((1, b"hello"), (0x7F, b""), (0, bytes(60_000)))
    reader, blocks = read_all(source(data), strict=True)
    np.testing.assert_array_equal(joined(blocks, CODES), CODES)
    assert reader.header == Reader(io.BytesIO(small())).header


@pytest.mark.parametrize(
    ("data", "message"),
    [
        pytest.param(with_fields((0x80, b"")), "understanding field 128", id="critical-field"),
        pytest.param(with_fields((1, b""), (0xFF, b"abc")), "field 255", id="critical-behind"),
        pytest.param(with_fields((0x81, bytes(16))), "tables without compact", id="tables"),
        pytest.param(with_fields((0x81, bytes(15))), "fields .* do not fit", id="short-tables"),
        pytest.param(
            with_header(small(), small()[:58] + b"\1\0\2a"), "do not fit", id="field-too-long"
        ),
        pytest.param(with_header(small(), small()[:58] + b"\1\0"), "do not fit", id="half-field"),
        pytest.param(
            with_header(small(), small()[:40] + b"\2" + small()[41:58]), "number 2", id="coding"
        ),
        pytest.param(
            with_header(small(), small()[:40] + b"\1" + small()[41:58]),
            "without probability tables",
            id="compact-without-tables",
        ),
        pytest.param(
            with_header(small(), small()[:37] + b"\0\0" + small()[39:58]),
            "0 frames a block",
            id="no-block",
        ),
        pytest.param(
            with_header(small(), small()[:29] + bytes(4) + small()[33:58]), "0 Hz", id="no-rate"
        ),
        pytest.param(with_header(small(), small()[:54] + b"\x7f" * 4), "a gain of 2.13", id="gain"),
        pytest.param(
            with_header(
                small(), small()[:8] + b"\xff" + small()[9:37] + b"\xff" * 3 + small()[40:58]
            ),
            "codes a block",
            id="huge-blocks",
        ),
        pytest.param(small()[:27] + b"\0\x3d" + small()[29:], "cannot have 61 bytes", id="length"),
        pytest.param(small()[:61], "61 of the 62 bytes of its header", id="cut"),
        pytest.param(with_fields((1, b"abc"))[:66], "66 of the 68 bytes", id="cut-in-fields"),
        pytest.param(small()[:30] + b"?" + small()[31:], "checksum of its header", id="checksum"),
        pytest.param(
            small()[:26] + b"\2" + small()[27:], "version 2 and this Sotto reads", id="newer"
        ),
        pytest.param(small()[:26] + b"\0" + small()[27:], "version in its header", id="not-0"),
    ],
)
def test_headers_that_cannot_be_used_say_why(data: bytes, message: str, tmp_path) -> None:
    path = tmp_path / "bad.sc"
    path.write_bytes(data)
    with open(path, "rb") as file, pytest.raises(BitstreamError, match=message) as caught:
        Reader(file)
    assert "bad.sc" in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(BitstreamError, match=message):
        Reader(Pipe(data, most=3))
