"""Damaged, cut and hostile files of version 1."""

import dataclasses
import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codec.errors import BitstreamError
from infer.bitstream import Block, Damage, Header, Reader
from tests.support.bitstreams import (
    MODEL,
    TABLES,
    Pipe,
    joined,
    random_codes,
    read_all,
    written,
)

FRAMES = 22  # five blocks of 4 frames, and one of 2
CODES = random_codes((1, 2, FRAMES))
STEADY = np.repeat(random_codes((1, 2, 1), seed=1), FRAMES, axis=2)
HEADER_BYTES = {False: 62, True: 81}
BLOCK_BYTES = 2 + 10 + 4

both_codings = pytest.mark.parametrize("compact", [False, True], ids=["fixed", "compact"])
both_sources = pytest.mark.parametrize("seekable", [True, False], ids=["file", "pipe"])


def small(compact: bool = False, **change: object) -> bytes:
    return written(CODES, dataclasses.replace(MODEL, compact=compact, **change))


def checked(record: bytes, number: int) -> bytes:
    """A record with its check."""
    return record + struct.pack(">I", zlib.crc32(record + struct.pack(">I", number)))


def opened(data: bytes, seekable: bool) -> io.BytesIO | Pipe:
    return io.BytesIO(data) if seekable else Pipe(data, most=23)


def block_starts(compact: bool) -> list[int]:
    return [HEADER_BYTES[compact] + k * (BLOCK_BYTES + compact) for k in range(6)]


def check_all_but(
    blocks: list[Block], damage: list[Damage], lost: set[int], *, codes: np.ndarray = CODES
) -> None:
    """All frames came, right or lost, and exactly those of blocks `lost` are lost and told."""
    got = joined(blocks, codes)
    frames = {frame for k in lost for frame in range(4 * k, min(4 * k + 4, codes.shape[2]))}
    assert got.shape == codes.shape
    kept = [frame for frame in range(codes.shape[2]) if frame not in frames]
    np.testing.assert_array_equal(got[:, :, kept], codes[:, :, kept])
    starts = {
        frame
        for b in blocks
        if b.codes is None
        for frame in range(b.first_frame, b.first_frame + b.frames)
    }
    told = {
        frame for d in damage for frame in range(d.first_frame, d.first_frame + (d.frames or 0))
    }
    assert starts == told == frames


