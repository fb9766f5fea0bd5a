"""Decoding without constriction, compared with it."""

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codec import entropy
from codec.errors import BitstreamError
from codec.range_coding import Decoder, PlainDecoder, open_decoder
from tests.support.entropy import flat_tables, make_tables

TABLES = make_tables()


def decode(tables, blocks, shapes, kind, monkeypatch):
    monkeypatch.setattr(entropy, "open_decoder", kind)
    return tables.decode(blocks, shapes)


@given(
    shapes=st.lists(
        st.tuples(st.integers(0, 3), st.integers(1, 3), st.integers(0, 12)), min_size=1, max_size=4
    ),
    seed=st.integers(0, 2**32 - 1),
    flat=st.booleans(),
)
@settings(deadline=None, max_examples=40)
def test_plain_decoding_gives_what_was_written(shapes, seed, flat):
    tables = flat_tables() if flat else TABLES
    random = np.random.default_rng(seed)
    codes = [random.integers(0, 16, shape).astype(np.uint16) for shape in shapes]
    with pytest.MonkeyPatch.context() as patch:
        again = decode(tables, tables.encode(codes), shapes, PlainDecoder, patch)
    assert [block.dtype for block in again] == [np.uint16] * len(codes)
    assert all(np.array_equal(a, b) for a, b in zip(again, codes, strict=True))


@pytest.mark.parametrize("size", [2, 1024, 65536])
def test_any_codebook_size(size, monkeypatch):
    tables = make_tables(2, size)
    codes = np.random.default_rng(0).integers(0, size, (2, 2, 4)).astype(np.uint16)
    codes[0, :, 0] = size - 1
    again = decode(tables, tables.encode([codes]), [codes.shape], PlainDecoder, monkeypatch)
    assert np.array_equal(again[0], codes)


@given(data=st.binary(max_size=60), shape=st.tuples(st.just(1), st.integers(1, 3), st.just(15)))
@settings(deadline=None, max_examples=80)
def test_garbage_is_read_as_constriction_reads_it(data, shape):
    found = []
    for kind in (Decoder, PlainDecoder):
        with pytest.MonkeyPatch.context() as patch:
            try:
                found.append(decode(TABLES, [data], [shape], kind, patch)[0].tolist())
            except BitstreamError as error:
                found.append(str(error))
    assert found[0] == found[1]


def test_the_quickest_that_is_there_is_taken(monkeypatch):
    assert isinstance(open_decoder(b"", (1, 1, 1)), Decoder)
    monkeypatch.setitem(sys.modules, "constriction", None)
    assert isinstance(open_decoder(b"", (1, 1, 1)), PlainDecoder)
