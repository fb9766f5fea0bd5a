import dataclasses
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codec.errors import BitstreamError
from infer.bitstream import Damage, Header, Reader
from infer.edit import cut, trim, verify
from tests.support.bitstreams import (
    FINGERPRINT,
    MODEL,
    TABLES,
    Pipe,
    joined,
    random_codes,
    read_all,
    written,
)

FRAMES = 30
CODES = random_codes((2, 4, FRAMES)) // 300
SOURCE = dataclasses.replace(
    MODEL, source_rate=44100, source_channels=2, source_samples=26_000, gain_db=1.5
)
KINDS = {
    "version-0": Header(0, FRAMES, 4, 10, FINGERPRINT),
    "fixed": SOURCE,
    "announced": dataclasses.replace(SOURCE, frames=FRAMES),
    "compact": dataclasses.replace(SOURCE, compact=True),
}
kinds = pytest.mark.parametrize("kind", KINDS)
sources = pytest.mark.parametrize("source", [io.BytesIO, Pipe], ids=["file", "pipe"])


def codes_of(kind: str) -> np.ndarray:
    return CODES[:1] if kind == "version-0" else CODES


@sources
@kinds
@pytest.mark.parametrize("n_quantizers", [1, 3, 4])
def test_trimming_gives_the_file_that_would_have_been_made(
    n_quantizers: int, kind: str, source: type
) -> None:
    codes, target = codes_of(kind), Pipe()
    edited = trim(source(written(codes, KINDS[kind])), target, n_quantizers, tables=TABLES)
    expected = written(codes[:, :n_quantizers], KINDS[kind])
    if kind == "announced" and source is Pipe:  # the end is not known before it is read
        expected = written(codes[:, :n_quantizers], SOURCE)
    assert target.taken == expected
    assert edited.damage == [] and edited.header == Reader(io.BytesIO(target.taken)).header


@sources
@kinds
@given(st.integers(0, FRAMES - 1), st.none() | st.integers(1, 2 * FRAMES))
@settings(deadline=None, max_examples=40)
def test_any_piece_is_taken(kind: str, source: type, start: int, count: int | None) -> None:
    codes, target = codes_of(kind), io.BytesIO()
    stop = None if count is None else start + count
    edited = cut(source(written(codes, KINDS[kind])), target, start, stop, tables=TABLES)
    target.seek(0)
    reader, blocks = read_all(target, strict=True)
    expected = codes[:, :, start:stop]
    np.testing.assert_array_equal(joined(blocks, codes), expected)
    header = reader.header
    assert header == edited.header and header.frames == expected.shape[2]
    if kind != "version-0":
        last = 26_000 if stop is None or stop >= FRAMES else min(26_000, round(stop * 882))
        assert header.source_samples == max(0, last - start * 882)
        assert (header.gain_db, header.source_rate, header.source_channels) == (1.5, 44100, 2)


def test_samples_of_pieces_add_up() -> None:
    data = written(CODES, SOURCE)
    samples = []
    for start in range(0, FRAMES, 7):
        edited = cut(io.BytesIO(data), io.BytesIO(), start, start + 7)
        samples.append(edited.header.source_samples)
    assert sum(samples) == 26_000


def test_samples_that_are_not_known_stay_unknown_at_the_end() -> None:
    data = written(CODES, MODEL)
    assert cut(io.BytesIO(data), io.BytesIO(), 3, None).header.source_samples is None
    rated = written(CODES, dataclasses.replace(MODEL, source_rate=8000))
    assert cut(io.BytesIO(rated), io.BytesIO(), 3, 5).header.source_samples == 320
    assert cut(io.BytesIO(rated), io.BytesIO(), 3, None).header.source_samples is None


@pytest.mark.parametrize(
    ("start", "stop"), [(FRAMES, None), (5, 5), (7, 6), (-1, 3), (100, 200)], ids=str
)
@sources
def test_a_piece_that_is_not_there_is_refused(source: type, start: int, stop: int | None) -> None:
    target = io.BytesIO()
    with pytest.raises(BitstreamError, match="there are no frames from"):
        cut(source(written(CODES, SOURCE)), target, start, stop)
    assert target.getvalue() == b""


