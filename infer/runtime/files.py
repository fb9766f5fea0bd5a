"""`.sc` files of an exported model: waves in, bytes out, and back, in constant memory."""

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from numpy.typing import NDArray

from codec.atomic import replacing
from codec.entropy import EntropyTables
from codec.errors import AudioError, BitstreamError
from infer.bitstream import Header, Reader, Writer

if TYPE_CHECKING:
    from infer.runtime.codec import Codec

Samples = NDArray[np.float32]

# Frames that are decoded at a time.
_MOST_FRAMES = 64


def encode_sc(
    codec: "Codec",
    waves: Iterable[Samples],
    target: str | Path | BinaryIO,
    *,
    n_quantizers: int | None = None,
    channels: int = 1,
) -> Header:
    """Writes a `.sc` file of version 1 from a wave that comes in pieces.

    Args:
        codec: a causal model.
        waves: pieces (channels, n) of any n, float in [-1, 1] at the model's rate.
        target: a path, where the file appears only when it is complete; or a file or pipe open for
            writing bytes, which stays open.
        n_quantizers: codebooks to use; none: those of the model's default rate.
        channels: coded one by one.

    Returns:
        The header as the file has it.

    Raises:
        AudioError: pieces of another shape, NaN or infinite samples, or none at all.
        SottoError: impossible `n_quantizers`, or the model is not causal.
        OSError: the target cannot be written.
    """
    if n_quantizers is None:
        n_quantizers = codec.n_quantizers_for(codec.default_kbps)
    if isinstance(target, (str, Path)):
        with replacing(target) as temporary, open(temporary, "wb") as file:
            return encode_sc(codec, waves, file, n_quantizers=n_quantizers, channels=channels)
    header = Header(
        version=1,
        frames=None,
        n_quantizers=n_quantizers,
        bits=codec.bits_per_code,
        fingerprint=codec.fingerprint,
        sample_rate=codec.sample_rate,
        hop_length=codec.hop_length,
        channels=channels,
        source_rate=codec.sample_rate,
        source_channels=channels,
    )
    samples = 0
    with codec.stream_encoder(channels, n_quantizers) as stream:
        writer = Writer(target, header)
        for wave in waves:
            writer.write(stream.push(np.asarray(wave)[:, None]))
            samples += wave.shape[1]
        if not samples:
            raise AudioError("the signal is empty")
        writer.write(stream.flush())
    return writer.finish(source_samples=samples)


def decode_sc(codec: "Codec", source: str | Path | BinaryIO) -> Iterator[Samples]:
    """Decodes a `.sc` file, of any version, compact or not, in pieces.

    Damaged blocks become silence, and a file that is cut ends where it is cut.

    Args:
        codec: the causal model that made the file.
        source: a path; or a file or pipe open for reading bytes, which stays open.

    Yields:
        (channels, n) float32 at the model's rate; together of the length that was encoded.

    Raises:
        BitstreamError: no `.sc` file, of another model, or compact and the export has no tables.
        ModelFileError: the export's tables are damaged.
        SottoError: the model is not causal.
        OSError: the source cannot be read.
    """
    with contextlib.ExitStack() as stack:
        if isinstance(source, (str, Path)):
            source = stack.enter_context(open(source, "rb"))
        reader = Reader(source)
        _check_made_by(codec, reader.header)
        if reader.header.compact:
            reader.use_tables(_tables(codec))
        given, held = 0, None
        for wave in _waves(codec, reader):
            if not wave.shape[1]:
                continue  # the last that is held may have to be cut
            if held is not None:
                yield held
                given += held.shape[1]
            held = wave
        if held is not None:
            length = _length(codec, reader.header)
            yield held if length is None else held[:, : max(0, length - given)]


def _waves(codec: "Codec", reader: Reader) -> Iterator[Samples]:
    """What the model makes of the blocks; silence for those that are damaged."""
    channels = reader.header.channels
    with codec.stream_decoder(channels) as stream:
        for block in reader.blocks():
            if block.codes is None:
                yield stream.flush().reshape(channels, -1)  # what comes after it begins anew
            for first in range(0, block.frames, _MOST_FRAMES):
                if block.codes is None:
                    frames = min(_MOST_FRAMES, block.frames - first)
                    yield np.zeros((channels, frames * codec.hop_length), np.float32)
                else:
                    yield stream.push(block.codes[:, :, first : first + _MOST_FRAMES])[:, 0]
        yield stream.flush().reshape(channels, -1)


def _tables(codec: "Codec") -> EntropyTables:
    if codec.tables is None:
        raise BitstreamError(
            "a compact file needs the probability tables of its model, and this export has none: "
            "export the model file that made it"
        )
    return codec.tables


def _length(codec: "Codec", header: Header) -> int | None:
    """Samples at the model's rate of what was encoded; none: not known."""
    samples, rate = header.source_samples, header.source_rate
    if samples is None or not rate:
        return None
    return (2 * samples * codec.sample_rate + rate) // (2 * rate)


def _check_made_by(codec: "Codec", header: Header) -> None:
    if header.fingerprint != codec.fingerprint:
        raise BitstreamError(
            f"these codes are of model {header.fingerprint}, but this model is "
            f"{codec.fingerprint}: export and load the one with fingerprint {header.fingerprint}"
        )
    if header.n_quantizers > codec.n_quantizers or header.bits != codec.bits_per_code:
        raise BitstreamError(
            f"damaged: the file says {header.n_quantizers} codebooks of {header.bits} bits, and "
            f"its model has {codec.n_quantizers} of {codec.bits_per_code}"
        )
