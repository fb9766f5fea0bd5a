"""docs/format.md against the program: its examples, and its decoder of compact codes."""

import dataclasses
import hashlib
import io
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from codec.entropy import EntropyTables
from infer.bitstream import Header, Reader, Writer
from tests.support.bitstreams import FINGERPRINT, MODEL, joined, random_codes, read_all, written

DOCUMENT = Path(__file__).parents[2] / "docs" / "format.md"
CODES = np.array([[[1, 512, 0], [1023, 2, 682]]], np.uint16)


def vector(name: str) -> bytes:
    """The bytes of an example in the document."""
    text = DOCUMENT.read_text(encoding="utf-8")
    lines = text.split(f"```vector {name}\n")[1].split("```")[0].splitlines()
    return bytes.fromhex("".join(re.split(r" {2,}", line)[0] for line in lines))


def test_writes_the_documents_examples() -> None:
    header = dataclasses.replace(
        MODEL,
        frames=3,
        block_frames=2,
        source_rate=44100,
        source_channels=2,
        source_samples=2600,
        gain_db=-3.5,
    )
    assert written(CODES, header) == vector("fixed-rate")
    old = Header(0, 3, 2, 10, FINGERPRINT)
    assert written(CODES, old) == vector("version-0")


class TwoBytes:
    """Tables of the document's example: two bytes for two frames, five for one."""

    fingerprint = "ffeeddccbbaa99887766554433221100"

    def encode(self, blocks: list[np.ndarray]) -> list[bytes]:
        return [b"\xab\xcd" if block.shape[2] == 2 else b"long!" for block in blocks]

    def decode(self, blocks: list[bytes], shapes: list[tuple[int, int, int]]) -> list[np.ndarray]:
        assert list(blocks) == [b"\xab\xcd"] and list(shapes) == [(1, 2, 2)]
        return [CODES[:, :, :2]]


def test_writes_and_reads_the_documents_compact_example() -> None:
    file = io.BytesIO()
    header = dataclasses.replace(MODEL, block_frames=2, compact=True)
    writer = Writer(file, header, tables=TwoBytes())
    writer.write(CODES)
    known = writer.finish()
    assert file.getvalue() == vector("compact")
    reader = Reader(io.BytesIO(vector("compact")), tables=TwoBytes())
    np.testing.assert_array_equal(joined(list(reader.blocks()), CODES), CODES)
    assert reader.header == known and known.tables == TwoBytes.fingerprint
    assert reader.complete and not reader.damage


@pytest.mark.parametrize("name", ["version-0", "fixed-rate"])
def test_reads_the_documents_examples(name: str) -> None:
    reader, blocks = read_all(io.BytesIO(vector(name)), strict=True)
    np.testing.assert_array_equal(joined(blocks, CODES), CODES)
    header = reader.header
    assert (header.frames, header.n_quantizers, header.bits) == (3, 2, 10)
    assert header.fingerprint == FINGERPRINT and reader.complete
    if header.version == 1:
        assert [block.first_frame for block in blocks] == [0, 2]
        assert (header.source_rate, header.source_channels, header.source_samples) == (
            44100,
            2,
            2600,
        )
        assert header.gain_db == -3.5 and header.frame_rate == 50
        assert header.seconds == 2600 / 44100 and header.kbps == 1


def random_tables(codebooks: int = 3, rows: int = 16) -> EntropyTables:
    generator = np.random.default_rng(0)

    def integers(dtype: type, *shape: int) -> np.ndarray:
        return generator.integers(-9, 10, shape).astype(dtype)

    falling = np.sort(generator.integers(0, 1000, (codebooks, 16)))[:, ::-1] + 1
    return EntropyTables(
        contexts=integers(np.int8, 3, codebooks, rows + 1, 5),
        hidden_bias=integers(np.int32, codebooks, 5),
        mixing=integers(np.int8, codebooks, 5, 4),
        mixing_bias=integers(np.int32, codebooks, 4),
        output=integers(np.int8, codebooks, 4, rows),
        output_bias=integers(np.int32, codebooks, rows),
        weights=falling.astype(np.int32),
        shifts=np.full((codebooks, 2), 3, np.int32),
    )


def frequencies(tables: EntropyTables, k: int, before: np.ndarray, now: list[int]) -> np.ndarray:
    """The document's formulas for codebook k: `before` (codebooks, lags), the last frame first."""
    rows = tables.output.shape[2]
    hidden = tables.hidden_bias[k].astype(np.int64)
    for j in range(k):
        hidden = hidden + tables.contexts[0, j, now[j]]
    for lag in range(before.shape[1]):
        for j in range(k + 1):
            hidden = hidden + tables.contexts[lag + 1, j, before[j, lag]]
    mixed = np.clip(hidden, 0, 1023) @ tables.mixing[k].astype(np.int64) + tables.mixing_bias[k]
    mixed = mixed >> int(tables.shifts[k, 0])
    score = np.clip(mixed, 0, 1023) @ tables.output[k].astype(np.int64) + tables.output_bias[k]
    step = np.minimum(
        (score.max() - score) >> int(tables.shifts[k, 1]), tables.weights.shape[1] - 1
    )
    weight = tables.weights[k][step]
    shares = [int(w * ((2**24 - rows) / int(weight.sum()))) for w in weight.tolist()]
    shares[0] += 2**24 - rows - sum(shares)
    return np.array(shares) + 1


def decode_by_the_book(
    data: bytes, tables: EntropyTables, shape: tuple[int, int, int]
) -> np.ndarray:
    """The document's range decoder, on Python's integers."""
    channels, codebooks, frames = shape
    lags, rows, mask = tables.contexts.shape[0] - 1, tables.output.shape[2], 2**64 - 1
    padded = data + bytes(8 * frames * codebooks * channels)
    words: Iterator[int] = (int.from_bytes(padded[at : at + 4]) for at in range(0, len(padded), 4))
    lower, width, point = 0, mask, next(words) << 32 | next(words)
    codes = np.full((channels, codebooks, lags + frames), rows)
    for frame in range(lags, lags + frames):
        for k in range(codebooks):
            for channel in codes:
                before = channel[:, frame - lags : frame][:, ::-1]
                f = frequencies(tables, k, before, channel[:, frame].tolist())
                scale = width >> 24
                quantile = ((point - lower) & mask) // scale
                sums = np.concatenate([[0], np.cumsum(f)])
                code = int(np.searchsorted(sums, quantile, side="right")) - 1
                lower = (lower + scale * int(sums[code])) & mask
                width = scale * int(f[code])
                channel[k, frame] = code
                if width < 2**32:
                    lower, width = lower << 32 & mask, width << 32
                    point = (point << 32 & mask) | next(words)
    return codes[:, :, lags:]


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 3, 7), (1, 2, 40)], ids=str)
def test_compact_codes_are_what_the_document_says(shape: tuple[int, int, int]) -> None:
    tables = random_tables()
    codes = random_codes(shape, bits=4)
    data = tables.encode([codes])[0]
    np.testing.assert_array_equal(decode_by_the_book(data, tables, shape), codes)


def test_the_tables_fingerprint_is_what_the_document_says() -> None:
    tables = random_tables()
    digest = hashlib.blake2b(digest_size=16)
    for name, array in sorted(tables.tensors().items()):
        assert name.startswith("entropy.")
        shape = "x".join(str(size) for size in array.shape)
        digest.update(f"\n{name} {array.dtype} {shape}\n".encode())
        digest.update(array.astype(array.dtype.newbyteorder("<")).tobytes())
    assert tables.fingerprint == digest.hexdigest()
