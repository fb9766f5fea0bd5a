import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from infer.packing import pack, pack_rows, packed_bytes, unpack, unpack_rows


def as_bits(values: list[int], bits: int) -> bytes:
    """The definition, one digit at a time."""
    digits = "".join(format(value, f"0{bits}b") for value in values)
    digits += "0" * (-len(digits) % 8)
    return bytes(int(digits[i : i + 8], 2) for i in range(0, len(digits), 8))


@pytest.mark.parametrize("bits", range(1, 17))
def test_numbers_of_any_width_are_packed_as_defined(bits: int) -> None:
    generator = np.random.default_rng(bits)
    for count in (0, 1, 2, 3, 4, 5, 7, 8, 9, 16, 63, 1001):
        values = generator.integers(0, 2**bits, count)
        packed = pack(values, bits)
        assert packed == as_bits(values.tolist(), bits)
        assert len(packed) == packed_bytes(count, bits)
        np.testing.assert_array_equal(unpack(packed, count, bits), values)


@pytest.mark.parametrize("bits", range(1, 17))
def test_the_largest_number_of_a_width_touches_no_other(bits: int) -> None:
    for place in range(9):
        values = [0] * 9
        values[place] = 2**bits - 1
        packed = pack(np.array(values), bits)
        assert packed == as_bits(values, bits)
        assert unpack(packed, 9, bits).tolist() == values


@given(st.data(), st.integers(1, 16), st.integers(0, 5), st.integers(0, 40))
@settings(deadline=None, max_examples=100)
def test_rows_are_packed_each_by_itself(
    data: st.DataObject, bits: int, rows: int, count: int
) -> None:
    values = data.draw(hnp.arrays(np.uint16, (rows, count), elements=st.integers(0, 2**bits - 1)))
    packed = pack_rows(values, bits)
    assert packed.shape == (rows, packed_bytes(count, bits))
    assert [row.tobytes() for row in packed] == [pack(row, bits) for row in values]
    unpacked = unpack_rows(packed, count, bits)
    assert unpacked.dtype == np.uint16
    np.testing.assert_array_equal(unpacked, values)


def test_unpacking_more_than_there_is_is_refused() -> None:
    with pytest.raises(ValueError, match="3 codes of 10 bits need 4 bytes, not 3"):
        unpack(b"abc", 3, 10)
