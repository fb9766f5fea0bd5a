import io

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from codec.errors import BitstreamError
from infer import version0
from infer.header import MAGIC, Header
from infer.packing import pack

FINGERPRINT = "00112233445566778899aabbccddeeff"
# Two codebooks of three frames, by hand. Codes of 10 bits, frame by frame:
#   0000000001 1111111111 | 1000000000 0000000010 | 0000000000 1010101010, and 4 bits of filling
#   00000000 01111111 11111000 00000000 00000010 00000000 00101010 1010 + 0000
TEN_BITS = bytes.fromhex(
    "12121212 00000003 02 0a 00112233445566778899aabbccddeeff 00  00 7f f8 00 02 00 2a a0"
)
TEN_BIT_CODES = [[1, 512, 0], [1023, 2, 682]]
# One codebook of four frames, codes of 3 bits: 101 000 111 110 and 4 bits: 10100011 11100000
THREE_BITS = bytes.fromhex("12121212 00000004 01 03 ffffffffffffffffffffffffffffffff 00  a3 e0")
THREE_BIT_CODES = [[5, 0, 7, 6]]
VECTORS = pytest.mark.parametrize(
    ("data", "codes", "bits", "fingerprint"),
    [
        pytest.param(TEN_BITS, TEN_BIT_CODES, 10, FINGERPRINT, id="2-codebooks-of-10-bits"),
        pytest.param(THREE_BITS, THREE_BIT_CODES, 3, "f" * 32, id="1-codebook-of-3-bits"),
    ],
)


def encoded(codes: np.ndarray, bits: int) -> bytes:
    file = io.BytesIO()
    version0.write(file, codes, bits=bits, fingerprint=FINGERPRINT)
    return file.getvalue()


def message_of(data: bytes) -> str:
    with pytest.raises(BitstreamError) as caught:
        version0.read(io.BytesIO(data))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@st.composite
def coded(draw: st.DrawFn) -> tuple[np.ndarray, int]:
    """Codes of any shape that the quick tests can afford, and their bits."""
    bits = draw(st.integers(1, 16))
    shape = (draw(st.integers(1, 32)), draw(st.integers(0, 50)))
    dtype = draw(st.sampled_from([np.uint16, np.int64]))
    return draw(hnp.arrays(dtype, shape, elements=st.integers(0, 2**bits - 1))), bits


@VECTORS
def test_writes_the_test_vector(
    data: bytes, codes: list[list[int]], bits: int, fingerprint: str
) -> None:
    file = io.BytesIO()
    version0.write(file, np.array(codes), bits=bits, fingerprint=fingerprint)
    assert file.getvalue() == data


@VECTORS
def test_reads_the_test_vector(
    data: bytes, codes: list[list[int]], bits: int, fingerprint: str
) -> None:
    header, read = version0.read(io.BytesIO(data))
    assert read.tolist() == codes
    assert header == Header(0, len(codes[0]), len(codes), bits, fingerprint).checked()


@given(coded())
@settings(deadline=None, max_examples=60)
def test_every_shape_comes_back(case: tuple[np.ndarray, int]) -> None:
    codes, bits = case
    header, read = version0.read(io.BytesIO(encoded(codes, bits)))
    assert read.dtype == np.uint16
    np.testing.assert_array_equal(read, codes)
    assert (header.n_quantizers, header.frames) == codes.shape


@pytest.mark.parametrize("n_quantizers", [1, 7, 8, 255])
@pytest.mark.parametrize("bits", [1, 10, 13])
def test_long_files_are_the_same_bits_as_short_ones(n_quantizers: int, bits: int) -> None:
    # Long enough to be packed in several pieces.
    frames = 100_003 // n_quantizers
    codes = np.random.default_rng(0).integers(0, 2**bits, (n_quantizers, frames))
    data = encoded(codes, bits)
    assert data[27:] == pack(codes.T.reshape(-1), bits)
    np.testing.assert_array_equal(version0.read(io.BytesIO(data))[1], codes)


@given(coded(), st.data())
@settings(deadline=None, max_examples=60)
def test_any_truncation_is_noticed(case: tuple[np.ndarray, int], data: st.DataObject) -> None:
    whole = encoded(*case)
    message_of(whole[: data.draw(st.integers(0, len(whole) - 1))])


@given(coded(), st.binary(min_size=1, max_size=3))
@settings(deadline=None, max_examples=30)
def test_trailing_bytes_are_noticed(case: tuple[np.ndarray, int], extra: bytes) -> None:
    assert "goes on after" in message_of(encoded(*case) + extra)


