"""Lots: nothing is lost, damaged blocks keep their place."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from infer.bitstream import Block
from infer.gathering import gathered, gathered_blocks, windows_in_a_lot


@settings(deadline=None, max_examples=30)
@given(lengths=st.lists(st.integers(0, 50), max_size=20), window=st.integers(1, 30))
def test_waves_are_joined_to_lots(lengths: list[int], window: int) -> None:
    whole = np.arange(sum(lengths), dtype=np.float32)[None]
    lots = list(gathered(iter(np.split(whole, np.cumsum(lengths)[:-1], axis=1)), window))
    assert np.array_equal(np.concatenate([whole[:, :0], *lots], axis=1), whole)
    assert all(lot.shape[1] >= window * windows_in_a_lot() for lot in lots[:-1])


@settings(deadline=None, max_examples=30)
@given(
    blocks=st.lists(st.tuples(st.integers(1, 20), st.booleans()), max_size=20),
    window=st.integers(1, 10),
)
def test_blocks_are_joined_and_damage_stays_where_it_is(
    blocks: list[tuple[int, bool]], window: int
) -> None:
    given_blocks, first = [], 0
    for frames, damaged in blocks:
        codes = np.arange(first, first + frames, dtype=np.uint16)[None, None]
        given_blocks.append(Block(first, frames, None if damaged else codes))
        first += frames
    lots = list(gathered_blocks(iter(given_blocks), window))

    def frame_by_frame(some: list[Block]) -> list[int | None]:
        out: list[int | None] = []
        for block in some:
            assert block.first_frame == len(out)
            codes = [None] * block.frames if block.codes is None else block.codes[0, 0].tolist()
            out += codes
        return out

    assert frame_by_frame(lots) == frame_by_frame(given_blocks)
    assert all(block.frames < (window + 20) * windows_in_a_lot() for block in lots)
