"""The range coder under `codec.entropy`: code by code through one block.

constriction's where it is installed. Decoding goes without it too, in Python's integers, for little
more time: most of it goes into the frequencies.
"""

import itertools
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from codec.errors import BitstreamError

PRECISION = 24
"""Frequencies of a codebook's rows sum to 2^PRECISION; constriction's own."""

_WORD, _STATE = 32, 64  # bits that are read or written at a time, and of the coder's numbers

Codes = NDArray[np.uint16]
Shape = tuple[int, int, int]
Shares = NDArray[np.float64]


class Coder(Protocol):
    """What goes through a block code by code: (channels, n_quantizers, frames) `codes`."""

    codes: NDArray[Any]

    def code(self, k: int, frame: int, shares: Shares) -> NDArray[Any]:
        """Codes (channels,) of one codebook and frame, by shares (channels, codebook_size)."""
        ...


class Encoder:
    """Codes to bytes. A `Coder`."""

    def __init__(self, codes: Codes) -> None:
        import constriction  # type: ignore[import-untyped]

        self.codes = codes.astype(np.int32)
        self._family = constriction.stream.model.Categorical(perfect=False)
        self._coder = constriction.stream.queue.RangeEncoder()

    def code(self, k: int, frame: int, shares: Shares) -> NDArray[Any]:
        """Writes codes."""
        symbols = self.codes[:, k, frame].copy()
        self._coder.encode(symbols, self._family, shares)
        return symbols

    def finish(self) -> bytes:
        """The shortest bytes that, zeros after them, lie in the coder's last interval."""
        if self.codes.size == 0:
            return b""
        n_words, (lower, size) = self._coder.pos()
        words = self._coder.get_compressed()
        # As one long number: what constriction would write lies within 2^64 above the interval's
        # start, of which it tells the last 64 bits.
        written = int.from_bytes(words.astype(">u4").tobytes(), "big")
        written <<= 32 * (n_words + 2 - len(words))
        start = written - (written - lower) % 2**64
        for zeros in itertools.count(56, -8):
            number = -(-start >> zeros) << zeros
            if number < start + size:
                break
        return number.to_bytes(4 * (n_words + 2), "big").rstrip(b"\0")


class Decoder:
    """Bytes to codes by constriction. A `Coder`.

    Raises:
        ModuleNotFoundError: it is not installed.
    """

    def __init__(self, data: bytes, shape: Shape) -> None:
        import constriction

        self.codes: Codes = np.zeros(shape, np.uint16)
        self._family = constriction.stream.model.Categorical(perfect=False)
        padded = data + bytes(8 + -len(data) % 4)
        words = np.frombuffer(padded, ">u4").astype(np.uint32)
        self._coder = constriction.stream.queue.RangeDecoder(words)

    def code(self, k: int, frame: int, shares: Shares) -> NDArray[Any]:
        """Reads codes.

        Raises:
            BitstreamError: no codes lead to these bytes.
        """
        try:
            symbols = self._coder.decode(self._family, shares)
        except AssertionError:
            raise _damaged() from None
        self.codes[:, k, frame] = symbols
        return symbols


class PlainDecoder:
    """The same as `Decoder` without constriction, as docs/format.md has it. A `Coder`."""

    def __init__(self, data: bytes, shape: Shape) -> None:
        self.codes: Codes = np.zeros(shape, np.uint16)
        self._words = itertools.chain(
            (
                int.from_bytes(data[i : i + 4].ljust(4, b"\0"), "big")
                for i in range(0, len(data), 4)
            ),
            itertools.repeat(0),
        )
        self._lower, self._range = 0, 2**_STATE - 1
        self._point = next(self._words) << _WORD | next(self._words)

    def code(self, k: int, frame: int, shares: Shares) -> NDArray[Any]:
        """Reads codes.

        Raises:
            BitstreamError: no codes lead to these bytes.
        """
        ends = np.cumsum(shares + 1, axis=1)  # integers far below 2^53: exact
        for channel, row in enumerate(ends):
            self.codes[channel, k, frame] = self._next(row)
        return self.codes[:, k, frame].astype(np.int64)

    def _next(self, ends: Shares) -> int:
        """One code, by where each row's frequencies end."""
        scale = self._range >> PRECISION
        quantile = (self._point - self._lower) % 2**_STATE // scale
        if quantile >= 2**PRECISION:
            raise _damaged()
        code = int(np.searchsorted(ends, quantile, side="right"))
        begin = int(ends[code - 1]) if code else 0
        self._lower = (self._lower + scale * begin) % 2**_STATE
        self._range = scale * (int(ends[code]) - begin)
        if self._range < 2 ** (_STATE - _WORD):
            self._lower = self._lower << _WORD & 2**_STATE - 1
            self._range <<= _WORD
            self._point = self._point << _WORD & 2**_STATE - 1 | next(self._words)
        return code


def open_decoder(data: bytes, shape: Shape) -> Decoder | PlainDecoder:
    """What decodes a block of (channels, n_quantizers, frames): the quickest that is there."""
    try:
        return Decoder(data, shape)
    except ModuleNotFoundError:
        return PlainDecoder(data, shape)


def _damaged() -> BitstreamError:
    return BitstreamError("a compact block that is not what was written")