@pytest.mark.parametrize("bit", [*range(32), *range(26 * 8, 27 * 8)])
def test_a_flipped_bit_of_magic_or_version_is_noticed(bit: int) -> None:
    damaged = bytearray(TEN_BITS)
    damaged[bit // 8] ^= 1 << bit % 8
    message = message_of(bytes(damaged))
    assert ("not a .sc file" if bit < 32 else "version") in message


@given(st.integers(0, 27 * 8 - 1), coded())
@settings(deadline=None, max_examples=100)
def test_a_flipped_bit_of_the_header_never_passes_for_the_same_file(
    bit: int, case: tuple[np.ndarray, int]
) -> None:
    codes, bits = case
    damaged = bytearray(encoded(codes, bits))
    damaged[bit // 8] ^= 1 << bit % 8
    try:
        header, _ = version0.read(io.BytesIO(bytes(damaged)))
    except BitstreamError:
        return
    assert header != Header(0, codes.shape[1], codes.shape[0], bits, FINGERPRINT).checked()


@given(st.binary(max_size=60))
@settings(deadline=None, max_examples=100)
def test_foreign_bytes_are_refused(data: bytes) -> None:
    assume(data[:4] != MAGIC)
    message_of(data)


@given(st.binary(max_size=60))
@settings(deadline=None, max_examples=200)
def test_random_bytes_behind_the_magic_raise_nothing_else(data: bytes) -> None:
    try:
        header, codes = version0.read(io.BytesIO(MAGIC + data))
    except BitstreamError:
        return
    # What reads has one right form: writing it gives the same bytes.
    file = io.BytesIO()
    version0.write(file, codes, bits=header.bits, fingerprint=header.fingerprint)
    assert file.getvalue() == MAGIC + data


@pytest.mark.parametrize(
    ("data", "message"),
    [
        pytest.param(b"", "is empty", id="empty"),
        pytest.param(b"RIFF", "begins with 52 49 46 46, not 12 12 12 12", id="wav"),
        pytest.param(TEN_BITS[:20], "20 of the 27 bytes of its header", id="cut-in-the-header"),
        pytest.param(TEN_BITS[:27], "0 of its 3 frames", id="no-body"),
        pytest.param(TEN_BITS[:30], "1 of its 3 frames", id="cut-after-a-frame"),
        pytest.param(TEN_BITS[:-1], "2 of its 3 frames", id="last-byte-missing"),
        pytest.param(TEN_BITS + b"\0", "goes on after the 3 frames", id="trailing-byte"),
        pytest.param(TEN_BITS[:-1] + b"\xa1", "bits after the last code", id="filling"),
        pytest.param(TEN_BITS[:8] + b"\0" + TEN_BITS[9:], "0 codebooks", id="no-codebooks"),
        pytest.param(TEN_BITS[:9] + b"\0" + TEN_BITS[10:], "0 bits of a code", id="no-bits"),
        pytest.param(TEN_BITS[:9] + b"\x11" + TEN_BITS[10:], "17 bits of a code", id="17-bits"),
        pytest.param(TEN_BITS[:26] + b"\1" + TEN_BITS[27:], "version 1, not 0", id="version-1"),
    ],
)
def test_what_is_wrong_is_said(data: bytes, message: str) -> None:
    assert message in message_of(data)


def test_a_message_names_the_file(tmp_path) -> None:
    path = tmp_path / "cut.sc"
    path.write_bytes(TEN_BITS[:30])
    with (
        open(path, "rb") as file,
        pytest.raises(BitstreamError, match=r"cut\.sc is damaged: the file is cut short"),
    ):
        version0.read(file)


class Counting(io.BytesIO):
    """Remembers the most that was asked for at once."""

    most = 0

    def read(self, size: int | None = -1, /) -> bytes:
        assert size is not None and size >= 0
        self.most = max(self.most, size)
        return super().read(size)


def test_a_header_that_claims_billions_of_frames_allocates_nothing() -> None:
    file = Counting(MAGIC + b"\xff" * 5 + b"\x10" + b"\0" * 17 + b"\1\2\3")
    with pytest.raises(BitstreamError, match="0 of its 4294967295 frames"):
        version0.read(file)
    assert file.most <= 1 << 20


def test_a_pipe_is_read_without_seeking() -> None:
    class Pipe(io.RawIOBase):
        """Gives a few bytes at a time, as pipes do."""

        def __init__(self, data: bytes) -> None:
            self.data = io.BytesIO(data)

        def readable(self) -> bool:
            return True

        def readinto(self, buffer) -> int:
            piece = self.data.read(min(5, len(buffer)))
            buffer[: len(piece)] = piece
            return len(piece)

    assert version0.read(Pipe(TEN_BITS))[1].tolist() == TEN_BIT_CODES


@pytest.mark.parametrize(
    ("codes", "bits", "fingerprint", "message"),
    [
        pytest.param([[0, 8]], 3, FINGERPRINT, "code 8 does not fit 3 bits", id="too-large"),
        pytest.param([[-1, 0]], 3, FINGERPRINT, "code -1 does not fit", id="negative"),
        pytest.param([[0]], 0, FINGERPRINT, "0 bits of a code", id="no-bits"),
        pytest.param([[0]], 17, FINGERPRINT, "17 bits of a code", id="17-bits"),
        pytest.param([0], 3, FINGERPRINT, r"shape \(1,\)", id="one-dimension"),
        pytest.param([[0.5]], 3, FINGERPRINT, "not float64", id="fractions"),
        pytest.param([[0]] * 256, 3, FINGERPRINT, "256 codebooks", id="256-codebooks"),
        pytest.param(np.zeros((0, 3), int), 3, FINGERPRINT, "0 codebooks", id="no-codebooks"),
        pytest.param([[0]], 3, "abc", "32 hex digits", id="short-fingerprint"),
        pytest.param([[0]], 3, "g" * 32, "32 hex digits", id="no-hex"),
    ],
)
def test_what_cannot_be_stored_is_refused_before_the_first_byte(
    codes: list, bits: int, fingerprint: str, message: str
) -> None:
    file = io.BytesIO()
    with pytest.raises(BitstreamError, match=message):
        version0.write(file, np.array(codes), bits=bits, fingerprint=fingerprint)
    assert file.getvalue() == b""
