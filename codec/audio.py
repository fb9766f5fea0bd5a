"""Read and write audio files of any format, block by block (FFmpeg through PyAV)."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Self

import av
import av.error
import numpy as np
from av.audio.frame import AudioFrame
from av.stream import Discard

from codec.audio_ahead import decoded_ahead
from codec.audio_files import NAMELESS, InputFile, Source, source_name
from codec.audio_frames import frame_samples
from codec.audio_writing import WRITABLE, AudioWriter, write_flac, write_wav
from codec.errors import AudioError
from codec.resampling import Samples, Window, resample_stream

__all__ = [
    "NAMELESS",
    "WRITABLE",
    "AudioInfo",
    "AudioReader",
    "AudioWriter",
    "Samples",
    "Source",
    "blocks",
    "decoded_ahead",
    "probe",
    "read",
    "source_name",
    "to_mono",
    "write_flac",
    "write_wav",
]

# A decoder of one of the other formats remembers what came before, so a seek gives nearly, not
# exactly, what decoding from the start gives; within this many seconds it is not worth it.
_DECODE_FROM_START_SECONDS = 60.0
_PREROLL_SECONDS = 1.0
_RESAMPLE = 1 << 14  # native samples resampled at a time


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

    The first audio stream is taken, of a video too. A file object is read from where it stands
    and stays open; one that cannot seek (a pipe) is read once, from beginning to end, but an
    MP4 file on a pipe is put on disk first, since its index may lie at its end. No other file
    is ever opened, whatever a playlist says.

    How long a file is (the encoder's delay and padding cut off): exact for PCM, FLAC, Ogg
    (Opus, Vorbis) and for MP4/M4A whose packets have true durations, as FFmpeg writes them;
    MP3 is exact with a LAME or Lavf header, but from a pipe the padding at the end stays, up
    to two frames; AAC in Matroska keeps its padding too, less than a frame.

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
        self._file = InputFile(source)
        try:
            self._container = _open(self._file)
        except BaseException:
            self._file.close()
            raise
        try:
            if not self._container.streams.audio:
                raise AudioError(f"{self.name}: not an audio file that can be read (no audio)")
            self._stream = self._container.streams.audio[0]
            for other in self._container.streams:
                if other.index != self._stream.index:
                    other.discard = Discard.all  # a video's pictures are not even read
            if self._stream.codec_context is None:
                raise AudioError(
                    f"{self.name}: not an audio file that can be read (of an unknown codec)"
                )
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
        self._file.close()

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

    def blocks(
        self, *, sample_rate: int | None = None, block_samples: int, channels: int | None = None
    ) -> Iterator[Samples]:
        """The whole file in blocks, in constant memory; `damaged` grows on the way.

        Args:
            sample_rate: to resample to, in Hz; None keeps the file's own.
            block_samples: of every block but the last, which is shorter.
            channels: 1 for the mean of all channels, taken before resampling; None for all.

        Yields:
            float32 (channels, block_samples) in [-1, 1].

        Raises:
            AudioError: an empty file, a change of rate or channels, NaN samples, or the source
                cannot be read any more.
        """
        if block_samples < 1:
            raise ValueError(f"block_samples must be at least 1, got {block_samples}")
        if channels not in (1, None):
            raise ValueError(f"channels is 1 (mixed) or None (all), got {channels}")
        rate = self.info.sample_rate
        pieces: Iterator[Samples] = (piece for _, piece in self.pieces())
        if channels == 1:
            pieces = map(to_mono, pieces)
        if sample_rate not in (rate, None):
            pieces = resample_stream(_regroup(pieces, _RESAMPLE), rate, sample_rate or rate)
        empty = True
        for block in _regroup(pieces, block_samples):
            empty = False
            yield block
        if empty:
            raise AudioError(f"{self.name}: holds no audio")

    def pieces(self, first: int = 0) -> Iterator[tuple[int, Samples]]:
        """Decoded pieces and their positions, beginning at or before sample ``first``."""
        info = self.info
        far = first > _DECODE_FROM_START_SECONDS * info.sample_rate
        if first > 0 and self._file.seekable() and (info.seeks_exactly or far):
            yield from self._pieces_after_seek(first)
        else:
            yield from self._count(0, self._decoded())

    def _pieces_after_seek(self, first: int) -> Iterator[tuple[int, Samples]]:
        rate = self.info.sample_rate
        target = first if self.info.seeks_exactly else first - round(_PREROLL_SECONDS * rate)
        origin, unit = self._stream.start_time or 0, self._stream.time_base
        decoded: Iterator[tuple[int | None, Samples]] = iter(())
        head = position = None
        if unit:
            try:
                self._container.seek(origin + round(target / rate / unit), stream=self._stream)
                decoded = self._decoded()
                head = next(decoded, None)
            except av.error.FFmpegError:
                pass
            if head is not None and head[0] is not None:
                position = round((head[0] - origin) * unit * rate)
        if position is None or position > first or head is None:
            # No index to go by: count from the start.
            self._container.seek(0)
            yield from self._count(0, self._decoded())
            return
        yield from self._count(position, itertools.chain([head], decoded))

    def _count(
        self, position: int, decoded: Iterator[tuple[int | None, Samples]]
    ) -> Iterator[tuple[int, Samples]]:
        for _, samples in decoded:
            yield position, samples
            position += samples.shape[1]

    def _decoded(self) -> Iterator[tuple[int | None, Samples]]:
        """Time stamps and samples, one frame behind: the last one may hold padding."""
        held: AudioFrame | None = None
        for frame in self._frames():
            if held is not None:
                yield held.pts, self._samples(held)
            held = frame
        if held is not None:
            samples = self._samples(held)
            yield held.pts, samples[:, : self._true_length(held)]

    def _true_length(self, last: AudioFrame) -> int:
        """Samples of the last frame without padding, where its packet tells: in MP4."""
        in_samples = self._stream.time_base == Fraction(1, self.info.sample_rate)
        if "mp4" in self._container.format.name.split(",") and in_samples and last.duration:
            return min(last.samples, last.duration)
        return last.samples

    def _frames(self) -> Iterator[AudioFrame]:
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets, None)
            except av.error.FFmpegError:  # the container itself is cut or damaged here
                self._file.check()
                self.damaged += 1
                return
            self._file.check()
            if packet is None:
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
        samples = frame_samples(frame)
        if not np.isfinite(samples).all():
            raise AudioError(f"{self.name}: holds NaN or infinite samples")
        return np.clip(samples, -1.0, 1.0)

    def _read_info(self) -> AudioInfo:
        context, stream = self._stream.codec_context, self._stream
        if not context.sample_rate or not context.channels:
            raise AudioError(f"{self.name}: not an audio file that can be read (damaged header)")
        seconds = None
        if stream.duration is not None and stream.time_base is not None:
            # Ogg counts what its Opus decoder leaves out at the beginning.
            skipped = context.delay if self._container.format.name == "ogg" else 0
            seconds = float((stream.duration - skipped) * stream.time_base)
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
    with AudioReader(source) as reader:
        yield from reader.blocks(sample_rate=sample_rate, block_samples=block_samples)


def to_mono(wave: Samples) -> Samples:
    """(channels, samples) to (1, samples): the mean of the channels."""
    return wave if wave.shape[0] == 1 else wave.mean(axis=0, keepdims=True, dtype=np.float32)


def _open(file: InputFile) -> av.container.InputContainer:
    try:
        # The whitelist has no real protocol in it: a playlist opens nothing. WAV would come in
        # pieces of 40 ms, and each costs 0.1 ms whatever its length.
        options = {"protocol_whitelist": "none", "max_size": "65536"}
        return av.open(file, "r", metadata_errors="replace", options=options)
    except (av.error.FFmpegError, OSError, ValueError) as error:
        file.check()
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise AudioError(f"{file.name}: not an audio file that can be read ({reason})") from error


def _regroup(pieces: Iterator[Samples], size: int) -> Iterator[Samples]:
    """The same samples in pieces of ``size``; the last is shorter."""
    kept: list[Samples] = []
    held = 0
    for piece in pieces:
        kept.append(piece)
        held += piece.shape[1]
        if held < size:
            continue
        joined = np.concatenate(kept, axis=1)
        whole = held - held % size
        for begin in range(0, whole, size):
            yield joined[:, begin : begin + size]
        kept, held = [joined[:, whole:]], held - whole
    if held:
        yield np.concatenate(kept, axis=1)
