"""Lossless coding of codes in fewer bits: a range coder whose probabilities follow the context.

How likely each row of a codebook is, given the codes before it in its block, comes from a small
network of integers that is learned from speech (`codec/entropy_learning.py`) and shipped inside the
model file. A block is coded on its own: it begins without context and ends in bytes of its own, so
that it decodes without its neighbours and loses nothing by their damage.

For codebook k in frame t, with codes c and every lag l = 1 ... lags:

    hidden = hidden_bias[k] + Σ_{j<k} contexts[0, j, c[j, t]]
                            + Σ_l Σ_{j≤k} contexts[l, j, c[j, t − l]]
    mixed  = ⌊(clip(hidden, 0, 1023) · mixing[k] + mixing_bias[k]) / 2^shifts[k, 0]⌋
    score  = clip(mixed, 0, 1023) · output[k] + output_bias[k]
    weight = weights[k, ⌊(max(score) − score) / 2^shifts[k, 1]⌋]      (beyond the table: its last)
    share  = ⌊weight · ((2^24 − codebook_size) / Σ weight)⌋           (what is missing to the sum
                                                                       goes to row 0)
    frequency = share + 1, of 2^24

Before the block's first frame every code is codebook_size, a row of its own. The codes go frame by
frame, codebook by codebook, channel by channel into one range coder (Martin 1979), constriction's,
with a state of 64 bits and words of 32; each channel has its own context. The code of a block is
the shortest byte string in the coder's last interval, the words most significant byte first,
without the zero bytes at its end; the decoder reads zeros after it.

Codebook k never looks at codebooks above it, so one set of tables serves every number of codebooks.

Why every machine gets the same frequencies. `hidden` to `score` are integers. Their products are
done in float32, where integers up to 2^24 are exact: the constructor refuses tables for which some
sum could pass 2^24, whatever the codes, so that no partial sum ever rounds and the order in which
a processor adds does not matter; dividing by a power of two is exact as well. Sums of weights are
integers in float64. The share takes one float64 division, one product and one floor, which
IEEE 754 rounds in one way only. constriction multiplies what it is given by (2^24 − codebook_size)
/ Σ, takes the floor of the cumulative sums and adds 1 to each symbol ("leaky"): shares that sum to
exactly 2^24 − codebook_size make its factor 1 and its frequencies the shares plus 1. The tests
compare its bytes with a range coder in Python's integers.
"""

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from codec.errors import BitstreamError
from codec.range_coding import PRECISION, Coder, Encoder, open_decoder

PREFIX = "entropy."
ACTIVATION_MAX = 1023
"""Hidden and mixed activations are clipped to 0 ... ACTIVATION_MAX."""

Codes = NDArray[np.uint16]
Shape = tuple[int, int, int]

_EXACT = 2**24  # float32 holds every integer up to here
# Shares worked out side by side: enough to share Python's overhead, few enough for the cache.
_SIDE_BY_SIDE = 1 << 17
_DTYPES = {
    "contexts": np.int8,
    "hidden_bias": np.int32,
    "mixing": np.int8,
    "mixing_bias": np.int32,
    "output": np.int8,
    "output_bias": np.int32,
    "weights": np.int32,
    "shifts": np.int32,
}


