import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from codec.entropy import EntropyTables
from codec.errors import BitstreamError
from tests.support.entropy import changed, flat_tables, make_tables, pattern

TABLES = make_tables()


def random_codes(*shape, size=16, seed=0):
    return np.random.default_rng(seed).integers(0, size, shape).astype(np.uint16)


@given(
    shapes=st.lists(
        st.tuples(st.integers(0, 3), st.integers(1, 3), st.integers(0, 12)), max_size=6
    ),
    seed=st.integers(0, 2**32 - 1),
)
@example(shapes=[(1, 3, 300)], seed=0)
@settings(deadline=None, max_examples=60)
def test_round_trip(shapes, seed):
    blocks = [random_codes(*shape, seed=seed + i) for i, shape in enumerate(shapes)]
    again = TABLES.decode(TABLES.encode(blocks), shapes)
    assert [block.dtype for block in again] == [np.uint16] * len(blocks)
    assert all(np.array_equal(a, b) for a, b in zip(again, blocks, strict=True))


@pytest.mark.parametrize("size", [2, 3, 1024, 65536])
@pytest.mark.parametrize("lags", [0, 1, 3])
def test_round_trip_of_any_codebook_size(size, lags):
    tables = make_tables(2, size, lags=lags)
    assert (tables.n_quantizers, tables.codebook_size, tables.lags) == (2, size, lags)
    codes = random_codes(2, 2, 4, size=size)
    codes[0, :, 0] = size - 1
    assert np.array_equal(tables.decode(tables.encode([codes]), [codes.shape])[0], codes)


def test_bytes_are_known_values_on_every_platform():
    codes = (pattern(2, 3, 10, most=8, step=31) % 16).astype(np.uint16)
    assert TABLES.fingerprint == "6d3d62cd76aa1323a320a02b4777262a"
    expected = (
        "6e3ba4cbe98f2a1a5ec58e635462edd26103fd14b9e94249775f7a08ff8e9f78286142eacc2f0699"
        "fce37d8bfc5e6f291cadaac194ae67d20b6128bb4000fe43f675debcd47b5c831414ea3dc97c3a5e"
    )
    assert TABLES.encode([codes])[0].hex() == expected


def python_shares(tables, k, past, now):
    """The module's formulas in Python's own numbers."""
    t = {name.removeprefix("entropy."): array.tolist() for name, array in tables.tensors().items()}
    hidden = t["hidden_bias"][k]
    rows = [t["contexts"][0][j][now[j]] for j in range(k)]
    rows += [
        t["contexts"][lag + 1][j][past[lag][j]] for lag in range(tables.lags) for j in range(k + 1)
    ]
    hidden = [min(max(sum(column), 0), 1023) for column in zip(hidden, *rows, strict=True)]
    sums = [
        sum(h * w for h, w in zip(hidden, c, strict=True))
        for c in zip(*t["mixing"][k], strict=True)
    ]
    first, second = t["shifts"][k]
    mixed = [(s + b) >> first for s, b in zip(sums, t["mixing_bias"][k], strict=True)]
    mixed = [min(max(m, 0), 1023) for m in mixed]
    sums = [
        sum(m * w for m, w in zip(mixed, c, strict=True)) for c in zip(*t["output"][k], strict=True)
    ]
    score = [s + b for s, b in zip(sums, t["output_bias"][k], strict=True)]
    table = t["weights"][k]
    weight = [table[min((max(score) - s) >> second, len(table) - 1)] for s in score]
    free = 2**24 - tables.codebook_size
    shares = [math.floor(w * (free / sum(weight))) for w in weight]
    shares[0] += free - sum(shares)
    return shares


def python_code(tables, block):
    """A range coder in Python's integers: the value of its last interval's start, size and bits."""
    channels, n_quantizers, frames = block.shape
    none = [tables.codebook_size] * n_quantizers
    start, size, bits = 0, 2**64 - 1, 64
    for frame in range(frames):
        for k in range(n_quantizers):
            for channel in range(channels):
                codes = block[channel].T.tolist()
                past = [
                    codes[frame - lag] if frame >= lag else none
                    for lag in range(1, tables.lags + 1)
                ]
                frequencies = [share + 1 for share in python_shares(tables, k, past, codes[frame])]
                assert sum(frequencies) == 2**24
                code = codes[frame][k]
                start += (size >> 24) * sum(frequencies[:code])
                size = (size >> 24) * frequencies[code]
                if size < 2**32:
                    start, size, bits = start << 32, size << 32, bits + 32
    return start, size, bits


