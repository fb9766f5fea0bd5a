"""Read and write audio files of any format, block by block (FFmpeg through PyAV)."""

import io
import os
import wave as riff
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Self

import av
import av.error
import numpy as np
from av.audio.frame import AudioFrame
from numpy.typing import NDArray

from codec.atomic import replacing
from codec.errors import AudioError
from codec.resampling import Samples, Window, resample_stream

Source = str | os.PathLike[str] | BinaryIO

# A decoder of one of the other formats remembers what came before, so a seek gives nearly, not
# exactly, what decoding from the start gives; within this many seconds it is not worth it.
_DECODE_FROM_START_SECONDS = 60.0
_PREROLL_SECONDS = 1.0
NAMELESS = "audio data"  # what messages call a file object without a name
_SCALES = {"u8": 128.0, "s16": 32768.0, "s32": 2.0**31, "s64": 2.0**63}


@dataclass(frozen=True, slots=True)
class AudioInfo:
    """What a file's header says.

    Attributes:
        sample_rate: in Hz.
        channels: at least 1.
        samples: per channel, or None where the header does not say. MP3 without an index
            gives an estimate from its bit rate.
        seconds: the same as a duration, or None.
        codec: FFmpeg's name of the codec, such as ``flac`` or ``pcm_s16le``.
    """

    sample_rate: int
    channels: int
    samples: int | None
    seconds: float | None
    codec: str

    @property
    def exact(self) -> bool:
        """Whether any part decodes to the very samples that decoding the whole file gives."""
        short = self.seconds is not None and self.seconds <= _DECODE_FROM_START_SECONDS
        return short or self.seeks_exactly

    @property
    def seeks_exactly(self) -> bool:
        """Whether a seek finds any sample, and what is decoded there is exact (PCM, FLAC)."""
        return self.codec.startswith("pcm_") or self.codec == "flac"


class AudioReader:
    """An open audio file, decoded piece by piece at its own rate.

    Attributes:
        name: for messages.
        info: what the header says.
        damaged: packets met so far that could not be decoded, and were passed over.

    Raises:
        AudioError: there is no such file, or FFmpeg finds no audio in it.
    """

    def __init__(self, source: Source) -> None:
        self.name = source_name(source)
        self.damaged = 0
        self._container = _open(source, self.name)
        try:
            if not self._container.streams.audio:
                raise AudioError(f"{self.name}: not an audio file that can be read (no audio)")
            self._stream = self._container.streams.audio[0]
            # FLAC holds checksums; without this FFmpeg does not look at them.
            self._stream.codec_context.options = {"err_detect": "crccheck+explode"}
            self.info = self._read_info()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._container.close()

    def read(self, first: int = 0, samples: int | None = None) -> Samples:
        """Native samples from ``first`` on, (channels, samples); fewer where the file ends.

        Raises:
            AudioError: nothing there, NaN or infinite samples, or nothing decodes.
        """
        last = None if samples is None else first + samples
        pieces = []
        for position, piece in self.pieces(first):
            end = position + piece.shape[1]
            if end > first:
                stop = piece.shape[1] if last is None else max(0, last - position)
                pieces.append(piece[:, max(0, first - position) : stop])
            if last is not None and end >= last:
                break
        if not pieces or not sum(piece.shape[1] for piece in pieces):
            where = f" from {first / self.info.sample_rate:.2f} s on" if first else ""
            why = " (damaged)" if self.damaged else ""
            raise AudioError(f"{self.name}: holds no audio{where}{why}")
        return np.concatenate(pieces, axis=1)

    def pieces(self, first: int = 0) -> Iterator[tuple[int, Samples]]:
        """Decoded pieces and their positions, beginning at or before sample ``first``."""
        info = self.info
        far = first > _DECODE_FROM_START_SECONDS * info.sample_rate
        if first > 0 and (info.seeks_exactly or far):
            yield from self._pieces_after_seek(first)
        else:
            yield from self._count(0, self._frames())

    def _pieces_after_seek(self, first: int) -> Iterator[tuple[int, Samples]]:
        rate = self.info.sample_rate
        target = first if self.info.seeks_exactly else first - round(_PREROLL_SECONDS * rate)
        origin, unit = self._stream.start_time or 0, self._stream.time_base
        frames: Iterator[AudioFrame] = iter(())
        position = None
        if unit:
            try:
                self._container.seek(origin + round(target / rate / unit), stream=self._stream)
                frames = self._frames()
                head = next(frames, None)
            except av.error.FFmpegError:
                head = None
            if head is not None and head.pts is not None:
                position = round((head.pts - origin) * unit * rate)
        if position is None or position > first or head is None:
            # No index to go by: count from the start.
            self._container.seek(0)
            yield from self._count(0, self._frames())
            return
        samples = self._samples(head)
        yield position, samples
        yield from self._count(position + samples.shape[1], frames)

    def _count(self, position: int, frames: Iterator[AudioFrame]) -> Iterator[tuple[int, Samples]]:
        for frame in frames:
            samples = self._samples(frame)
            yield position, samples
            position += samples.shape[1]

    def _frames(self) -> Iterator[AudioFrame]:
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except av.error.FFmpegError:  # the container itself is cut or damaged here
                self.damaged += 1
                return
            try:
                frames = list(packet.decode())
            except av.error.EOFError:
                return
            except av.error.FFmpegError:
                self.damaged += 1
                continue
            yield from frames

    def _samples(self, frame: AudioFrame) -> Samples:
        """A frame as float32 (channels, samples) in [-1, 1]."""
        channels = frame.layout.nb_channels
        if (frame.sample_rate, channels) != (self.info.sample_rate, self.info.channels):
            raise AudioError(
                f"{self.name}: changes from {self.info.sample_rate} Hz, {self.info.channels} "
                f"channels to {frame.sample_rate} Hz, {channels} channels midway"
            )
        native = frame.to_ndarray()
        if not frame.format.is_planar:
            native = native.reshape(-1, channels).T
        scale = _SCALES.get(frame.format.name.removesuffix("p"))
        if scale is not None:
            offset = 128.0 if frame.format.name.startswith("u8") else 0.0
            return ((native - offset) / scale).astype(np.float32)
        samples = native.astype(np.float32)
        if not np.isfinite(samples).all():
            raise AudioError(f"{self.name}: holds NaN or infinite samples")
        return np.clip(samples, -1.0, 1.0)

    def _read_info(self) -> AudioInfo:
        context, stream = self._stream.codec_context, self._stream
        if not context.sample_rate or not context.channels:
            raise AudioError(f"{self.name}: not an audio file that can be read (damaged header)")
        seconds = None
        if stream.duration is not None and stream.time_base is not None:
            seconds = float(stream.duration * stream.time_base)
        elif self._container.duration is not None:
            seconds = self._container.duration / av.time_base
        return AudioInfo(
            sample_rate=context.sample_rate,
            channels=context.channels,
            samples=None if seconds is None else round(seconds * context.sample_rate),
            seconds=seconds,
            codec=context.codec.canonical_name,
        )


