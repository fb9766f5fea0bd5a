"""Opus beside a model: libopus both ways, for speech, at bit rates as it keeps them."""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Final, Literal

import av
import av.error
import numpy as np
from av.audio.codeccontext import AudioCodecContext
from av.audio.frame import AudioFrame
from av.codec.codec import UnknownCodecError

from codec.errors import SottoError
from codec.evaluation.contenders import Decoding
from codec.evaluation.pairs import Wave
from codec.resampling import resample

_LIBRARY: Final = "libopus"
_SAMPLE_RATES = (8000, 12_000, 16_000, 24_000, 48_000)
_DECODED_RATE = 48_000  # whatever was encoded, FFmpeg decodes to this
_LOWEST, _HIGHEST = 0.5, 256.0  # kbit/s a channel


class OpusAtRates:
    """Opus in its speech mode (voip), VBR, 20 ms packets, bandwidths of its own choice.

    Args:
        kbps: Target rates; VBR keeps them on average only, so the packets are counted.
        sample_rate: Hz, of the recordings.

    Raises:
        SottoError: A rate or sample rate that Opus does not have, or no libopus in PyAV.
    """

    name = "Opus"

    def __init__(self, kbps: Sequence[float], sample_rate: int) -> None:
        for rate in kbps:
            if not _LOWEST <= rate <= _HIGHEST:
                raise SottoError(
                    f"{rate:g} kbps is not a rate of Opus: it takes {_LOWEST:g} to {_HIGHEST:g}"
                )
        if sample_rate not in _SAMPLE_RATES:
            takes = ", ".join(map(str, _SAMPLE_RATES))
            raise SottoError(f"Opus does not take {sample_rate} Hz, only {takes}")
        try:
            av.codec.Codec(_LIBRARY, "w")
            av.codec.Codec(_LIBRARY, "r")
        except UnknownCodecError:
            raise SottoError(
                "this PyAV was built without libopus: install a wheel of it (pip install av) "
                "to score Opus"
            ) from None
        self.kbps = sorted(set(kbps))
        self._sample_rate = sample_rate

    def decodings(self, wave: Wave) -> Iterator[Decoding]:
        """See `Contender`; `bits` are those of the packets, without Ogg around them.

        Raises:
            SottoError: libopus failed.
        """
        for kbps in self.kbps:
            try:
                header, packets = self._encode(wave, kbps)
                decoded = self._decode(header, packets)
            except av.error.FFmpegError as error:
                raise SottoError(f"Opus at {kbps:g} kbps failed: {error}") from error
            bits = 8 * sum(map(len, packets))
            yield Decoding(kbps, None, bits, decoded[: len(wave)])

    def _encode(self, wave: Wave, kbps: float) -> tuple[bytes, list[bytes]]:
        """The OpusHead and the packets of a recording."""
        encoder = _context("w", self._sample_rate)
        encoder.bit_rate = round(1000 * kbps)
        encoder.format = "flt"
        encoder.time_base = Fraction(1, self._sample_rate)
        encoder.options = {"application": "voip"}
        encoder.open()
        frame = AudioFrame.from_ndarray(
            np.ascontiguousarray(wave[None], np.float32), format="flt", layout="mono"
        )
        frame.sample_rate, frame.pts = self._sample_rate, 0
        frame.time_base = encoder.time_base
        pieces = av.AudioFifo()
        pieces.write(frame)
        packets = []
        while (piece := pieces.read(encoder.frame_size, partial=True)) is not None:
            packets += encoder.encode(piece)
        packets += encoder.encode(None)
        return encoder.extradata or b"", [bytes(packet) for packet in packets]

    def _decode(self, header: bytes, packets: Sequence[bytes]) -> Wave:
        """The samples from the first on, (samples,) or a few more."""
        decoder = _context("r", _DECODED_RATE)
        decoder.extradata = header
        frames: list[AudioFrame] = []
        for packet in packets:
            frames += decoder.decode(av.Packet(packet))
        frames += decoder.decode(None)
        samples = np.concatenate([_floats(frame) for frame in frames])
        # The encoder's delay comes first. FFmpeg may have left it out or not: count from the end.
        delay = int.from_bytes(header[10:12], "little")
        packet_samples = _DECODED_RATE // 50
        kept = len(packets) * packet_samples - delay
        return resample(samples[None, -kept:], _DECODED_RATE, self._sample_rate)[0]


def _context(mode: Literal["r", "w"], sample_rate: int) -> AudioCodecContext:
    context = av.CodecContext.create(_LIBRARY, mode)
    context.sample_rate = sample_rate
    context.layout = "mono"
    return context


def _floats(frame: AudioFrame) -> Wave:
    """(samples,) of a mono frame, whether in 16 bits or float."""
    samples = frame.to_ndarray().reshape(-1)
    scale = 1 / 32768 if samples.dtype == np.int16 else 1.0
    return (scale * samples).astype(np.float32)
