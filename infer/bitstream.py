"""The `.sc` format, version 0: codes of a known model in a header of 27 bytes and a packed body.

All numbers are big-endian, as the body is: bit for bit the file reads from left to right.

====== ===== ==================================================================================
offset bytes content
====== ===== ==================================================================================
0      4     magic, 0x12121212
4      4     frames, unsigned
8      1     codebooks, 1 to 255
9      1     bits of a code, 1 to 16
10     16    fingerprint of the model that made the codes
26     1     version, 0
27     ...   body: for each frame the codes of codebook 0, 1, ..., each most significant bit first,
             with nothing between them; the last byte is filled up with zero bits
====== ===== ==================================================================================

The file ends with the body, so its length follows from the header. The length, rate and channels of
the audio are not stored: decoding gives whole frames at the model's rate. The magic and the version
keep their places in every later version, which is free to lay out the rest anew.
"""

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from codec.errors import BitstreamError

MAGIC = bytes.fromhex("12121212")
VERSION = 0
MAX_BITS = 16
MAX_QUANTIZERS = 255
MAX_FRAMES = 2**32 - 1

_HEADER = struct.Struct(">4sIBB16sB")
_READ_BYTES = 1 << 20
# Codes packed at a time: what is worked on stays in the processor's second-level cache.
_CHUNK_CODES = 1 << 15