def probe(source: Source) -> AudioInfo:
    """What the header of a file says, without decoding it.

    Raises:
        AudioError: there is no such file, or FFmpeg finds no audio in it.
    """
    with AudioReader(source) as reader:
        return reader.info


def read(
    source: Source,
    *,
    sample_rate: int | None = None,
    start: float = 0.0,
    seconds: float | None = None,
) -> tuple[Samples, int]:
    """Samples of a file and their rate, decoding only what is needed.

    Damaged parts are passed over and a cut file gives what there is; ``AudioReader.damaged``
    tells. Samples outside [-1, 1], which float formats can hold, are clipped.

    Args:
        source: a path or a binary file.
        sample_rate: to resample to, in Hz; None keeps the file's own.
        start: where to begin, in seconds. To the sample for PCM and FLAC and within the first
            minute of any format; after that as good as the file's time stamps.
        seconds: how much; None for all. Less comes back where the file ends.

    Returns:
        float32 (channels, samples) in [-1, 1], and the rate in Hz.

    Raises:
        AudioError: no audio file, no audio at ``start``, or NaN samples.
    """
    if start < 0 or (seconds is not None and seconds <= 0):
        raise ValueError(f"start must be >= 0 and seconds > 0, got {start} and {seconds}")
    with AudioReader(source) as reader:
        rate = reader.info.sample_rate
        window = Window.of(rate, sample_rate or rate, start, seconds)
        piece = window.resample(reader.read(window.first, window.samples))
    if not piece.shape[1]:
        raise AudioError(f"{source_name(source)}: holds no audio from {start:.2f} s on")
    return piece, sample_rate or rate


def blocks(source: Source, *, sample_rate: int, block_samples: int) -> Iterator[Samples]:
    """A file from beginning to end in blocks, in constant memory.

    Yields:
        float32 (channels, block_samples); the last block is shorter. Joined, they equal
        ``read(source, sample_rate=sample_rate)``.

    Raises:
        AudioError: no audio file, an empty one, or NaN samples.
    """
    if block_samples < 1:
        raise ValueError(f"block_samples must be at least 1, got {block_samples}")
    with AudioReader(source) as reader:
        rate, kept = reader.info.sample_rate, np.zeros((reader.info.channels, 0), np.float32)
        pieces: Iterator[Samples] = (piece for _, piece in reader.pieces())
        if rate != sample_rate:
            pieces = resample_stream(pieces, rate, sample_rate)
        empty = True
        for piece in pieces:
            empty = empty and not piece.shape[1]
            kept = np.concatenate((kept, piece), axis=1)
            whole = kept.shape[1] - kept.shape[1] % block_samples
            for begin in range(0, whole, block_samples):
                yield kept[:, begin : begin + block_samples]
            kept = kept[:, whole:]
        if empty:
            raise AudioError(f"{reader.name}: holds no audio")
        if kept.shape[1]:
            yield kept


