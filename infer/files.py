"""An audio file to a `.sc` file and back, block by block: memory does not grow with the length.

Audio is decoded and resampled on a thread of its own while the network is at work, and the network
decodes on one of its own while audio is written. Outputs appear under their name only when
complete. A path `-` is stdin or stdout.
"""

import contextlib
import dataclasses
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from codec.audio_ahead import decoded_ahead
from codec.audio_writing import AudioWriter
from codec.errors import AudioError, BitstreamError, SottoError
from infer.bitstream import Header, Reader, Writer, is_sc
from infer.conversion import Conversion
from infer.gathering import gathered, gathered_blocks
from infer.intake import TRAINED_LUFS, Channels, Intake, coded_length, survey
from infer.outlet import Outlet
from infer.planning import PIPE
from infer.streams import input_name, open_input, open_output, size_of
from infer.workers import Report

if TYPE_CHECKING:
    from codec.codec import Codec
    from codec.entropy import EntropyTables

Samples = NDArray[np.float32]

_AHEAD = 4  # pieces that wait between two threads
_MOST_SAMPLES = 1 << 20  # decoded at a time, of all channels together
_SURVEY_SHARE = 0.15  # of the time that encoding takes, about


def encode_file(
    codec: "Codec",
    source: Path,
    target: Path,
    *,
    n_quantizers: int,
    channels: Channels = "mono",
    compact: bool = False,
    block_seconds: float = 1.0,
    target_lufs: float | None = TRAINED_LUFS,
    strict: bool = False,
    report: Report = lambda share: None,
) -> Conversion:
    """Encodes any audio file.

    A last frame that the audio does not fill is coded too: n samples give ceil(n / hop) frames.

    Args:
        codec: the model.
        source: any file with sound that PyAV reads; `-` for stdin. Pipes get no gain.
        target: the `.sc` file, replaced if there; `-` for stdout.
        n_quantizers: codebooks to use, 1 to the model's.
        channels: "mono" mixes them down, "keep" codes each.
        compact: code the codes by the model's probability tables.
        block_seconds: how much audio can be lost together, and lies between two checksums.
        target_lufs: loudness to bring the whole file to by one gain; none: leave it as it is.
        strict: refuse audio of which a part cannot be decoded, instead of passing over that part.
        report: told the share that is done.

    Raises:
        AudioError: the source is no audio, empty, or holds NaN samples.
        SottoError: the model lacks so many codebooks or tables, or the target cannot be written.
        OSError: the source cannot be read.
    """
    started = time.perf_counter()
    codec.kbps(n_quantizers)  # refuses a number that the model lacks, before any work
    tables = _tables(codec) if compact else None
    _check_not_encoded(source)
    found = None
    if target_lufs is not None and _can_read_twice(source):
        found = survey(source, channels, lambda share: report(share * _SURVEY_SHARE))
    done = 0.0 if found is None else _SURVEY_SHARE
    gain_db = 0.0 if found is None or target_lufs is None else found.gain_db(target_lufs)
    with Intake(source, channels) as intake, open_output(target) as file:
        header = dataclasses.replace(
            _header_before(codec, intake, None if found is None else found.samples),
            n_quantizers=n_quantizers,
            block_frames=_block_frames(codec, block_seconds),
            compact=compact,
            gain_db=gain_db,
        )
        encoder = codec.encoder(intake.channels, n_quantizers)
        samples = 0
        with _ahead(intake.waves(codec.sample_rate, gain_db)) as waves:
            writer = Writer(cast(BinaryIO, file), header, tables=tables)
            for wave in gathered(waves, encoder.window_frames * codec.hop_length):
                samples += wave.shape[1]
                writer.write(encoder.push(wave).cpu().numpy())
                report(done + (1 - done) * intake.share(header.source_samples))
        writer.write(encoder.finish().cpu().numpy())
        header = writer.finish(source_samples=intake.samples)
        warnings = _warnings_of_audio(intake, source, strict=strict)
        written = file.written
    return Conversion(
        seconds=samples / codec.sample_rate,
        frames=writer.frames,
        n_quantizers=n_quantizers,
        source_bytes=size_of(source),
        target_bytes=size_of(target, written),
        elapsed=time.perf_counter() - started,
        kbps=codec.kbps(header.n_quantizers) * header.channels,
        channels=header.channels,
        gain_db=header.gain_db,
        warnings=warnings,
    )