@both_sources
@both_codings
def test_everything_before_a_cut_comes_wherever_it_is(compact: bool, seekable: bool) -> None:
    whole = small(compact)
    starts = block_starts(compact)
    for length in range(len(whole)):
        file = opened(whole[:length], seekable)
        if length < HEADER_BYTES[compact]:
            with pytest.raises(BitstreamError, match=r"cut short|is empty|not a \.sc"):
                Reader(file)
            continue
        reader, blocks = read_all(file)
        got = joined(blocks, CODES)
        body = [min(max(0, length - s - 2 - compact), 10) for s in starts]
        if compact:
            held = 4 * sum(length >= s + BLOCK_BYTES + 1 for s in starts[:-1])
            held += 2 * (length >= starts[-1] + 12)
        else:
            held = sum(b * 8 // 20 for b in body[:-1]) + min(2, body[-1] * 8 // 20)
        assert got.shape[2] == held, length
        np.testing.assert_array_equal(got, CODES[:, :, :held])
        assert reader.damage == [Damage(held, None, "the file is cut short")]
        assert not reader.complete
        with pytest.raises(BitstreamError, match="the file is cut short"):
            read_all(opened(whole[:length], seekable), strict=True)


@both_sources
@both_codings
def test_every_flipped_bit_is_noticed(compact: bool, seekable: bool) -> None:
    codes = CODES[:, :, :10]  # blocks of 4, 4 and 2 frames
    whole = written(codes, dataclasses.replace(MODEL, compact=compact))
    starts = block_starts(compact)[:3]
    for bit in range(len(whole) * 8):
        data = bytearray(whole)
        data[bit // 8] ^= 1 << bit % 8
        try:
            reader, blocks = read_all(opened(bytes(data), seekable))
        except BitstreamError:
            assert bit // 8 < HEADER_BYTES[compact]
            continue
        assert reader.damage
        if bit % 8 == bit // 8 % 8:  # one bit a byte
            with pytest.raises(BitstreamError, match="is damaged"):
                read_all(opened(bytes(data), seekable), strict=True)
        if bit // 8 < starts[-1] + 11 + compact:
            block = max(k for k in range(3) if starts[k] <= bit // 8)
            check_all_but(blocks, reader.damage, {block}, codes=codes)
        else:
            np.testing.assert_array_equal(joined(blocks, codes), codes)


@both_sources
@both_codings
@given(st.sets(st.integers(0, 5)), st.integers(0, 2**32))
@settings(deadline=None, max_examples=40)
def test_damaged_blocks_cost_only_themselves(
    compact: bool, seekable: bool, lost: set[int], seed: int
) -> None:
    data = bytearray(small(compact))
    generator = np.random.default_rng(seed)
    starts = [*block_starts(compact), len(data) - 22]
    for k in lost:
        data[starts[k] : starts[k + 1]] = generator.bytes(starts[k + 1] - starts[k])
    reader, blocks = read_all(opened(bytes(data), seekable))
    check_all_but(blocks, reader.damage, lost)
    assert reader.complete and all(d.reason == "the checksum is wrong" for d in reader.damage)


@both_sources
@both_codings
@pytest.mark.parametrize("change", [-BLOCK_BYTES, -7, -1, 1, 5, 100], ids="{:+}".format)
@pytest.mark.parametrize("block", range(6))
def test_lost_and_foreign_bytes_cost_one_block(
    block: int, change: int, compact: bool, seekable: bool
) -> None:
    data = small(compact)
    place = block_starts(compact)[block]
    if change > 0:
        place += 5
        data = data[:place] + bytes(range(change)) + data[place:]
    else:
        change = max(change, -11) if block == 5 else change
        data = data[:place] + data[place - change :]
    reader, blocks = read_all(opened(data, seekable))
    check_all_but(blocks, reader.damage, {block})


@both_sources
@both_codings
def test_bytes_between_blocks_cost_none(compact: bool, seekable: bool) -> None:
    data = small(compact)
    place = block_starts(compact)[2]
    reader, blocks = read_all(opened(data[:place] + b"\0\2hello" + data[place:], seekable))
    np.testing.assert_array_equal(joined(blocks, CODES), CODES)
    assert reader.damage == [Damage(8, 0, "7 bytes that belong to no block")]
    assert reader.complete


@both_sources
@both_codings
def test_swapped_and_doubled_blocks_are_noticed(compact: bool, seekable: bool) -> None:
    data = small(compact)
    a, b, c = block_starts(compact)[1:4]
    swapped = data[:a] + data[b:c] + data[a:b] + data[c:]
    reader, blocks = read_all(opened(swapped, seekable))
    check_all_but(blocks, reader.damage, {1})
    doubled = data[:b] + data[a:b] + data[b:]
    reader, blocks = read_all(opened(doubled, seekable))
    np.testing.assert_array_equal(joined(blocks, CODES), CODES)
    assert reader.damage == [Damage(8, 0, f"{b - a} bytes that belong to no block")]


@both_sources
def test_missing_blocks_are_told(seekable: bool) -> None:
    data, starts = small(), block_starts(False)
    reader, blocks = read_all(opened(data[: starts[2]] + data[starts[4] :], seekable))
    check_all_but(blocks, reader.damage, {2, 3})
    assert [d.reason for d in reader.damage] == ["blocks are missing"]


def test_a_block_of_another_file_in_the_same_place_is_the_same_block_only_if_it_is_whole() -> None:
    data, other = small(), written(random_codes((1, 2, FRAMES), seed=5), MODEL)
    a, b = block_starts(False)[1:3]
    mixed = data[: a + 5] + other[a + 5 : b] + data[b:]
    reader, blocks = read_all(io.BytesIO(mixed))
    check_all_but(blocks, reader.damage, {1})


@pytest.mark.parametrize("wanted", range(6))
@pytest.mark.parametrize("broken", range(6))
@both_codings
def test_blocks_are_reached_past_damage(wanted: int, broken: int, compact: bool) -> None:
    data = bytearray(small(compact))
    data[block_starts(compact)[broken]] ^= 0x10
    reader = Reader(io.BytesIO(data), tables=TABLES)
    blocks = list(reader.blocks(4 * wanted, 4))
    assert [(b.first_frame, b.codes is None) for b in blocks] == [(4 * wanted, wanted == broken)]
    if wanted != broken:
        expected = CODES[:, :, 4 * wanted : 4 * wanted + 4]
        np.testing.assert_array_equal(joined(blocks, CODES), expected)


@both_codings
def test_blocks_are_reached_in_a_file_that_is_out_of_place(compact: bool) -> None:
    codes = random_codes((1, 2, 400))
    data = written(codes, dataclasses.replace(MODEL, compact=compact))
    place = HEADER_BYTES[compact] + 30
    for broken in (data[:place] + b"?" + data[place:], data[:place] + data[place + 1 :]):
        for start in (40, 171, 300, 396):
            reader = Reader(io.BytesIO(broken), tables=TABLES)
            blocks = list(reader.blocks(start, 3))
            np.testing.assert_array_equal(joined(blocks, codes), codes[:, :, start : start + 3])


def test_a_wrong_index_is_seen_through() -> None:
    codes = np.repeat(random_codes((1, 2, 100)), 4, axis=2)
    data = bytearray(written(codes, dataclasses.replace(MODEL, compact=True)))
    end = len(data) - int.from_bytes(data[-8:-4])
    assert end < len(data) - 22
    data[end + 14 : end + 22] = struct.pack(">Q", 90)
    data[-4:] = checked(bytes(data[end:-4]), 100)[-4:]
    reader = Reader(io.BytesIO(data), tables=TABLES)
    assert reader.complete
    np.testing.assert_array_equal(joined(list(reader.blocks(70, 5)), codes), codes[:, :, 70:75])


def test_damage_is_told_by_time_or_by_frame() -> None:
    damage = Damage(2950, 100, "the checksum is wrong")
    assert damage.describe(50.0) == "0:59.00 to 1:01.00: the checksum is wrong"
    assert damage.describe(None) == "frame 2950 to frame 3050: the checksum is wrong"
    assert Damage(180_000, None, "cut").describe(50.0) == "from 1:00:00.00 on: cut"
    assert Damage(7, 0, "odd").describe(50.0) == "at 0:00.14: odd"


def test_a_file_goes_on_after_its_end() -> None:
    for seekable in (True, False):
        reader, blocks = read_all(opened(small() + b"\0", seekable))
        np.testing.assert_array_equal(joined(blocks, CODES), CODES)
        assert reader.damage == [Damage(FRAMES, 0, "the file goes on after its end")]


def test_only_the_end_is_missing() -> None:
    data = small(frames=FRAMES)[:-22]
    for seekable in (True, False):
        reader, blocks = read_all(opened(data, seekable))
        np.testing.assert_array_equal(joined(blocks, CODES), CODES)
        assert reader.damage == [Damage(FRAMES, 0, "the record of its end is missing or damaged")]
        assert reader.header.frames == FRAMES and not reader.complete


# -- Claims ------------------------------------------------------------------------------------


class Counting(io.BytesIO):
    """Remembers the most that was asked for at once."""

    most = 0

    def read1(self, size: int | None = -1, /) -> bytes:
        assert size is not None and size >= 0
        self.most = max(self.most, size)
        return super().read1(size)


@both_codings
def test_a_header_that_claims_billions_of_frames_allocates_nothing(compact: bool) -> None:
    tables = TABLES.fingerprint if compact else None
    huge = Header(1, 2**32 - 2, 255, 16, "0" * 32, 16000, 1, 4, 255, compact, tables).checked()
    file = Counting(huge.to_bytes() + b"\0\4\1\2\3")
    reader, blocks = read_all(file)
    assert not blocks and file.most <= 1 << 20
    assert reader.damage == [Damage(0, None, "the file is cut short")]


@both_sources
def test_an_end_that_claims_billions_of_frames_brings_no_more_than_it_can(seekable: bool) -> None:
    data = small()
    end = b"\0\0" + struct.pack(">IQI", 2**32 - 2, 0, 22)
    hostile = data[:-22] + checked(end, -(-(2**32 - 2) // 4))
    reader, blocks = read_all(opened(hostile, seekable))
    assert sum(block.frames for block in blocks) <= FRAMES
    assert reader.damage


@both_sources
def test_a_gap_that_no_bytes_stand_for_is_believed_up_to_a_limit(seekable: bool) -> None:
    data = small()
    for number, believed in [(1000, True), (70_000, False)]:
        block = b"\0\4" + data[64:74]
        jump = data[:78] + checked(block, number) + checked(block, number + 1)
        reader, blocks = read_all(opened(jump, seekable))
        assert sum(b.frames for b in blocks) == (4 * number + 8 if believed else 4)
        assert reader.damage


def test_a_hole_of_zeros_is_passed_quickly() -> None:
    codes = random_codes((1, 2, 4000))
    data = bytearray(written(codes, MODEL))
    data[62 + 16 : 62 + 16 * 901] = bytes(16 * 900)
    reader, blocks = read_all(io.BytesIO(data))
    assert [(d.first_frame, d.frames) for d in reader.damage] == [(4, 3600)]
    assert len(blocks) == 1000


@given(st.binary(max_size=300), st.booleans())
@settings(deadline=None, max_examples=200)
def test_any_bytes_behind_a_header_end_in_codes_or_damage(data: bytes, compact: bool) -> None:
    header = small(compact)[: HEADER_BYTES[compact]]
    results = []
    for seekable in (True, False):
        reader, blocks = read_all(opened(header + data, seekable))
        results.append((reader.damage, [b.first_frame for b in blocks]))
        assert reader.damage
    assert results[0] == results[1]
