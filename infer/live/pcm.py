"""Samples of a pipe as they come: WAV files and raw PCM, without waiting for more than is needed.

FFmpeg reads ahead for seconds before it gives the first sample of a pipe, which is too long for
speech that is still being spoken.
"""

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from codec.errors import AudioError

_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
_STREAMED = 0x7FFFF000  # sizes from here on, and 0, say that the end was not known
_MOST_HEADER = 1 << 20

Take = Callable[[int], bytes]
"""Reads what there is, at most so many bytes; none at the end."""


@dataclass(frozen=True)
class Pcm:
    """How samples are written.

    Attributes:
        sample_rate: Hz.
        channels: side by side.
        bits: of a sample: 8 (unsigned), 16, 24 or 32 bits, or 32 or 64 for floats.
        floats: IEEE floats rather than integers; little-endian both.
    """

    sample_rate: int
    channels: int = 1
    bits: int = 16
    floats: bool = False

    @property
    def frame_bytes(self) -> int:
        """Of one sample of every channel."""
        return self.channels * self.bits // 8

    def decode(self, data: bytes) -> NDArray[np.float32]:
        """Whole frames as the mean of the channels, float32 (samples,) in [-1, 1].

        Raises:
            AudioError: NaN or infinite samples.
        """
        samples = self._floats(data).reshape(-1, self.channels).mean(axis=1)
        if not np.isfinite(samples).all():
            raise AudioError("standard input: holds NaN or infinite samples")
        return np.clip(samples, -1, 1).astype(np.float32)

    def _floats(self, data: bytes) -> NDArray[np.float64]:
        if self.floats:
            return np.frombuffer(data, f"<f{self.bits // 8}").astype(np.float64)
        if self.bits == 8:
            return (np.frombuffer(data, np.uint8) - 128.0) / 128
        if self.bits == 24:
            wide = np.zeros((len(data) // 3, 4), np.uint8)
            wide[:, 1:] = np.frombuffer(data, np.uint8).reshape(-1, 3)
            return wide.view("<i4")[:, 0] / 2.0**31
        return np.frombuffer(data, f"<i{self.bits // 8}") / 2.0 ** (self.bits - 1)


def samples_of(take: Take, raw: Pcm | None) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """The samples of a pipe as they come.

    Args:
        take: gives its bytes.
        raw: what they are; none: a WAV file, whose header says it.

    Yields:
        The rate in Hz, and mono float32 (n,), any n from 1.

    Raises:
        AudioError: no WAV file, or one that is not plain PCM, or NaN samples.
    """
    bytes_of = _Bytes(take)
    form, left = (raw, None) if raw is not None else _wav_header(bytes_of)
    kept = b""
    while left is None or left > 0:
        data = bytes_of.some(1 << 14 if left is None else min(left, 1 << 14))
        if not data:
            break
        if left is not None:
            left -= len(data)
        kept += data
        whole = len(kept) - len(kept) % form.frame_bytes
        if whole:
            yield form.sample_rate, form.decode(kept[:whole])
            kept = kept[whole:]


class _Bytes:
    """Bytes of a pipe, exactly so many or whatever is there."""

    def __init__(self, take: Take) -> None:
        self._take = take

    def exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            piece = self._take(count - len(data))
            if not piece:
                raise AudioError("standard input: ends within the header of a WAV file")
            data += piece
        return data

    def some(self, most: int) -> bytes:
        return self._take(most)


def _wav_header(source: _Bytes) -> tuple[Pcm, int | None]:
    """What a WAV file's samples are, and how many bytes of them follow; none: until the end."""
    head = source.exactly(12)
    if head[:4] not in (b"RIFF", b"RF64") or head[8:] != b"WAVE":
        raise AudioError(
            "standard input: is no WAV file; --raw HZ takes raw samples, and other formats are "
            "read from files"
        )
    form, passed = None, 0
    while True:
        name, size = struct.unpack("<4sI", source.exactly(8))
        if name == b"data":
            if form is None:
                raise AudioError("standard input: a WAV file without a format")
            unknown = size == 0 or size >= _STREAMED
            return form, None if unknown else size
        passed += size
        if passed > _MOST_HEADER:
            raise AudioError("standard input: a WAV file whose header does not end")
        content = source.exactly(size + size % 2)
        if name == b"fmt ":
            form = _form(content)


def _form(content: bytes) -> Pcm:
    if len(content) < 16:
        raise AudioError("standard input: a WAV file with a damaged header")
    tag, channels, rate, _, _, bits = struct.unpack("<HHIIHH", content[:16])
    if tag == _EXTENSIBLE and len(content) >= 26:
        (tag,) = struct.unpack("<H", content[24:26])
    known = {_PCM: (8, 16, 24, 32), _FLOAT: (32, 64)}
    if bits not in known.get(tag, ()) or not channels or not rate:
        raise AudioError("standard input: a WAV file of another kind than PCM: convert it first")
    return Pcm(rate, channels, bits, tag == _FLOAT)