def decode_file(
    codec: "Codec",
    source: Path | BinaryIO,
    target: Path,
    *,
    restore: bool = False,
    start: float = 0.0,
    stop: float | None = None,
    format: str | None = None,
    strict: bool = False,
    report: Report = lambda share: None,
) -> Conversion:
    """Decodes a `.sc` file to audio: of the length that was encoded, at the model's rate.

    Damaged blocks become silence, and a file that is cut ends where it is cut; the warnings of
    the result say when.

    Args:
        codec: the model that made the file.
        source: the `.sc` file, or one that is open; `-` for stdin.
        target: the audio file, replaced if there; `-` for stdout.
        restore: make it what the source was: its rate, number of samples, loudness and channels.
        start: seconds to leave out; what lies before is not read.
        stop: where to end, in seconds; none: at the end.
        format: an ending such as wav, if the target's does not say it.
        strict: refuse damage instead.
        report: told the share that is done.

    Raises:
        BitstreamError: the source is no `.sc` file, made by another model, or, if strict, damaged.
        AudioError: the target's format cannot hold the audio.
        SottoError: the target cannot be written.
        OSError: the source cannot be read.
    """
    started = time.perf_counter()
    if start < 0 or (stop is not None and stop <= start):
        raise SottoError(f"there is nothing from {start:g} s to {stop:g} s")
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(open_input(source)) if isinstance(source, Path) else source
        reader = Reader(file, strict=strict, tables=codec.tables)
        name = input_name(source) if isinstance(source, Path) else "the codes"
        check_made_by(codec, reader.header, name)
        outlet = Outlet(
            lambda: reader.header,
            sample_rate=codec.sample_rate,
            hop_length=codec.hop_length,
            restore=restore,
            start=start,
            stop=stop,
            window=codec.decoder().window_frames,
        )
        format = format or ("wav" if target == PIPE else target.suffix)
        with (
            open_output(target) as output,
            _ahead(_waves(codec, reader, outlet)) as waves,
            AudioWriter(
                cast(BinaryIO, output),
                sample_rate=outlet.sample_rate,
                channels=outlet.channels,
                format=format,
            ) as writer,
        ):
            expected = outlet.samples
            for wave in outlet.shaped(waves):
                writer.write(wave)
                report(writer.samples / expected if expected else 0.0)
            if not writer.samples:
                raise BitstreamError(f"{name} holds no frames: there is nothing to decode")
        header = reader.header
    return Conversion(
        seconds=writer.samples / outlet.sample_rate,
        frames=-(-round(writer.samples * codec.frame_rate) // outlet.sample_rate),
        n_quantizers=header.n_quantizers,
        source_bytes=size_of(source) if isinstance(source, Path) else 0,
        target_bytes=size_of(target, output.written),
        elapsed=time.perf_counter() - started,
        kbps=codec.kbps(header.n_quantizers) * header.channels,
        channels=header.channels,
        gain_db=header.gain_db,
        warnings=_warnings_of_codes(codec, reader, name, restore=restore),
    )


def check_made_by(codec: "Codec", header: Header, name: str) -> None:
    """Refuses codes that the model cannot have made.

    Raises:
        BitstreamError: saying which model is needed.
    """
    if header.fingerprint != codec.fingerprint:
        raise BitstreamError(
            f"{name} was encoded with model {header.fingerprint}, but this model is "
            f"{codec.fingerprint}: pass the one with fingerprint {header.fingerprint}"
        )
    if header.frames == 0:
        raise BitstreamError(f"{name} holds no frames: there is nothing to decode")
    if header.n_quantizers > codec.n_quantizers or header.bits != codec.bits_per_code:
        raise BitstreamError(
            f"{name} is damaged: it says {header.n_quantizers} codebooks of {header.bits} bits, "
            f"and its model has {codec.n_quantizers} of {codec.bits_per_code}"
        )
    said = (header.sample_rate, header.hop_length)
    if header.version and said != (codec.sample_rate, codec.hop_length):
        raise BitstreamError(
            f"{name} is damaged: it says {said[0]} Hz in frames of {said[1]} samples, and its "
            f"model has {codec.sample_rate} Hz and {codec.hop_length}"
        )


def _header_before(codec: "Codec", intake: Intake, samples: int | None) -> Header:
    """What is known before encoding, of a source of so many samples if that is known."""
    info, frames = intake.reader.info, None
    if samples is not None:
        length = coded_length(samples, info.sample_rate, codec.sample_rate)
        frames = -(-length // codec.hop_length)
    return Header(
        version=1,
        frames=frames,
        n_quantizers=codec.n_quantizers,
        bits=codec.bits_per_code,
        fingerprint=codec.fingerprint,
        sample_rate=codec.sample_rate,
        hop_length=codec.hop_length,
        channels=intake.channels,
        source_rate=info.sample_rate,
        source_channels=info.channels,
        source_samples=samples,
    )


def _waves(codec: "Codec", reader: Reader, outlet: Outlet) -> Iterator[Samples]:
    """What the model makes of the blocks, (channels, n); silence for those that are damaged."""
    channels = reader.header.channels
    most = max(1, _MOST_SAMPLES // (channels * codec.hop_length))
    decoder = codec.decoder(channels)
    blocks = reader.blocks(outlet.first_frame, outlet.frames)
    for block in gathered_blocks(blocks, decoder.window_frames):
        if block.codes is None:
            # What comes after begins afresh: nothing is known of what it followed.
            yield decoder.finish().cpu().numpy()
            decoder = codec.decoder(channels)
        for first in range(0, block.frames, most):
            if block.codes is None:
                frames = min(most, block.frames - first)
                yield np.zeros((channels, frames * codec.hop_length), np.float32)
            else:
                codes = block.codes[:, :, first : first + most].astype(np.int64)
                yield decoder.push(codes).cpu().numpy()
    yield decoder.finish().cpu().numpy()


def _tables(codec: "Codec") -> "EntropyTables":
    if codec.tables is None:
        raise SottoError(
            f"model {codec.fingerprint} has no probability tables: it makes no compact files"
        )
    return codec.tables


def _block_frames(codec: "Codec", seconds: float) -> int:
    frames = round(seconds * codec.frame_rate) if 0 < seconds < 1e6 else 0
    if not 1 <= frames <= 65535:
        low, high = 1 / codec.frame_rate, 65535 / codec.frame_rate
        raise SottoError(f"blocks of {seconds:g} s are not possible: {low:g} to {high:g} s are")
    return frames


@contextlib.contextmanager
def _ahead(waves: Iterator[Samples]) -> Iterator[Iterator[Samples]]:
    """The same, made on a thread that has ended after the block."""
    ahead = cast(Generator[Samples], decoded_ahead(waves, _AHEAD))
    try:
        yield ahead
    finally:
        ahead.close()


def _can_read_twice(source: Path) -> bool:
    """Whether it is a file; what is missing is reported by what opens it."""
    return source != PIPE and (source.is_file() or not source.exists())


def _check_not_encoded(source: Path) -> None:
    """Tells a `.sc` file from audio, before FFmpeg guesses at it."""
    if not _can_read_twice(source):
        return
    with open(source, "rb") as file:
        if is_sc(file.read(4)):
            raise AudioError(f"{source} is encoded already: `sotto decode` makes audio of it")


def _warnings_of_audio(intake: Intake, source: Path, *, strict: bool) -> tuple[str, ...]:
    problems = intake.problems()
    if problems and strict:
        raise AudioError(f"{source}: {problems}")
    return (f"{source}: {problems}",) if problems else ()


def _warnings_of_codes(
    codec: "Codec", reader: Reader, name: str, *, restore: bool
) -> tuple[str, ...]:
    lines = [f"{name}: {damage.describe(codec.frame_rate)}" for damage in reader.damage]
    if restore and reader.header.source_rate is None:
        lines.append(f"{name}: does not say what its source was, so it is not restored")
    return tuple(lines)
