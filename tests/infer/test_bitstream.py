import dataclasses
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from codec.errors import BitstreamError
from infer.bitstream import Header, Reader, Writer, is_sc
from tests.support.bitstreams import (
    FINGERPRINT,
    MODEL,
    TABLES,
    Pipe,
    by_the_book,
    joined,
    random_codes,
    read_all,
    written,
)

CODES = np.array([[[1, 512, 0], [1023, 2, 682]]], np.uint16)


@st.composite
def headers(draw: st.DrawFn) -> Header:
    """Every legal header of version 1 but for its length and coding."""
    u32 = st.integers(1, 2**32 - 1)
    compact = draw(st.booleans())
    return Header(
        version=1,
        frames=None,
        n_quantizers=draw(st.integers(1, 6) | st.just(255)),
        bits=draw(st.integers(1, 16)),
        fingerprint=draw(st.binary(min_size=16, max_size=16)).hex(),
        sample_rate=draw(u32),
        hop_length=draw(u32),
        block_frames=draw(st.integers(1, 9) | st.just(300 if compact else 5000)),
        channels=draw(st.integers(1, 3)),
        compact=compact,
        source_rate=draw(st.none() | u32),
        source_channels=draw(st.none() | st.integers(1, 255)),
        source_samples=draw(st.none() | st.integers(0, 2**64 - 2)),
        gain_db=draw(st.integers(-200_000, 200_000)) / 1000,
    )


@st.composite
def files(draw: st.DrawFn) -> tuple[np.ndarray, Header]:
    """Codes with a header that fits them; half of them repeat themselves."""
    header = draw(headers())
    frames = draw(st.integers(0, 30))
    most = draw(st.sampled_from([0, 2**header.bits - 1]))
    shape = (header.channels, header.n_quantizers, frames)
    dtype = draw(st.sampled_from([np.uint16, np.int64]))
    codes = draw(hnp.arrays(dtype, shape, elements=st.integers(0, most), fill=st.just(most)))
    return codes, dataclasses.replace(header, frames=draw(st.sampled_from([None, frames])))


@given(files(), st.data())
@settings(deadline=None, max_examples=80)
def test_every_legal_file_comes_back(case: tuple[np.ndarray, Header], data: st.DataObject) -> None:
    codes, header = case
    samples = data.draw(st.none() | st.integers(0, 2**64 - 2))
    file = io.BytesIO(b"before")
    file.seek(6)
    writer = Writer(file, header, tables=TABLES)
    cuts = sorted(data.draw(st.lists(st.integers(0, codes.shape[2]), max_size=4)))
    for piece in np.split(codes, cuts, axis=2):
        writer.write(piece)
    known = writer.finish(source_samples=samples)
    for source in (file, Pipe(file.getvalue()[6:])):
        if source is file:
            file.seek(6)
        reader, blocks = read_all(source, strict=True)
        assert reader.header == known and reader.complete and not reader.damage
        assert all(b.codes.dtype == np.uint16 for b in blocks)
        got = joined(blocks, codes)
        np.testing.assert_array_equal(got, codes)
        block = header.block_frames
        assert [b.first_frame for b in blocks] == list(range(0, codes.shape[2], block))
    assert known.frames == codes.shape[2]
    assert known.source_samples == (header.source_samples if samples is None else samples)


@given(files(), st.none() | st.integers(0, 2**64 - 2))
@settings(deadline=None, max_examples=60)
def test_fixed_rate_files_are_those_of_the_book(
    case: tuple[np.ndarray, Header], samples: int | None
) -> None:
    codes, header = case
    header = dataclasses.replace(header, compact=False)
    if samples is None:
        samples = header.source_samples
    assert written(codes, header, samples=samples) == by_the_book(codes, header, samples=samples)


