"""Write audio files block by block: WAV, FLAC, MP3, AAC and Opus, whole or not at all."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self, cast

import av
import av.error
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from numpy.typing import NDArray

from codec.atomic import replacing
from codec.audio_files import OutputFile, source_name, unwritable
from codec.errors import AudioError
from codec.resampling import Resampler, Samples
from codec.wav_writing import BITS, WavEncoder, pcm

Target = str | os.PathLike[str] | BinaryIO

_FEED = 1 << 16  # samples given to an encoder at a time


@dataclass(frozen=True, slots=True)
class _Format:
    """How FFmpeg writes a file of one ending.

    Attributes:
        container: FFmpeg's muxer.
        codec: FFmpeg's encoder.
        rates: that the encoder takes, Hz, in rising order; empty for any.
        channels: the numbers that come back in their places.
        bit_rate: a second and channel; None for lossless.
    """

    container: str
    codec: str
    rates: tuple[int, ...]
    channels: tuple[int, ...]
    bit_rate: int | None


_MP3_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
_AAC_RATES = (7350, *_MP3_RATES, 64000, 88200, 96000)
_OPUS = _Format("ogg", "libopus", (8000, 12000, 16000, 24000, 48000), (1, 2, 3, 4, 6), 48_000)
_FORMATS = {
    ".flac": _Format("flac", "flac", (), tuple(range(1, 9)), None),
    ".mp3": _Format("mp3", "libmp3lame", _MP3_RATES, (1, 2), 64_000),
    ".m4a": _Format("ipod", "aac", _AAC_RATES, tuple(range(1, 9)), 96_000),
    ".ogg": _OPUS,
    ".opus": _OPUS,
}
_LAYOUTS = ("mono", "stereo", "3.0", "quad", "5.0", "5.1", "6.1", "7.1")

WRITABLE = (".wav", *_FORMATS)


class AudioWriter:
    """An audio file being written, in constant memory; used in a ``with`` block.

    A path holds the complete file after the block, or what it held before if the block or the
    writing fails. A file object is written from where it stands and stays open.

    What is read back, as `codec.audio` reads it:

    - wav, flac: every sample, as rounded to ``bits`` (32 in a WAV file is float). A WAV file
      outgrows 4 GB as RF64.
    - ogg, opus (both Opus; decoders give 48 kHz): the exact length, to a pipe as well.
    - m4a (AAC): the exact length. It cannot be written to a pipe. FFmpeg keeps an index of the
      packets, some 100 bytes for each 1024 samples, until the end.
    - mp3: the exact length, except that a last frame (576 samples up to 24 kHz, 1152 above)
      with fewer than 47 samples in it is filled up to 47. To a pipe, which cannot be given the
      header that tells the length, 1105 samples come before and up to 1199 after.

    Rates: a file has the rate asked for where its format has it, else the format's next higher
    rate, or its highest; what is written is then resampled, and reading it back at the rate
    asked for gives the exact length again unless that was higher than the format's highest.

    Attributes:
        samples: per channel, written so far, at the rate asked for.
        file_rate: Hz, of the file.

    Args:
        target: a path, or a binary file, a pipe included.
        sample_rate: Hz, of what is written.
        channels: of what is written.
        format: one of `WRITABLE`; None takes the name's ending.
        bits: of a sample in wav (16, 24, 32: float) and flac (16, 24).
        samples: how many will be written, if known: a WAV file on a pipe then states its size.

    Raises:
        AudioError: an ending that is not writable, more channels than the format takes, or m4a
            to a pipe.
        ValueError: a rate, count or bit depth that nothing takes.
    """

    def __init__(
        self,
        target: Target,
        *,
        sample_rate: int,
        channels: int,
        format: str | None = None,
        bits: int = 16,
        samples: int | None = None,
    ) -> None:
        if sample_rate < 1 or channels < 1:
            raise ValueError(
                f"sample_rate and channels are at least 1, got {sample_rate}, {channels}"
            )
        self.name = source_name(target)
        self._ending = _ending(self.name, format)
        depths = {".wav": BITS, ".flac": (16, 24)}.get(self._ending, (16,))
        if bits not in depths:
            raise ValueError(f"a {self._ending} file takes bits of {depths}, got {bits}")
        self.samples = 0
        self.file_rate = writable_rate(sample_rate, self._ending)
        self._target, self._channels, self._bits = target, channels, bits
        self._announced = samples
        self._resampler = Resampler(sample_rate, self.file_rate, channels)
        self._cleanup = contextlib.ExitStack()
        self._file: OutputFile | None = None

    def __enter__(self) -> Self:
        try:
            self._file = OutputFile(self._open(), self.name)
            self._encoder = self._start(self._file)
            self._file.check()
        except OSError as error:
            self._fail(error)
            unwritable(self.name, error)
        except BaseException as error:
            self._fail(error)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None:
            self._fail(error)
            return
        try:
            self._finish()
        except OSError as failure:
            self._fail(failure)
            unwritable(self.name, failure)
        except BaseException as failure:
            self._fail(failure)
            raise

    def write(self, samples: Samples) -> None:
        """Append float (channels, n) in [-1, 1]; what lies outside is clipped.

        Raises:
            AudioError: NaN or infinite samples, or the file cannot be written (disk full).
            ValueError: not (channels, n), or outside the ``with`` block.
        """
        if self._file is None:
            raise ValueError("an AudioWriter writes inside its with block only")
        if samples.ndim != 2 or samples.shape[0] != self._channels:
            raise ValueError(f"expected ({self._channels}, n) samples, got {samples.shape}")
        if not np.isfinite(samples).all():
            raise AudioError(f"{self.name}: the samples to be written are NaN or infinite")
        self.samples += samples.shape[1]
        for begin in range(0, samples.shape[1], _FEED):
            piece = np.clip(samples[:, begin : begin + _FEED], -1.0, 1.0).astype(np.float32)
            self._encode(self._resampler.push(piece))

    def _open(self) -> BinaryIO:
        if not isinstance(self._target, (str, os.PathLike)):
            return self._target
        temporary = self._cleanup.enter_context(replacing(self._target))
        # Unbuffered: a full disk is met where it is written to.
        return self._cleanup.enter_context(temporary.open("wb", buffering=0))

    def _start(self, file: OutputFile) -> "WavEncoder | _FFmpegEncoder":
        if self._ending == ".wav":
            return WavEncoder(
                file,
                sample_rate=self.file_rate,
                channels=self._channels,
                bits=self._bits,
                samples=self._announced,
            )
        return _FFmpegEncoder(file, self._ending, self.file_rate, self._channels, self._bits)

    def _encode(self, wave: Samples) -> None:
        if wave.shape[1]:
            self._encoder.write(wave)
        if self._file is not None:
            self._file.check()

    def _finish(self) -> None:
        self._encode(self._resampler.finish())
        self._encoder.finish()
        if self._file is not None:
            self._file.check()
            self._file = None
        if hasattr(self._target, "flush"):
            self._target.flush()
        self._cleanup.close()

    def _fail(self, error: BaseException) -> None:
        """Leave nothing: what FFmpeg still writes when it is dropped reaches no file."""
        if self._file is not None:
            self._file.abandon(error)
            self._file = None
        self._cleanup.__exit__(type(error), error, error.__traceback__)


class _FFmpegEncoder:
    """One of the formats that FFmpeg writes."""

    def __init__(
        self, file: OutputFile, ending: str, sample_rate: int, channels: int, bits: int
    ) -> None:
        spec = _FORMATS[ending]
        if channels not in spec.channels:
            takes = ", ".join(map(str, spec.channels))
            raise AudioError(
                f"{file.name}: {ending} is not written with {channels} channels (with {takes} "
                f"it is); .wav takes any number"
            )
        if ending == ".m4a" and not file.seekable():
            raise AudioError(f"{file.name}: m4a cannot be written to a pipe; flac or opus can")
        self._file, self._rate, self._bits = file, sample_rate, bits
        self._layout = _LAYOUTS[channels - 1]
        self._kind = "flt"  # of what FFmpeg is given; interleaved, since PyAV 18 takes no 8 planes
        if spec.bit_rate is None:
            self._kind = "s16" if bits == 16 else "s32"
        self._position = 0
        # bitexact: no encoder version and no random numbers, so equal samples make equal files.
        options = {"fflags": "+bitexact"}
        if ending == ".m4a":
            # Else the edit list rounds the length to milliseconds.
            options["movie_timescale"] = str(sample_rate)
        with self._errors():
            self._container = av.open(file, "w", format=spec.container, container_options=options)
            stream = self._container.add_stream(spec.codec, rate=sample_rate, layout=self._layout)
            self._stream = cast(AudioStream, stream)
            context = self._stream.codec_context
            context.options = {"flags": "+bitexact"}
            if spec.bit_rate is None:
                context.format = self._kind
            else:
                context.bit_rate = spec.bit_rate * channels
            self._container.start_encoding()

    def write(self, wave: Samples) -> None:
        """Append float32 (channels, samples), at least one sample."""
        samples = np.ascontiguousarray(wave.T, np.float32).reshape(1, -1)
        frame = AudioFrame.from_ndarray(
            self._native(samples), format=self._kind, layout=self._layout
        )
        frame.sample_rate = self._rate
        frame.pts, frame.time_base = self._position, Fraction(1, self._rate)
        self._position += wave.shape[1]
        with self._errors():
            self._container.mux(self._stream.encode(frame))

    def _native(self, samples: Samples) -> NDArray[Any]:
        if self._kind == "flt":
            return samples
        integers = pcm(samples, self._bits)
        # FLAC takes the upper 24 of 32 bits.
        return integers.astype(np.int16) if self._kind == "s16" else integers << 8

    def finish(self) -> None:
        """Write what the encoder still holds, and what the format puts last."""
        with self._errors():
            self._container.mux(self._stream.encode(None))
            self._container.close()

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except av.error.FFmpegError as error:
            self._file.check()  # what the file met comes first
            reason = error.strerror or error
            raise AudioError(f"{self._file.name}: cannot be written ({reason})") from error


def writable_rate(sample_rate: int, ending: str) -> int:
    """The rate of a file for audio of ``sample_rate``: it, the next higher, or the highest."""
    spec = _FORMATS.get(ending)
    if spec is None or not spec.rates:
        return sample_rate
    return next((rate for rate in spec.rates if rate >= sample_rate), spec.rates[-1])


def write_wav(target: Target, wave: Samples, sample_rate: int) -> None:
    """Write a 16-bit WAV file, whole or not at all.

    Args:
        target: a path, or a binary file.
        wave: float (channels, samples) or (samples,); clipped to [-1, 1].
        sample_rate: in Hz.

    Raises:
        AudioError: NaN samples, or the file cannot be written (disk full, no such folder).
    """
    _write(target, wave, sample_rate, ".wav")


def write_flac(target: Target, wave: Samples, sample_rate: int) -> None:
    """Write a 16-bit FLAC file of one to eight channels, whole or not at all.

    Arguments and errors are those of ``write_wav``.
    """
    _write(target, wave, sample_rate, ".flac")


def _write(target: Target, wave: Samples, sample_rate: int, format: str) -> None:
    wave = np.atleast_2d(wave)
    channels, samples = wave.shape
    with AudioWriter(
        target, sample_rate=sample_rate, channels=channels, format=format, samples=samples
    ) as writer:
        writer.write(wave)


def _ending(name: str, format: str | None) -> str:
    ending = (Path(name).suffix if format is None else f".{format.removeprefix('.')}").lower()
    if ending not in WRITABLE:
        raise AudioError(
            f"{name}: cannot write {ending or 'a file without an ending'}; "
            f"use one of {' '.join(WRITABLE)}"
        )
    return ending
