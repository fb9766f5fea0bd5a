"""WAV files as a stream: RIFF, RF64 beyond 4 GB, and headers for pipes."""

import struct

import numpy as np
from numpy.typing import NDArray

from codec.audio_files import OutputFile
from codec.errors import AudioError
from codec.resampling import Samples

BITS = (16, 24, 32)  # 32: IEEE float
_UNKNOWN = 0xFFFFFFFF  # the size of a stream, and of what only ds64 can tell
_RESERVED = 36  # bytes of a ds64 chunk, its name and size included
_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
_SUBFORMAT = bytes.fromhex("000000001000800000aa00389b71")  # the GUID after its first two bytes
# The speakers that so many channels usually are, in WAVEFORMATEXTENSIBLE's bits.
_SPEAKERS = {3: 0x7, 4: 0x33, 5: 0x37, 6: 0x3F, 7: 0x70F, 8: 0x63F}


def pcm(wave: Samples, bits: int) -> NDArray[np.int32]:
    """Float in [-1, 1] to integers of so many bits, rounded and clipped."""
    top = 1 << (bits - 1)
    return np.clip(np.rint(wave * np.float64(top)), -top, top - 1).astype(np.int32)


class WavEncoder:
    """Writes a WAV file block by block.

    A file that can seek gets its true sizes in the end; where the length is not known before,
    a JUNK chunk keeps the place of RF64's ds64 (EBU Tech 3306), so that it may outgrow 4 GB. A
    pipe gets 0xFFFFFFFF for the sizes, which readers take for "until the end", unless the
    length is known.

    Args:
        file: what is written to.
        sample_rate: Hz.
        channels: 1 to 65535.
        bits: of a sample: 16 or 24, integers, or 32, IEEE float.
        samples: how many will come (per channel), or None.
    """

    def __init__(
        self,
        file: OutputFile,
        *,
        sample_rate: int,
        channels: int,
        bits: int,
        samples: int | None,
    ) -> None:
        if not 1 <= channels <= 65535 or channels * bits // 8 > 65535:
            raise AudioError(f"{file.name}: a WAV file cannot hold {channels} channels")
        self._file, self._rate, self._channels, self._bits = file, sample_rate, channels, bits
        self._announced = samples
        self._written = 0
        outgrows = samples is not None and self._riff_size(samples, 0) >= _UNKNOWN
        reserve = outgrows or (samples is None and file.seekable())
        self._reserved = _RESERVED if reserve else 0
        file.write(self._header(samples))

    def write(self, wave: Samples) -> None:
        """Append float32 (channels, samples) in [-1, 1]."""
        self._written += wave.shape[1]
        if self._announced is not None and self._written > self._announced:
            raise ValueError(f"{self._announced} samples were announced, more are written")
        interleaved = np.ascontiguousarray(wave.T)
        if self._bits == 32:
            data = interleaved.astype("<f4").tobytes()
        elif self._bits == 24:
            as_bytes = pcm(interleaved, 24).astype("<i4").view(np.uint8)
            data = as_bytes.reshape(-1, 4)[:, :3].tobytes()
        else:
            data = pcm(interleaved, 16).astype("<i2").tobytes()
        self._file.write(data)

    def finish(self) -> None:
        """Write what ends the file, and the sizes into its header.

        Raises:
            AudioError: to a pipe fewer samples were written than announced.
        """
        self._file.write(bytes(self._bytes(self._written) % 2))
        if self._written == self._announced:
            return
        if self._file.seekable():
            self._file.seek(0)
            self._file.write(self._header(self._written))
        elif self._announced is not None:
            raise AudioError(
                f"{self._file.name}: {self._announced} samples were announced, "
                f"{self._written} were written"
            )

    def _bytes(self, samples: int) -> int:
        return samples * self._channels * self._bits // 8

    def _riff_size(self, samples: int, reserved: int) -> int:
        """Bytes of the file after the RIFF chunk's own eight."""
        data = self._bytes(samples)
        fact = 12 if self._bits == 32 else 0
        return 4 + reserved + len(self._form()) + fact + 8 + data + data % 2

    def _header(self, samples: int | None) -> bytes:
        """As long for any ``samples``, so that the last header fits where the first was."""
        size = data = short = _UNKNOWN
        large = b""
        if samples is not None:
            size = self._riff_size(samples, self._reserved)
            data, short = self._bytes(samples), min(samples, _UNKNOWN)
            if size >= _UNKNOWN:
                large = b"ds64" + struct.pack("<IQQQI", 28, size, data, samples, 0)
                size = data = _UNKNOWN
        head = (b"RF64" if large else b"RIFF") + struct.pack("<I", size) + b"WAVE" + large
        if self._reserved and not large:
            head += b"JUNK" + struct.pack("<I", _RESERVED - 8) + bytes(_RESERVED - 8)
        head += self._form()
        if self._bits == 32:
            head += b"fact" + struct.pack("<II", 4, short)
        return head + b"data" + struct.pack("<I", data)

    def _form(self) -> bytes:
        tag = _FLOAT if self._bits == 32 else _PCM
        width = self._channels * self._bits // 8
        extensible = self._channels > 2
        fields = struct.pack(
            "<HHIIHH",
            _EXTENSIBLE if extensible else tag,
            self._channels,
            self._rate,
            min(self._rate * width, _UNKNOWN),
            width,
            self._bits,
        )
        if extensible:
            speakers = _SPEAKERS.get(self._channels, 0)
            fields += struct.pack("<HHIH", 22, self._bits, speakers, tag) + _SUBFORMAT
        elif tag == _FLOAT:
            fields += struct.pack("<H", 0)
        return b"fmt " + struct.pack("<I", len(fields)) + fields
