from hypothesis import given
from hypothesis import strategies as st

from infer.live.numbering import Arrivals, Unwrapped


@given(
    start=st.integers(0, 255),
    steps=st.lists(st.integers(-100, 100), max_size=100),
)
def test_numbers_go_on_past_the_end(start: int, steps: list[int]) -> None:
    unwrapped = Unwrapped(8)
    highest = start
    assert unwrapped(start) == start
    for step in steps:
        assert unwrapped((highest + step) % 256) == highest + step
        highest = max(highest, highest + step)


@given(numbers=st.lists(st.integers(0, 60), max_size=100))
def test_arrivals_are_counted(numbers: list[int]) -> None:
    arrivals = Arrivals()
    new = [arrivals.take(number) for number in numbers]
    assert arrivals.came == len(set(numbers)) == sum(new)
    assert arrivals.duplicates == len(numbers) - len(set(numbers))
    expected = max(numbers) - min(numbers) + 1 if numbers else 0
    assert arrivals.lost == expected - len(set(numbers))


def test_what_is_remembered_is_bounded() -> None:
    arrivals = Arrivals()
    for number in range(10_000):
        assert arrivals.take(number)
    assert len(arrivals._seen) <= 2048
    assert not arrivals.take(9_000)
    assert not arrivals.take(5)  # too old to tell, so taken for a copy
    assert (arrivals.duplicates, arrivals.lost, arrivals.reordered) == (2, 0, 0)