@pytest.mark.parametrize("compact", [False, True], ids=["fixed", "compact"])
def test_any_cutting_into_writes_gives_the_same_file(compact: bool) -> None:
    codes = random_codes((2, 2, 50)) // 256
    header = dataclasses.replace(MODEL, channels=2, compact=compact)
    whole = written(codes, header)
    for step in (1, 3, 4, 7, 49):
        pipe = Pipe()
        writer = Writer(pipe, header, tables=TABLES)
        for start in range(0, 50, step):
            writer.write(codes[:, :, start : start + step])
        writer.finish()
        assert pipe.taken == whole


def test_a_block_is_in_the_pipe_as_soon_as_it_is_full() -> None:
    for compact in (False, True):
        pipe = Pipe(most=1000)
        writer = Writer(pipe, dataclasses.replace(MODEL, compact=compact), tables=TABLES)
        before = len(pipe.taken)
        writer.write(CODES[:, :, [0, 1, 2, 0]])
        assert len(pipe.taken) > before


class Live(Pipe):
    """A pipe whose writer is still at work: waiting for more than there is would be for ever."""

    def readinto(self, buffer) -> int:
        read = super().readinto(buffer)
        assert read > 0 or len(buffer) == 0, "the reader waits for bytes that it does not need"
        return read


@pytest.mark.parametrize("version", [1], ids=str)
@pytest.mark.parametrize("compact", [False, True], ids=["fixed", "compact"])
def test_a_block_is_given_as_soon_as_it_is_there(version: int, compact: bool) -> None:
    codes = random_codes((1, 2, 12)) // 512
    header = dataclasses.replace(MODEL, version=version, compact=compact)
    data = written(codes, header)
    first_two = written(codes[:, :, :8], header)[:-22]
    assert data.startswith(first_two)
    for most in (1, 1000):
        for file in (Live(first_two, most), io.BufferedReader(Live(first_two, most))):
            blocks = Reader(file, tables=TABLES).blocks()
            got = [next(blocks), next(blocks)]
            np.testing.assert_array_equal(joined(got, codes), codes[:, :, :8])