@pytest.mark.parametrize("shape", [(1, 3, 30), (2, 2, 12), (1, 1, 1)], ids=str)
@pytest.mark.parametrize("seed", range(3))
def test_bytes_are_those_of_integer_frequencies(shape, seed):
    block = random_codes(*shape, seed=seed)
    start, size, bits = python_code(TABLES, block)
    (data,) = TABLES.encode([block])
    number = int.from_bytes(data, "big") << (bits - 8 * len(data))
    assert start <= number < start + size
    shorter = -(-start >> (bits - 8 * (len(data) - 1)))  # no shorter string would do
    assert shorter << (bits - 8 * (len(data) - 1)) >= start + size


def test_blocks_do_not_depend_on_their_company():
    blocks = [random_codes(1, 3, 20, seed=seed) for seed in range(300)]
    blocks += [random_codes(2, 2, 7, seed=seed) for seed in range(3)]
    together = TABLES.encode(blocks)
    assert together[::50] == [TABLES.encode([block])[0] for block in blocks[::50]]
    shapes = [block.shape for block in blocks]
    wrong = [together[0], b"\0" * 9, *together[2:]]
    again = TABLES.decode(wrong, shapes)
    assert np.array_equal(again[0], blocks[0])
    assert np.array_equal(again[2], blocks[2])
    assert not np.array_equal(again[1], blocks[1])


def test_a_channel_is_coded_as_if_it_were_alone():
    left, right = random_codes(1, 3, 200), random_codes(1, 3, 200, seed=1)
    both, *apart = TABLES.encode([np.concatenate([left, right]), left, right])
    assert abs(len(both) - sum(map(len, apart))) <= 2


def test_fewer_codebooks_cost_what_they_are():
    codes = random_codes(1, 3, 50)
    lengths = [len(TABLES.encode([codes[:, :n]])[0]) for n in (1, 2, 3)]
    assert lengths == sorted(set(lengths))


@given(data=st.binary(max_size=60), shape=st.tuples(*[st.integers(1, 3)] * 2, st.integers(0, 30)))
@example(data=b"\xff" * 60, shape=(1, 3, 30))
@example(data=b"", shape=(1, 3, 30))
@settings(deadline=None, max_examples=200)
def test_garbage_gives_codes_or_a_bitstream_error(data, shape):
    try:
        (codes,) = TABLES.decode([data], [shape])
    except BitstreamError:
        return
    assert codes.shape == shape
    assert codes.max(initial=0) < 16


def test_codes_that_nothing_predicts_cost_little_more_than_at_the_fixed_rate():
    blocks = [random_codes(1, 6, 50, size=1024, seed=seed) for seed in range(4)]
    fixed = 4 * 6 * 50 * 10 / 8
    assert sum(map(len, flat_tables(6, 1024).encode(blocks))) <= fixed * 1.005
    assert (
        sum(map(len, flat_tables(6, 1024).encode([b[:, :1] for b in blocks]))) <= fixed / 6 * 1.02
    )


def test_likely_codes_cost_next_to_nothing():
    peaked = np.zeros((3, 16), np.int32)
    peaked[:, 5] = 2**19
    tables = changed(flat_tables(), output_bias=peaked)
    assert len(tables.encode([np.full((1, 3, 1000), 5, np.uint16)])[0]) <= 2
    rare = np.full((1, 3, 100), 6, np.uint16)  # what was thought impossible is coded all the same
    (data,) = tables.encode([rare])
    assert len(data) <= 300 * 3 + 1
    assert np.array_equal(tables.decode([data], [rare.shape])[0], rare)