@dataclass(frozen=True, eq=False)
class EntropyTables:
    """The integers that say how likely a code is; see the module for the formulas.

    Attributes:
        contexts: int8 (lags + 1, n_quantizers, codebook_size + 1, hidden).
        hidden_bias: int32 (n_quantizers, hidden).
        mixing: int8 (n_quantizers, hidden, mixed).
        mixing_bias: int32 (n_quantizers, mixed).
        output: int8 (n_quantizers, mixed, codebook_size).
        output_bias: int32 (n_quantizers, codebook_size).
        weights: int32 (n_quantizers, steps), falling from the first, above 0, to the last, 0 or
            more.
        shifts: int32 (n_quantizers, 2), 0 to 24.

    Raises:
        ValueError: dtypes or shapes are others, or the tables could leave the exact range.
    """

    contexts: NDArray[np.int8]
    hidden_bias: NDArray[np.int32]
    mixing: NDArray[np.int8]
    mixing_bias: NDArray[np.int32]
    output: NDArray[np.int8]
    output_bias: NDArray[np.int32]
    weights: NDArray[np.int32]
    shifts: NDArray[np.int32]

    def __post_init__(self) -> None:
        for name, dtype in _DTYPES.items():
            array = np.ascontiguousarray(getattr(self, name)).view()
            if array.dtype != dtype:
                raise ValueError(f"{name} is {array.dtype}: it should be {np.dtype(dtype)}")
            array.flags.writeable = False
            object.__setattr__(self, name, array)
        self._check_shapes()
        self._check_ranges()

    @property
    def n_quantizers(self) -> int:
        """Codebooks there are tables for."""
        return self.contexts.shape[1]

    @property
    def codebook_size(self) -> int:
        """Rows of a codebook."""
        return self.output.shape[2]

    @property
    def lags(self) -> int:
        """Frames back that are looked at."""
        return self.contexts.shape[0] - 1

    @cached_property
    def fingerprint(self) -> str:
        """BLAKE2b-128 over each table's name, dtype, shape and little-endian bytes: 32 hex."""
        digest = hashlib.blake2b(digest_size=16)
        for name, array in sorted(self.tensors().items()):
            shape = "x".join(str(size) for size in array.shape)
            digest.update(f"\n{name} {array.dtype.name} {shape}\n".encode())
            digest.update(array.astype(array.dtype.newbyteorder("<")).tobytes())
        return digest.hexdigest()

    def tensors(self) -> dict[str, NDArray[Any]]:
        """The tables by name, each name starting with ``entropy.``, as a model file holds them."""
        return {PREFIX + field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, NDArray[Any]]) -> Self:
        """The tables that `tensors` gave.

        Raises:
            ValueError: a table is missing, unknown, or of another dtype, shape or range.
        """
        names = {PREFIX + field.name for field in fields(cls)}
        if names != tensors.keys():
            raise ValueError(f"there should be {sorted(names)}, but there are {sorted(tensors)}")
        return cls(**{name.removeprefix(PREFIX): array for name, array in tensors.items()})

    def encode(self, blocks: Sequence[Codes]) -> list[bytes]:
        """Codes each block on its own.

        Args:
            blocks: unsigned integers (channels, n_quantizers, frames) below codebook_size, each
                block with any n_quantizers up to the tables'.

        Raises:
            BitstreamError: more codebooks than the tables have, or a code out of range.
        """
        for block in blocks:
            self._check_shape(block.shape)
            if block.size and not 0 <= int(block.min()) <= int(block.max()) < self.codebook_size:
                raise BitstreamError(
                    f"codes from {block.min()} to {block.max()}: the tables' lie in 0 to "
                    f"{self.codebook_size - 1}"
                )
        coders = [Encoder(block) for block in blocks]
        self._code(coders)
        return [coder.finish() for coder in coders]

    def decode(self, blocks: Sequence[bytes], shapes: Sequence[Shape]) -> list[Codes]:
        """Gets back what `encode` was given.

        Args:
            blocks: what `encode` returned. Other bytes give BitstreamError or any codes.
            shapes: (channels, n_quantizers, frames) of each block.

        Raises:
            BitstreamError: more codebooks than the tables have, or bytes that no codes lead to.
        """
        for shape in shapes:
            self._check_shape(shape)
        coders = [open_decoder(*pair) for pair in zip(blocks, shapes, strict=True)]
        self._code(coders)
        return [coder.codes for coder in coders]

    def _code(self, coders: Sequence[Coder]) -> None:
        """Runs coders, those of equal shapes side by side."""
        by_shape: dict[tuple[int, ...], list[Coder]] = defaultdict(list)
        for coder in coders:
            if coder.codes.size:
                by_shape[coder.codes.shape].append(coder)
        for (channels, _, _), alike in by_shape.items():
            step = max(1, _SIDE_BY_SIDE // (channels * self.codebook_size))
            for first in range(0, len(alike), step):
                self._code_alike(alike[first : first + step])

    def _code_alike(self, coders: Sequence[Coder]) -> None:
        """Runs coders of one shape, code by code, from the first frame to the last."""
        channels, n_quantizers, frames = coders[0].codes.shape
        rows = len(coders) * channels
        past = np.full((self.lags, n_quantizers, rows), self.codebook_size)
        for frame in range(frames):
            now = np.empty((n_quantizers, rows), np.int64)
            hidden = np.zeros((rows, self.contexts.shape[3]), np.int32)
            for k in range(n_quantizers):
                for lag in range(self.lags):
                    hidden += self.contexts[lag + 1, k].take(past[lag, k], axis=0)
                shares = self.shares(k, hidden)
                parts = shares.reshape(len(coders), channels, -1)
                for index, coder in enumerate(coders):
                    now[k, index * channels : (index + 1) * channels] = coder.code(
                        k, frame, parts[index]
                    )
                hidden += self.contexts[0, k].take(now[k], axis=0)
            if self.lags:
                past = np.concatenate([now[None], past[:-1]])

    def shares(self, k: int, context: NDArray[np.int32]) -> NDArray[np.float64]:
        """Frequencies less 1 of codebook k's rows.

        Args:
            k: the codebook, from 0.
            context: (rows, hidden), what the context adds to `hidden_bias`.

        Returns:
            (rows, codebook_size), integers that sum to 2^24 - codebook_size in each row.
        """
        mixing, output, weights = self._floats[k]
        hidden = np.clip(context + self.hidden_bias[k], 0, ACTIVATION_MAX).astype(np.float32)
        mixed = hidden @ mixing
        mixed += self.mixing_bias[k].astype(np.float32)
        mixed *= np.float32(0.5 ** int(self.shifts[k, 0]))
        np.floor(mixed, out=mixed)
        score = np.clip(mixed, 0, ACTIVATION_MAX, out=mixed) @ output
        score += self.output_bias[k].astype(np.float32)
        np.subtract(score.max(axis=1, keepdims=True), score, out=score)
        score *= np.float32(0.5 ** int(self.shifts[k, 1]))
        np.minimum(score, np.float32(len(weights) - 1), out=score)
        shares = weights.take(score.astype(np.int32))
        free = 2**PRECISION - self.codebook_size
        shares *= free / shares.sum(axis=1, keepdims=True)
        np.floor(shares, out=shares)
        shares[:, 0] += free - shares.sum(axis=1)
        return shares

    @cached_property
    def _floats(self) -> list[tuple[NDArray[Any], NDArray[Any], NDArray[Any]]]:
        """mixing, output and weights of each codebook as floats, which hold them exactly."""
        single = np.float32
        return [
            (self.mixing[k].astype(single), self.output[k].astype(single), self.weights[k] * 1.0)
            for k in range(self.n_quantizers)
        ]

    def _check_shape(self, shape: tuple[int, ...]) -> None:
        if len(shape) != 3 or not 1 <= shape[1] <= self.n_quantizers or min(shape) < 0:
            raise BitstreamError(
                f"a block of shape {tuple(shape)}: the tables code (channels, n, frames) with n "
                f"from 1 to {self.n_quantizers}"
            )

    def _check_shapes(self) -> None:
        if self.contexts.ndim != 4 or self.mixing.ndim != 3 or self.weights.ndim != 2:
            raise ValueError("contexts, mixing or weights has another number of dimensions")
        lags, n, rows, hidden = self.contexts.shape
        mixed, steps = self.mixing.shape[2], self.weights.shape[1]
        expected = {
            "contexts": (lags, n, rows, hidden),
            "hidden_bias": (n, hidden),
            "mixing": (n, hidden, mixed),
            "mixing_bias": (n, mixed),
            "output": (n, mixed, rows - 1),
            "output_bias": (n, rows - 1),
            "weights": (n, steps),
            "shifts": (n, 2),
        }
        for name, shape in expected.items():
            if getattr(self, name).shape != shape:
                raise ValueError(f"{name} is {getattr(self, name).shape}: it should be {shape}")
        if not (lags and n and hidden and mixed and steps and 2 <= rows - 1 <= 2**16):
            raise ValueError(
                f"{n} codebooks of {rows - 1} rows, {lags - 1} lags, {hidden} hidden, {mixed} "
                f"mixed and {steps} steps: give 2 to 65536 rows and 1 or more of the others"
            )

    def _check_ranges(self) -> None:
        """That no sum that float32 takes part in can pass what it holds exactly."""
        hidden = np.abs(self.hidden_bias.astype(np.int64)) + self.contexts.shape[0] * len(
            self.hidden_bias
        ) * np.int64(128)
        mixed = _largest(self.mixing, self.mixing_bias)
        score = _largest(self.output, self.output_bias)  # two of them are subtracted
        if max(int(hidden.max()), int(mixed.max()), 2 * int(score.max())) > _EXACT:
            raise ValueError("the tables are too large: some sum could pass 2^24")
        falling = np.diff(self.weights, axis=1).max(initial=0) <= 0 <= int(self.weights.min())
        if not falling or int(self.weights[:, 0].min()) < 1:
            raise ValueError("weights should fall from above 0 to 0 or more")
        if not 0 <= int(self.shifts.min()) <= int(self.shifts.max()) <= PRECISION:
            raise ValueError(f"shifts should be 0 to {PRECISION}")


def _largest(table: NDArray[np.int8], bias: NDArray[np.int32]) -> NDArray[np.int64]:
    """What a product with clipped activations can reach, partial sums included."""
    return ACTIVATION_MAX * np.abs(table.astype(np.int64)).sum(axis=1) + np.abs(
        bias.astype(np.int64)
    )
