"""Pieces joined to lots that keep every core busy: windows of one push are run side by side."""

import os
from collections.abc import Iterator

import numpy as np

from codec.audio import Samples
from infer.bitstream import Block

# A lot is so many windows a core; more cores than _MOST_CORES would only hold more audio back.
_WINDOWS = 2
_MOST_CORES = 8


def windows_in_a_lot() -> int:
    """Windows that one push should complete."""
    return _WINDOWS * min(os.cpu_count() or 1, _MOST_CORES)


def gathered(waves: Iterator[Samples], window: int) -> Iterator[Samples]:
    """Waves (channels, any number of samples) joined to lots of `window` samples or a little more.

    The last one holds what is left.
    """
    lot = window * windows_in_a_lot()
    waiting: list[Samples] = []
    samples = 0
    for wave in waves:
        waiting.append(wave)
        samples += wave.shape[1]
        if samples >= lot:
            yield np.concatenate(waiting, axis=1)
            waiting, samples = [], 0
    if waiting:
        yield np.concatenate(waiting, axis=1)


def gathered_blocks(blocks: Iterator[Block], window: int) -> Iterator[Block]:
    """Blocks that follow each other joined to lots of `window` frames; damaged ones stay alone."""
    lot = window * windows_in_a_lot()
    waiting: list[Block] = []
    for block in blocks:
        if block.codes is None:
            yield from _joined(waiting)
            yield block
            waiting = []
            continue
        waiting.append(block)
        if sum(one.frames for one in waiting) >= lot:
            yield from _joined(waiting)
            waiting = []
    yield from _joined(waiting)


def _joined(blocks: list[Block]) -> Iterator[Block]:
    codes = [block.codes for block in blocks if block.codes is not None]
    if codes:
        frames = sum(block.frames for block in blocks)
        yield Block(blocks[0].first_frame, frames, np.concatenate(codes, axis=2))