@pytest.mark.parametrize("n_quantizers", [0, 5])
def test_codebooks_that_are_not_there_cannot_be_kept(n_quantizers: int) -> None:
    target = io.BytesIO()
    with pytest.raises(BitstreamError, match="the file has 1 to 4"):
        trim(io.BytesIO(written(CODES, SOURCE)), target, n_quantizers)
    assert target.getvalue() == b""


def test_compact_files_need_their_tables() -> None:
    data = written(CODES, KINDS["compact"])
    with pytest.raises(BitstreamError, match="without the model"):
        trim(io.BytesIO(data), io.BytesIO(), 2)
    with pytest.raises(BitstreamError, match="without the model"):
        cut(io.BytesIO(data), io.BytesIO(), 2, 5)
    assert verify(io.BytesIO(data)).ok


def damaged(kind: str, frame: int) -> bytes:
    """The file with a bit of the block changed that has this frame."""
    data = bytearray(written(codes_of(kind), KINDS[kind]))
    before = (
        len(
            written(
                codes_of(kind)[:, :, : frame // 4 * 4],
                dataclasses.replace(KINDS[kind], frames=None),
            )
        )
        - 22
    )
    data[before + 6] ^= 1
    return bytes(data)


@sources
@pytest.mark.parametrize("kind", ["fixed", "announced", "compact"])
def test_damage_stays_damage(kind: str, source: type) -> None:
    data = damaged(kind, 13)
    target = io.BytesIO()
    edited = trim(source(data), target, 2, tables=TABLES)
    assert [(d.first_frame, d.frames) for d in edited.damage] == [(12, 4)]
    target.seek(0)
    reader, blocks = read_all(target)
    assert reader.damage == edited.damage and reader.complete
    expected = CODES[:, :2].copy()
    expected[:, :, 12:16] = 0
    np.testing.assert_array_equal(joined(blocks, expected), expected)

    target = io.BytesIO()
    cut(source(data), target, 3, 29, tables=TABLES)
    target.seek(0)
    reader, blocks = read_all(target)
    # Frames 12 to 15 are 9 to 12 of the piece, in its blocks of frames 8 to 11 and 12 to 15.
    assert [(d.first_frame, d.frames) for d in reader.damage] == [(8, 8)]
    expected = CODES[:, :, 3:29].copy()
    expected[:, :, 8:16] = 0
    np.testing.assert_array_equal(joined(blocks, expected), expected)


@kinds
def test_what_is_left_of_a_cut_file_becomes_whole(kind: str) -> None:
    data = written(codes_of(kind), KINDS[kind])
    for length in range(110, len(data), 7):
        target = io.BytesIO()
        edited = trim(io.BytesIO(data[:length]), target, 2, tables=TABLES)
        assert len(edited.damage) == 1 and not edited.damage[0].frames
        target.seek(0)
        reader, blocks = read_all(target, strict=True)
        frames = edited.damage[0].first_frame
        assert reader.header.frames == frames < FRAMES or length > len(data) - 22
        expected = codes_of(kind)[:, :2, :frames]
        np.testing.assert_array_equal(joined(blocks, expected), expected)


def test_verifying_a_good_file() -> None:
    for kind in KINDS:
        for source in (io.BytesIO, Pipe):
            found = verify(source(written(codes_of(kind), KINDS[kind])))
            assert found.ok and found.complete and found.damaged == []
            assert found.blocks == (1 if kind == "version-0" else 8)
            assert found.seconds == (None if kind == "version-0" else 26_000 / 44100)
            assert found.header.frames == FRAMES


def test_verifying_a_damaged_file() -> None:
    found = verify(io.BytesIO(damaged("compact", 13)))
    assert not found.ok and found.complete and found.blocks == 7
    assert found.damaged == [Damage(12, 4, "the checksum is wrong")]
    assert found.seconds == (FRAMES - 4) / 50


def test_verifying_a_cut_file() -> None:
    data = written(CODES, SOURCE)
    found = verify(io.BytesIO(data[:-30]))
    assert not found.ok and not found.complete
    assert found.damaged[-1].frames is None and 0 < found.seconds < FRAMES / 50


def test_verifying_what_is_no_sc_file() -> None:
    with pytest.raises(BitstreamError, match="not a"):
        verify(io.BytesIO(b"RIFF" + bytes(100)))
