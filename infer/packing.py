"""Numbers of 1 to 16 bits to bytes and back, most significant bit first, all of them at once."""

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

MAX_BITS = 16


def packed_bytes(count: int, bits: int) -> int:
    """Bytes that `count` numbers of `bits` bits fill, the last one perhaps in part."""
    return -(-count * bits // 8)


def pack(codes: NDArray[np.integer], bits: int) -> bytes:
    """Packs one run of codes, zero bits to the end of the last byte.

    Args:
        codes: (n,) integers in 0 .. 2^bits - 1 (not checked here).
        bits: 1 to 16.
    """
    return pack_rows(codes[None], bits).tobytes()


def unpack(data: bytes, count: int, bits: int) -> NDArray[np.uint16]:
    """Unpacks `count` codes of `bits` bits from bytes that `pack` made: (count,) uint16.

    Raises:
        ValueError: there are fewer than `count` codes in `data`.
    """
    used = packed_bytes(count, bits)
    if len(data) < used:
        raise ValueError(f"{count} codes of {bits} bits need {used} bytes, not {len(data)}")
    return unpack_rows(np.frombuffer(data, np.uint8, used)[None], count, bits)[0]


def pack_rows(codes: NDArray[np.integer], bits: int) -> NDArray[np.uint8]:
    """Packs each row by itself: (rows, n) integers to (rows, packed_bytes(n, bits))."""
    rows, count = codes.shape
    group, size = _group(bits)
    groups = -(-count // group)
    if groups * group == count:
        padded = np.ascontiguousarray(codes, np.uint16)
    else:
        padded = np.zeros((rows, groups * group), np.uint16)
        padded[:, :count] = codes
    padded = padded.reshape(rows * groups, group)
    packed = np.zeros((rows * groups, size), np.uint8)
    for byte, code, shift in _overlaps(bits):
        column = padded[:, code]
        # Bits that belong to the bytes beside this one fall off in the cast.
        part = column >> np.uint16(shift) if shift >= 0 else column << np.uint16(-shift)
        packed[:, byte] |= part.astype(np.uint8)
    return packed.reshape(rows, groups * size)[:, : packed_bytes(count, bits)]


def unpack_rows(data: NDArray[np.uint8], count: int, bits: int) -> NDArray[np.uint16]:
    """Unpacks `count` codes of each row: (rows, packed_bytes(count, bits)) to (rows, count)."""
    rows, used = data.shape
    group, size = _group(bits)
    groups = -(-count // group)
    if groups * size == used:
        packed = np.ascontiguousarray(data)
    else:
        packed = np.zeros((rows, groups * size), np.uint8)
        packed[:, :used] = data
    packed = packed.reshape(rows * groups, size)
    codes = np.zeros((rows * groups, group), np.uint16)
    for byte, code, shift in _overlaps(bits):
        column = packed[:, byte].astype(np.uint16)
        # Bits of the codes beside this one fall off at the top, or below.
        codes[:, code] |= column << np.uint16(shift) if shift >= 0 else column >> np.uint16(-shift)
    codes &= np.uint16(2**bits - 1)
    return codes.reshape(rows, groups * group)[:, :count]


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