@dataclass(frozen=True)
class Header:
    """What a `.sc` file says of itself.

    Attributes:
        frames: number of frames, 0 to 2^32 - 1.
        n_quantizers: codebooks used per frame, 1 to 255.
        bits: bits of one code, 1 to 16.
        fingerprint: the model's, 32 lower-case hex digits.
        version: of the format.
    """

    frames: int
    n_quantizers: int
    bits: int
    fingerprint: str
    version: int = VERSION

    @property
    def body_bytes(self) -> int:
        """Bytes of the packed codes."""
        return -(-self.frames * self.n_quantizers * self.bits // 8)

    @property
    def file_bytes(self) -> int:
        """Bytes of the whole file."""
        return _HEADER.size + self.body_bytes

    def frames_in(self, file_bytes: int) -> int:
        """Whole frames that the first `file_bytes` bytes of the file hold, at most `frames`."""
        bits = max(0, file_bytes - _HEADER.size) * 8
        return min(self.frames, bits // (self.n_quantizers * self.bits))


def pack(codes: NDArray[np.integer], bits: int) -> bytes:
    """Packs codes into bytes, most significant bit first, zero bits to the end of the last byte.

    Args:
        codes: (n,) integers in 0 .. 2^bits - 1 (not checked here).
        bits: 1 to 16.
    """
    group, size = _group(bits)
    padded = np.zeros((-(-len(codes) // group), group), np.uint16)
    padded.reshape(-1)[: len(codes)] = codes
    packed = np.zeros((len(padded), size), np.uint8)
    for byte, code, shift in _overlaps(bits):
        column = padded[:, code]
        # Bits that belong to the bytes beside this one fall off in the cast.
        part = column >> np.uint16(shift) if shift >= 0 else column << np.uint16(-shift)
        packed[:, byte] |= part.astype(np.uint8)
    return packed.tobytes()[: -(-len(codes) * bits // 8)]


def unpack(data: bytes, count: int, bits: int) -> NDArray[np.uint16]:
    """Unpacks `count` codes of `bits` bits from bytes that `pack` made: (count,) uint16.

    Raises:
        ValueError: there are fewer than `count` codes in `data`.
    """
    group, size = _group(bits)
    used = -(-count * bits // 8)
    if len(data) < used:
        raise ValueError(f"{count} codes of {bits} bits need {used} bytes, not {len(data)}")
    packed = np.zeros((-(-count // group), size), np.uint8)
    packed.reshape(-1)[:used] = np.frombuffer(data, np.uint8, used)
    codes = np.zeros((len(packed), group), np.uint16)
    for byte, code, shift in _overlaps(bits):
        column = packed[:, byte].astype(np.uint16)
        # Bits of the codes beside this one fall off at the top, or below.
        codes[:, code] |= column << np.uint16(shift) if shift >= 0 else column >> np.uint16(-shift)
    codes &= np.uint16(2**bits - 1)
    return codes.reshape(-1)[:count]


def write(file: BinaryIO, codes: NDArray[np.integer], *, bits: int, fingerprint: str) -> Header:
    """Writes a whole `.sc` file to anything that takes bytes.

    Args:
        file: open for writing bytes; need not be seekable.
        codes: (n_quantizers, frames), any integer type, values in 0 .. 2^bits - 1.
        bits: bits of one code, 1 to 16.
        fingerprint: of the model, 32 hex digits.

    Raises:
        BitstreamError: the format cannot hold these codes; nothing has been written then.
    """
    header = _header_for(codes, bits, fingerprint)
    file.write(
        _HEADER.pack(
            MAGIC,
            header.frames,
            header.n_quantizers,
            header.bits,
            bytes.fromhex(header.fingerprint),
            header.version,
        )
    )
    for start, stop in _chunks(header):
        file.write(pack(codes[:, start:stop].T.reshape(-1), bits))
    return header


def read(file: BinaryIO) -> tuple[Header, NDArray[np.uint16]]:
    """Reads a whole `.sc` file: its header and its codes, (n_quantizers, frames) uint16.

    Takes memory in proportion to what the file holds, whatever its header claims.

    Raises:
        BitstreamError: no `.sc` file, of another version, cut short, or damaged.
    """
    header = read_header(file)
    body = _read_up_to(file, header.body_bytes + 1)
    name = _name(file)
    if len(body) < header.body_bytes:
        there = header.frames_in(_HEADER.size + len(body))
        raise BitstreamError(
            f"{name} is cut short: {there} of its {header.frames} frames are there; "
            "get the whole file again"
        )
    if len(body) > header.body_bytes:
        raise BitstreamError(
            f"{name} goes on after the {header.frames} frames that its header counts "
            f"(byte {header.file_bytes}): it is damaged, get it again"
        )
    _check_padding(body, header, name)
    codes = np.empty((header.n_quantizers, header.frames), np.uint16)
    for start, stop in _chunks(header):
        count = (stop - start) * header.n_quantizers
        first = start * header.n_quantizers * header.bits // 8
        data = body[first : first + -(-count * header.bits // 8)]
        codes[:, start:stop] = unpack(data, count, header.bits).reshape(stop - start, -1).T
    return header, codes


def read_header(file: BinaryIO) -> Header:
    """Reads the header and leaves the file at its body.

    Raises:
        BitstreamError: no `.sc` file, of another version, cut short, or impossible.
    """
    name = _name(file)
    data = _read_up_to(file, _HEADER.size)
    if not data:
        raise BitstreamError(f"{name} is empty: a .sc file has at least {_HEADER.size} bytes")
    if not is_sc(data):
        raise BitstreamError(
            f"{name} is not a .sc file: it begins with {data[:4].hex(' ')}, not {MAGIC.hex(' ')}"
        )
    if len(data) < _HEADER.size:
        raise BitstreamError(
            f"{name} is cut short: {len(data)} of the {_HEADER.size} bytes of its header are "
            "there; get the whole file again"
        )
    _, frames, n_quantizers, bits, fingerprint, version = _HEADER.unpack(data)
    if version != VERSION:
        raise BitstreamError(
            f"{name} is of .sc version {version} and this Sotto reads version {VERSION}: "
            "a newer Sotto made it (update yours), or it is damaged"
        )
    if n_quantizers == 0 or not 1 <= bits <= MAX_BITS:
        raise BitstreamError(
            f"{name} is damaged: its header says {n_quantizers} codebooks of {bits} bits, and "
            f"only 1 to {MAX_QUANTIZERS} of 1 to {MAX_BITS} bits are possible"
        )
    return Header(frames, n_quantizers, bits, fingerprint.hex(), version)


def is_sc(start: bytes) -> bool:
    """Whether a file that begins with these bytes (4 or more) is a `.sc` file of any version."""
    return start[: len(MAGIC)] == MAGIC


def _header_for(codes: NDArray[np.integer], bits: int, fingerprint: str) -> Header:
    """Checks everything that `write` is given, so that it fails before the first byte."""
    if not 1 <= bits <= MAX_BITS:
        raise BitstreamError(f"a code of {bits} bits cannot be stored: 1 to {MAX_BITS} bits can")
    if codes.ndim != 2 or not np.issubdtype(codes.dtype, np.integer):
        raise BitstreamError(
            f"codes must be integers of shape (n_quantizers, frames), not {codes.dtype} of shape "
            f"{codes.shape}"
        )
    n_quantizers, frames = codes.shape
    if not 1 <= n_quantizers <= MAX_QUANTIZERS or frames > MAX_FRAMES:
        raise BitstreamError(
            f"{n_quantizers} codebooks and {frames} frames cannot be stored: 1 to "
            f"{MAX_QUANTIZERS} codebooks and up to {MAX_FRAMES} frames can"
        )
    for extreme in (codes.min(), codes.max()) if codes.size else ():
        if not 0 <= extreme < 2**bits:
            raise BitstreamError(f"code {extreme} does not fit {bits} bits (0 to {2**bits - 1})")
    try:
        digest = bytes.fromhex(fingerprint)
    except ValueError:
        digest = b""
    if len(digest) != 16:
        raise BitstreamError(f"a model's fingerprint has 32 hex digits; this is {fingerprint!r}")
    return Header(frames, n_quantizers, bits, digest.hex())


def _chunks(header: Header) -> Iterator[tuple[int, int]]:
    """Ranges of frames to pack at a time, each but the last a whole number of bytes."""
    step = max(1, _CHUNK_CODES // header.n_quantizers // 8) * 8
    for start in range(0, header.frames, step):
        yield start, min(start + step, header.frames)


def _group(bits: int) -> tuple[int, int]:
    """The smallest number of codes that fills whole bytes, and the number of those bytes."""
    divisor = math.gcd(bits, 8)
    return 8 // divisor, bits // divisor


def _overlaps(bits: int) -> Iterator[tuple[int, int, int]]:
    """Which bytes and codes of a group share bits: (byte, code, shift).

    The shift is the number of bits of the code that come after the byte, so that
    byte |= code >> shift; negative where the byte goes on after the code.
    """
    group, size = _group(bits)
    for code in range(group):
        first, end = code * bits, (code + 1) * bits
        for byte in range(first // 8, min(size, -(-end // 8))):
            yield byte, code, end - 8 * (byte + 1)


def _read_up_to(file: BinaryIO, count: int) -> bytes:
    """Reads `count` bytes, or what there is, never asking for much more memory than that."""
    pieces: list[bytes] = []
    while count > 0 and (piece := file.read(min(count, _READ_BYTES))):
        pieces.append(piece)
        count -= len(piece)
    return b"".join(pieces)


def _check_padding(body: bytes, header: Header, name: str) -> None:
    """Refuses a last byte whose filling is not zero: every file has one right form."""
    filling = header.body_bytes * 8 - header.frames * header.n_quantizers * header.bits
    if filling and body[-1] & (2**filling - 1):
        raise BitstreamError(f"{name} is damaged: the bits after its last code are not zero")


def _name(file: BinaryIO) -> str:
    """What to call the file in a message."""
    name = getattr(file, "name", None)
    return name if isinstance(name, str) else "the stream"