class Watched(io.BytesIO):
    """Remembers which bytes were read."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.read_bytes = 0

    def read1(self, size: int | None = -1, /) -> bytes:
        data = super().read1(size)
        self.read_bytes += len(data)
        return data


@pytest.mark.parametrize("kind", ["version-0", "fixed", "compact"])
def test_any_moment_is_reached_without_what_lies_before(kind: str) -> None:
    frames = 400_000
    codes = random_codes((1, 4, frames), bits=8)
    codes[:, :, frames // 2 :] = 3
    header = Header(0, frames, 4, 8, FINGERPRINT)
    if kind != "version-0":
        header = dataclasses.replace(MODEL, block_frames=50, bits=8, compact=kind == "compact")
    data = written(codes, header)
    reader = Reader(file := Watched(data), tables=TABLES)
    for start, count in [(300_000, 75), (49, 2), (399_990, 100), (0, 1), (200_017, 0)]:
        file.read_bytes = 0
        blocks = list(reader.blocks(start, count))
        stop = min(start + count, frames)
        np.testing.assert_array_equal(joined(blocks, codes), codes[:, :, start:stop])
        assert file.read_bytes <= 3 << 16
        if blocks:
            assert blocks[0].first_frame == start
    assert not reader.damage


@given(st.integers(0, 90), st.none() | st.integers(0, 90), st.booleans(), st.booleans())
@settings(deadline=None, max_examples=80)
def test_any_range_of_frames(start: int, count: int | None, compact: bool, seekable: bool) -> None:
    codes = random_codes((2, 2, 78)) // 512
    data = written(codes, dataclasses.replace(MODEL, block_frames=3, compact=compact))
    reader = Reader(io.BytesIO(data) if seekable else Pipe(data), tables=TABLES)
    got = joined(list(reader.blocks(start, count)), codes)
    expected = codes[:, :, start : None if count is None else start + count]
    np.testing.assert_array_equal(got, expected)
    assert not reader.damage


def test_a_pipe_goes_on_where_it_was_left_but_not_back() -> None:
    codes = random_codes((1, 2, 20))
    reader = Reader(Pipe(written(codes, MODEL)))
    np.testing.assert_array_equal(joined(list(reader.blocks(0, 8)), codes), codes[:, :, :8])
    np.testing.assert_array_equal(joined(list(reader.blocks(12)), codes), codes[:, :, 12:])
    with pytest.raises(BitstreamError, match="is a pipe"):
        list(reader.blocks(0))


def test_a_file_can_be_read_again() -> None:
    codes = random_codes((1, 2, 20))
    reader = Reader(io.BytesIO(written(codes, MODEL)))
    for _ in range(2):
        np.testing.assert_array_equal(joined(list(reader.blocks()), codes), codes)


def test_the_length_is_known_from_the_end_or_as_announced() -> None:
    codes = random_codes((1, 2, 9))
    data = written(codes, MODEL, samples=2800)
    header = Reader(io.BytesIO(data)).header
    assert (header.frames, header.source_samples) == (9, 2800)
    reader = Reader(Pipe(data))
    assert (reader.header.frames, reader.frames, reader.complete) == (None, None, False)
    list(reader.blocks())
    assert (reader.header.frames, reader.frames, reader.complete) == (9, 9, True)
    announced = written(codes, dataclasses.replace(MODEL, frames=9))
    assert Reader(Pipe(announced)).header.frames == 9


def test_blocks_last_about_a_second_by_default() -> None:
    for rate, hop, frames in [(16000, 320, 50), (24000, 320, 75), (1, 1000, 1), (2**32 - 1, 1, 0)]:
        header = dataclasses.replace(MODEL, sample_rate=rate, hop_length=hop, block_frames=0)
        assert header.checked().block_frames == (frames or 65535)
    large = dataclasses.replace(MODEL, n_quantizers=255, channels=255, block_frames=0)
    assert large.checked().block_frames * 255 * 255 <= 2**22


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param({"version": 2}, "version 2", id="version"),
        pytest.param({"version": 0}, "unknown number of frames in version 0", id="version-0"),
        pytest.param({"bits": 0}, "0 bits of a code", id="no-bits"),
        pytest.param({"bits": 17}, "17 bits of a code", id="17-bits"),
        pytest.param({"n_quantizers": 0}, "0 codebooks", id="no-codebooks"),
        pytest.param({"n_quantizers": 256}, "256 codebooks", id="256-codebooks"),
        pytest.param({"channels": 0}, "0 channels", id="no-channels"),
        pytest.param({"channels": 256}, "256 channels", id="256-channels"),
        pytest.param({"frames": 2**32 - 1}, "4294967295 frames", id="too-long"),
        pytest.param({"fingerprint": "abc"}, "'abc' as a model's", id="fingerprint"),
        pytest.param({"fingerprint": "g" * 32}, "32 hex digits", id="no-hex"),
        pytest.param({"sample_rate": None}, "0 Hz", id="no-rate"),
        pytest.param({"hop_length": 0}, "0 samples a frame", id="no-hop"),
        pytest.param({"block_frames": 65536}, "65536 frames a block", id="block"),
        pytest.param({"block_frames": 65535, "n_quantizers": 65}, "codes a block", id="codes"),
        pytest.param({"source_rate": 0}, "0 Hz of the source", id="source-rate"),
        pytest.param({"source_channels": 256}, "256 channels of the source", id="source-channels"),
        pytest.param({"source_samples": -1}, "-1 samples", id="source-samples"),
        pytest.param({"gain_db": 201.0}, "201 dB", id="gain"),
        pytest.param({"gain_db": float("nan")}, "nan dB", id="nan-gain"),
        pytest.param({"compact": True}, "needs the probability tables", id="no-tables"),
        pytest.param({"tables": "0" * 32}, "tables without compact codes", id="tables"),
    ],
)
def test_what_cannot_be_stored_is_refused_before_the_first_byte(change: dict, message: str) -> None:
    file = io.BytesIO()
    with pytest.raises(BitstreamError, match=message):
        Writer(file, dataclasses.replace(MODEL, **change))
    assert file.getvalue() == b""


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        pytest.param(np.full((1, 2, 3), 1024), "code 1024 does not fit 10 bits", id="too-large"),
        pytest.param(np.full((1, 2, 3), -1), "code -1 does not fit", id="negative"),
        pytest.param(np.zeros((2, 3), int), r"shape \(2, 3\)", id="two-dimensions"),
        pytest.param(np.zeros((1, 3, 3), int), r"shape \(1, 3, 3\)", id="codebooks"),
        pytest.param(np.zeros((2, 2, 3), int), r"shape \(2, 2, 3\)", id="channels"),
        pytest.param(np.zeros((1, 2, 3)), "not float64", id="fractions"),
        pytest.param(np.zeros((1, 2, 6), int), "6 frames: this file holds up to 5", id="too-many"),
    ],
)
def test_codes_that_do_not_fit_are_refused(codes: np.ndarray, message: str) -> None:
    file = io.BytesIO()
    writer = Writer(file, dataclasses.replace(MODEL, frames=5))
    before = file.getvalue()
    with pytest.raises(BitstreamError, match=message):
        writer.write(codes)
    assert file.getvalue() == before and writer.frames == 0


def test_finishing_is_done_once_with_all_frames() -> None:
    writer = Writer(io.BytesIO(), dataclasses.replace(MODEL, frames=4))
    writer.write(CODES)
    with pytest.raises(BitstreamError, match="announced 4 frames, but 3 were given"):
        writer.finish()
    writer.write(CODES[:, :, :1])
    writer.finish()
    with pytest.raises(BitstreamError, match="finished already"):
        writer.finish()
    with pytest.raises(BitstreamError, match="finished already"):
        writer.write(CODES[:, :, :0])


def test_a_compact_file_needs_the_tables_that_made_it() -> None:
    codes = np.zeros((1, 2, 20), np.uint16)
    data = written(codes, dataclasses.replace(MODEL, compact=True))
    reader = Reader(io.BytesIO(data))
    assert reader.header.compact and reader.header.tables == TABLES.fingerprint
    assert len(list(reader.records())) == 5
    with pytest.raises(BitstreamError, match=r"without the model .* ffeeddccbbaa9988776655"):
        list(reader.blocks())

    class Others(type(TABLES)):
        fingerprint = "0" * 32

    with pytest.raises(BitstreamError, match=r"needs the probability tables ffeedd.*are 0000"):
        Reader(io.BytesIO(data), tables=Others())


def test_a_compact_file_is_never_much_larger() -> None:
    noise, steady = random_codes((1, 2, 40)), np.zeros((1, 2, 40), np.uint16)
    header = dataclasses.replace(MODEL, block_frames=20)
    compact = dataclasses.replace(header, compact=True)
    assert len(written(noise, compact)) == len(written(noise, header)) + 2 + 19
    assert len(written(steady, compact)) < len(written(steady, header)) - 50


def test_a_block_that_its_tables_make_no_sense_of_is_lost() -> None:
    class Confused(type(TABLES)):
        def encode(self, blocks):
            return [
                b"?" if block.min() == 7 else b
                for block, b in zip(blocks, super().encode(blocks), strict=True)
            ]

    codes = np.zeros((1, 2, 120), np.uint16)
    codes[:, :, 40:80] = 7
    file = io.BytesIO()
    header = dataclasses.replace(MODEL, block_frames=40, compact=True)
    writer = Writer(file, header, tables=Confused())
    writer.write(codes)
    writer.finish()
    file.seek(0)
    reader, blocks = read_all(file)
    assert [block.codes is None for block in blocks] == [False, True, False]
    assert [(d.first_frame, d.frames) for d in reader.damage] == [(40, 40)]


def test_negative_ranges_are_the_callers_mistake() -> None:
    reader = Reader(io.BytesIO(written(CODES, MODEL)))
    with pytest.raises(ValueError, match="must not be negative"):
        next(reader.blocks(-1))


def test_is_sc() -> None:
    assert is_sc(written(CODES, MODEL)[:4])
    assert not is_sc(b"RIFF") and not is_sc(b"\x12\x12\x12")
