"""`.sc` files for tests: made by the book, pipes, and tables that stand in for a model's."""

import dataclasses
import io
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from codec.errors import BitstreamError
from infer.bitstream import Block, Header, Reader, Writer

FINGERPRINT = "00112233445566778899aabbccddeeff"
MODEL = Header(1, None, 2, 10, FINGERPRINT, sample_rate=16000, hop_length=320, block_frames=4)


class StandInTables:
    """Codes blocks by zlib: short if they repeat themselves, longer than packed if not."""

    fingerprint = "ffeeddccbbaa99887766554433221100"

    def encode(self, blocks: Sequence[NDArray[np.uint16]]) -> list[bytes]:
        return [zlib.compress(block.astype(">u2").tobytes(), 9) for block in blocks]

    def decode(
        self, blocks: Sequence[bytes], shapes: Sequence[tuple[int, int, int]]
    ) -> list[NDArray[np.uint16]]:
        decoded = []
        for block, shape in zip(blocks, shapes, strict=True):
            size = 2 * shape[0] * shape[1] * shape[2]
            try:
                data = zlib.decompressobj().decompress(block, size + 1)
            except zlib.error:
                raise BitstreamError("no codes lead to this block") from None
            if len(data) != size:
                raise BitstreamError("no codes lead to this block")
            decoded.append(np.frombuffer(data, ">u2").astype(np.uint16).reshape(shape))
        return decoded


TABLES = StandInTables()


class Pipe(io.RawIOBase):
    """Gives a few bytes at a time, and takes a few, as pipes do; it cannot be sought."""

    def __init__(self, data: bytes = b"", most: int = 5) -> None:
        self.given = io.BytesIO(data)
        self.taken = b""
        self.most = most

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        piece = self.given.read(min(self.most, len(buffer)))
        buffer[: len(piece)] = piece
        return len(piece)

    def write(self, data: Any) -> int:
        piece = bytes(data[: self.most])
        self.taken += piece
        return len(piece)


def random_codes(shape: tuple[int, int, int], bits: int = 10, seed: int = 0) -> NDArray[np.uint16]:
    return np.random.default_rng(seed).integers(0, 2**bits, shape).astype(np.uint16)


def written(codes: NDArray[np.integer], header: Header, *, samples: int | None = None) -> bytes:
    """A file of these codes, written in one go; header's shapes follow the codes."""
    file = io.BytesIO()
    shape = {"channels": codes.shape[0], "n_quantizers": codes.shape[1]}
    tables = TABLES if header.compact else None
    writer = Writer(file, dataclasses.replace(header, **shape), tables=tables)
    writer.write(codes)
    writer.finish(source_samples=samples)
    return file.getvalue()


def read_all(file: Any, **options: Any) -> tuple[Reader, list[Block]]:
    reader = Reader(file, tables=TABLES, **options)
    return reader, list(reader.blocks())


def joined(blocks: Sequence[Block], like: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """The codes of blocks one after the other, lost ones as zeros."""
    pieces = [like[:, :, :0].astype(np.uint16)]
    for block in blocks:
        lost = np.zeros((*like.shape[:2], block.frames), np.uint16)
        pieces.append(lost if block.codes is None else block.codes)
    return np.concatenate(pieces, axis=2)


def by_the_book(codes: NDArray[np.integer], header: Header, *, samples: int | None = None) -> bytes:
    """docs/format.md once more, version 1 at a fixed rate, digit by digit."""

    def number(value: int, width: int) -> bytes:
        return value.to_bytes(width, "big", signed=value < 0)

    channels, n_quantizers, frames = codes.shape
    unknown = 2**64 - 1
    data = b"\x12" * 4 + number(2**32 - 1 if header.frames is None else header.frames, 4)
    data += number(n_quantizers, 1) + number(header.bits, 1) + bytes.fromhex(header.fingerprint)
    data += number(1, 1) + number(62, 2) + number(header.sample_rate or 0, 4)
    data += number(header.hop_length or 0, 4) + number(header.block_frames, 2)
    data += number(channels, 1) + b"\0" + number(header.source_rate or 0, 4)
    data += number(header.source_channels or 0, 1)
    data += number(unknown if header.source_samples is None else header.source_samples, 8)
    data += number(round(header.gain_db * 1000), 4)
    data += number(zlib.crc32(data), 4)
    starts = range(0, frames, header.block_frames)
    for k, start in enumerate(starts):
        stop = min(start + header.block_frames, frames)
        digits = "".join(
            format(int(codes[channel, codebook, frame]), f"0{header.bits}b")
            for frame in range(start, stop)
            for channel in range(channels)
            for codebook in range(n_quantizers)
        )
        digits += "0" * (-len(digits) % 8)
        block = number(stop - start, 2)
        block += bytes(int(digits[i : i + 8], 2) for i in range(0, len(digits), 8))
        data += block + number(zlib.crc32(block + number(k, 4)), 4)
    end = b"\0\0" + number(frames, 4) + number(unknown if samples is None else samples, 8)
    end += number(22, 4)
    return data + end + number(zlib.crc32(end + number(len(starts), 4)), 4)
