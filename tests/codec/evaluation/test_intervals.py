import math

import pytest

from codec.evaluation.intervals import summary


@pytest.mark.parametrize(
    ("values", "quantile"),
    # The 0.975 quantile of Student's t for 1, 2 and 4 degrees of freedom, from tables.
    [([1.0, 3.0], 12.7062), ([1.0, 2.0, 6.0], 4.3027), ([4.0, 1.0, 3.0, 3.5, 2.0], 2.7764)],
    ids=["two", "three", "five"],
)
def test_interval_is_students(values, quantile):
    interval = summary([*values, math.nan])
    mean = sum(values) / len(values)
    variance = sum((value - mean) ** 2 for value in values) / (len(values) - 1)
    half = quantile * math.sqrt(variance / len(values))
    assert interval.mean == pytest.approx(mean)
    assert interval.low == pytest.approx(mean - half, rel=1e-4)
    assert interval.high == pytest.approx(mean + half, rel=1e-4)
    assert interval.half_width == pytest.approx(half, rel=1e-4)
    assert (interval.n, interval.undefined) == (len(values), 1)


def test_interval_of_one_value_has_no_ends():
    interval = summary([2.5])
    assert interval.mean == 2.5
    assert math.isnan(interval.low) and math.isnan(interval.half_width)


@pytest.mark.parametrize("values", [[], [math.nan, math.nan]], ids=["none", "undefined"])
def test_interval_of_nothing_is_undefined(values):
    interval = summary(values)
    assert math.isnan(interval.mean)
    assert (interval.n, interval.undefined) == (0, len(values))
