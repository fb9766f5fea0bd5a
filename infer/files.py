"""An audio file to a `.sc` file and back. Outputs appear under their name only when complete.

The whole file is held in memory and goes through the model in one piece.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from codec import audio
from codec.atomic import replacing
from codec.errors import AudioError, BitstreamError, SottoError
from infer import bitstream

if TYPE_CHECKING:
    from codec.codec import Codec


@dataclass(frozen=True)
class Conversion:
    """What became of one file.

    Attributes:
        seconds: of audio, read or written.
        frames: coded.
        n_quantizers: codebooks used per frame.
        source_bytes: size of the file read.
        target_bytes: size of the file written.
        elapsed: seconds that reading, coding and writing took.
    """

    seconds: float
    frames: int
    n_quantizers: int
    source_bytes: int
    target_bytes: int
    elapsed: float

    @property
    def speed(self) -> float:
        """Seconds of audio per second of work: the real-time factor, above 1 if faster than it."""
        return self.seconds / max(self.elapsed, 1e-9)


def encode_file(codec: "Codec", source: Path, target: Path, *, n_quantizers: int) -> Conversion:
    """Encodes any audio file, mixed down and resampled to what the model takes.

    A last frame that the audio does not fill is coded too: n samples give ceil(n / hop) frames.

    Args:
        codec: the model.
        source: any file with sound that PyAV reads.
        target: the `.sc` file; replaced if there.
        n_quantizers: codebooks to use, 1 to the model's.

    Raises:
        AudioError: the source is no audio, empty, or holds NaN samples.
        SottoError: the model lacks so many codebooks, or the target cannot be written.
        OSError: the source cannot be read.
    """
    started = time.perf_counter()
    codec.kbps(n_quantizers)  # refuses a number that the model lacks, before any work
    _check_target(target)
    _check_not_encoded(source)
    samples, _ = audio.read(source, sample_rate=codec.sample_rate)
    wave = audio.to_mono(samples)[0]
    codes = codec.encode(wave, n_quantizers).cpu().numpy()
    try:
        with replacing(target) as part, open(part, "wb") as file:
            bitstream.write(file, codes, bits=codec.bits_per_code, fingerprint=codec.fingerprint)
    except OSError as error:
        raise SottoError(f"{target} cannot be written: {error.strerror or error}") from error
    return Conversion(
        seconds=len(wave) / codec.sample_rate,
        frames=codes.shape[1],
        n_quantizers=n_quantizers,
        source_bytes=source.stat().st_size,
        target_bytes=target.stat().st_size,
        elapsed=time.perf_counter() - started,
    )


def decode_file(codec: "Codec", source: Path, target: Path) -> Conversion:
    """Decodes a `.sc` file to a WAV file of frames * hop samples, mono, at the model's rate.

    Args:
        codec: the model that made the file.
        source: the `.sc` file.
        target: the WAV file; replaced if there.

    Raises:
        BitstreamError: the source is no `.sc` file, damaged, or made by another model.
        SottoError: the target cannot be written.
        OSError: the source cannot be read.
    """
    started = time.perf_counter()
    _check_target(target)
    with open(source, "rb") as file:
        header, codes = bitstream.read(file)
    _check_made_by(codec, header, source)
    wave = codec.decode(codes.astype(np.int64)).cpu().numpy()
    audio.write_wav(target, wave, codec.sample_rate)
    return Conversion(
        seconds=len(wave) / codec.sample_rate,
        frames=header.frames,
        n_quantizers=header.n_quantizers,
        source_bytes=header.file_bytes,
        target_bytes=target.stat().st_size,
        elapsed=time.perf_counter() - started,
    )


def _check_target(target: Path) -> None:
    """Refuses a folder, and a device, which a renamed file would take the place of."""
    if target.exists() and not target.is_file():
        raise SottoError(f"{target} is not a plain file: name a file to write")


def _check_not_encoded(source: Path) -> None:
    """Tells a `.sc` file from audio, before FFmpeg guesses at it."""
    with open(source, "rb") as file:
        if bitstream.is_sc(file.read(4)):
            raise AudioError(f"{source} is encoded already: `sotto decode` makes audio of it")


def _check_made_by(codec: "Codec", header: bitstream.Header, source: Path) -> None:
    """Refuses codes that the model cannot have made.

    Raises:
        BitstreamError: saying which model is needed.
    """
    if header.fingerprint != codec.fingerprint:
        raise BitstreamError(
            f"{source} was encoded with model {header.fingerprint}, but this model is "
            f"{codec.fingerprint}: pass the one with fingerprint {header.fingerprint}"
        )
    if header.frames == 0:
        raise BitstreamError(f"{source} holds no frames: there is nothing to decode")
    if header.n_quantizers > codec.n_quantizers or header.bits != codec.bits_per_code:
        raise BitstreamError(
            f"{source} is damaged: it says {header.n_quantizers} codebooks of {header.bits} bits, "
            f"and its model has {codec.n_quantizers} of {codec.bits_per_code}"
        )