@pytest.mark.parametrize(
    "block",
    [random_codes(1, 4, 5), np.full((1, 1, 5), 16, np.uint16), random_codes(3, 5)],
    ids=["too-many-codebooks", "out-of-range", "two-dimensions"],
)
def test_impossible_blocks_are_refused(block):
    with pytest.raises(BitstreamError):
        TABLES.encode([block])


def test_impossible_shapes_are_refused():
    for shape in [(1, 4, 5), (1, 0, 5), (1, 1, -1)]:
        with pytest.raises(BitstreamError, match="1 to 3"):
            TABLES.decode([b"1234"], [shape])


def test_tensors_round_trip_and_cannot_be_written_to():
    again = EntropyTables.from_tensors({n: a.copy() for n, a in TABLES.tensors().items()})
    assert again.fingerprint == TABLES.fingerprint
    assert len(again.fingerprint) == 32
    assert all(name.startswith("entropy.") for name in again.tensors())
    for array in again.tensors().values():
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0


@pytest.mark.parametrize("name", [name.removeprefix("entropy.") for name in TABLES.tensors()])
def test_fingerprint_depends_on_every_table(name):
    array = getattr(TABLES, name).copy()
    array.flat[0] += 1
    assert changed(TABLES, **{name: array}).fingerprint != TABLES.fingerprint


@pytest.mark.parametrize(
    ("arrays", "told"),
    [
        ({"output_bias": np.full((3, 16), 2**23, np.int32)}, "2\\^24"),
        ({"mixing_bias": np.full((3, 4), -(2**31), np.int32)}, "2\\^24"),
        ({"hidden_bias": np.full((3, 5), 2**24, np.int32)}, "2\\^24"),
        ({"mixing": np.zeros((3, 5, 4), np.int16)}, "int16"),
        ({"mixing": np.zeros((3, 6, 4), np.int8)}, "mixing is"),
        ({"contexts": np.zeros((3, 17, 5), np.int8)}, "dimensions"),
        ({"weights": np.zeros((3, 200), np.int32)}, "fall"),
        ({"weights": np.tile(np.arange(1, 201, dtype=np.int32), (3, 1))}, "fall"),
        ({"shifts": np.full((3, 2), 25, np.int32)}, "shifts"),
        ({"shifts": np.full((3, 2), -1, np.int32)}, "shifts"),
        ({"more": np.zeros(1, np.int8)}, "should be"),
    ],
    ids=lambda value: value if isinstance(value, str) else next(iter(value)),
)
def test_tables_that_are_not_exact_are_refused(arrays, told):
    with pytest.raises(ValueError, match=told):
        changed(TABLES, **arrays)


def test_the_largest_tables_that_are_let_through_are_exact():
    """At the edge of the range float32's sums are those of integers, whatever the order."""
    hidden, mixed = 128, 60
    tables = make_tables(1, 8, hidden=hidden, mixed=mixed)
    tables = changed(
        tables,
        mixing=np.full((1, hidden, mixed), 127, np.int8),
        mixing_bias=np.full((1, mixed), 2**24 - 1023 * 127 * hidden, np.int32),
        output=pattern(1, mixed, 8, most=127).astype(np.int8),
    )
    rows = pattern(50, hidden, most=2000).astype(np.int32)
    rows[0] = 2000
    zero = np.zeros_like(tables.hidden_bias)
    tables = changed(tables, hidden_bias=zero)
    clipped = np.clip(rows.astype(np.int64), 0, 1023)
    mixed_sums = (clipped @ tables.mixing[0] + tables.mixing_bias[0]) >> tables.shifts[0, 0]
    score = np.clip(mixed_sums, 0, 1023) @ tables.output[0].astype(np.int64) + tables.output_bias[0]
    steps = np.minimum((score.max(1, keepdims=True) - score) >> tables.shifts[0, 1], 199)
    weight = tables.weights[0].astype(np.int64)[steps]
    shares = np.floor(weight * ((2**24 - 8) / weight.sum(1, keepdims=True)))
    assert np.array_equal(tables.shares(0, rows)[:, 1:], shares[:, 1:])


def test_no_torch_is_needed():
    code = "import sys, codec.entropy; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