def to_mono(wave: Samples) -> Samples:
    """(channels, samples) to (1, samples): the mean of the channels."""
    return wave if wave.shape[0] == 1 else wave.mean(axis=0, keepdims=True, dtype=np.float32)


def write_wav(target: str | os.PathLike[str] | BinaryIO, wave: Samples, sample_rate: int) -> None:
    """Write a 16-bit WAV file, whole or not at all.

    Args:
        target: a path, or a binary file that can seek.
        wave: float (channels, samples) or (samples,); clipped to [-1, 1].
        sample_rate: in Hz.

    Raises:
        AudioError: NaN samples, or the file cannot be written (disk full, no such folder).
    """
    pcm = pcm16(wave)

    def encode(file: BinaryIO) -> None:
        with riff.open(file, "wb") as out:
            out.setnchannels(pcm.shape[0])
            out.setsampwidth(2)
            out.setframerate(sample_rate)
            out.writeframes(np.ascontiguousarray(pcm.T).astype("<i2").tobytes())

    _write(target, encode)


def write_flac(target: str | os.PathLike[str] | BinaryIO, wave: Samples, sample_rate: int) -> None:
    """Write a 16-bit FLAC file of one or two channels, whole or not at all.

    Arguments and errors are those of ``write_wav``.
    """
    pcm = pcm16(wave)
    if pcm.shape[0] > 2:
        raise ValueError(f"write_flac takes one or two channels, got {pcm.shape[0]}")
    layout = "mono" if pcm.shape[0] == 1 else "stereo"

    def encode(file: BinaryIO) -> None:
        # bitexact: no encoder version inside, so equal samples make equal files.
        options = {"fflags": "+bitexact"}
        with av.open(file, "w", format="flac", container_options=options) as container:
            stream = container.add_stream("flac", rate=sample_rate, layout=layout)
            stream.codec_context.format = "s16"
            stream.codec_context.options = {"flags": "+bitexact"}
            container.start_encoding()
            if pcm.shape[1]:
                packed = np.ascontiguousarray(pcm.T).reshape(1, -1)
                frame = AudioFrame.from_ndarray(packed, format="s16", layout=layout)
                frame.sample_rate = sample_rate
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))

    _write(target, encode)


def pcm16(wave: Samples) -> NDArray[np.int16]:
    """Float (channels, samples) or (samples,) to int16 (channels, samples), clipped.

    What was read from a 16-bit file comes back bit for bit.
    """
    wave = np.atleast_2d(wave)
    if not np.isfinite(wave).all():
        raise AudioError("the samples to be written are NaN or infinite")
    return np.clip(np.rint(wave * np.float32(32768.0)), -32768, 32767).astype(np.int16)


def source_name(source: Any) -> str:
    """What messages call a source: its path, or the name of a file object."""
    if isinstance(source, (str, os.PathLike)):
        return os.fspath(source)
    return str(getattr(source, "name", NAMELESS))


def _write(target: str | os.PathLike[str] | BinaryIO, encode: Any) -> None:
    if not isinstance(target, (str, os.PathLike)):
        encode(target)
        return
    # Encoded in memory: FFmpeg may swallow a write error, Python's own file does not.
    memory = io.BytesIO()
    encode(memory)
    try:
        with replacing(target) as temporary:
            temporary.write_bytes(memory.getbuffer())
    except OSError as error:
        raise AudioError(f"{target}: cannot be written ({error.strerror or error})") from error


def _open(source: Source, name: str) -> av.container.InputContainer:
    file: Any = source
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        if not path.exists():
            raise AudioError(f"{name}: there is no such file")
        if path.is_dir():
            raise AudioError(f"{name}: is a folder, not an audio file")
        # "file:" keeps FFmpeg from taking a name such as "http:..." for an address.
        file = f"file:{path}"
    try:
        # The whitelist keeps a playlist in disguise from opening other things.
        return av.open(file, metadata_errors="replace", options={"protocol_whitelist": "file"})
    except (av.error.FFmpegError, OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise AudioError(f"{name}: not an audio file that can be read ({reason})") from error
