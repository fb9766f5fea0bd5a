"""Small probability tables for tests."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from codec.entropy import EntropyTables


def pattern(*shape: int, most: int, step: int = 7919) -> NDArray[np.int64]:
    """Integers from -most to most that look random and are the same with every numpy."""
    size = int(np.prod(shape))
    return (np.arange(1, size + 1) ** 2 * step % (2 * most + 1) - most).reshape(shape)


def make_tables(
    n_quantizers: int = 3,
    codebook_size: int = 16,
    *,
    lags: int = 2,
    hidden: int = 5,
    mixed: int = 4,
) -> EntropyTables:
    n, size = n_quantizers, codebook_size
    fall = np.round(2**20 * 0.9 ** np.arange(200)).astype(np.int32)
    return EntropyTables(
        contexts=pattern(lags + 1, n, size + 1, hidden, most=90).astype(np.int8),
        hidden_bias=pattern(n, hidden, most=50).astype(np.int32),
        mixing=pattern(n, hidden, mixed, most=100).astype(np.int8),
        mixing_bias=pattern(n, mixed, most=900).astype(np.int32),
        output=pattern(n, mixed, size, most=120).astype(np.int8),
        output_bias=pattern(n, size, most=900).astype(np.int32),
        weights=np.tile(fall, (n, 1)),
        shifts=np.tile(np.array([5, 9], np.int32), (n, 1)),
    )


def flat_tables(n_quantizers: int = 3, codebook_size: int = 16) -> EntropyTables:
    """Tables by which every row is equally likely."""
    return changed(
        make_tables(n_quantizers, codebook_size),
        output=np.zeros((n_quantizers, 4, codebook_size), np.int8),
        output_bias=np.zeros((n_quantizers, codebook_size), np.int32),
    )


def changed(tables: EntropyTables, **arrays: NDArray[Any]) -> EntropyTables:
    """The tables with some of them exchanged."""
    renamed = {f"entropy.{name}": array for name, array in arrays.items()}
    return EntropyTables.from_tensors(tables.tensors() | renamed)
