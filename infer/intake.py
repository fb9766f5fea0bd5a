"""From an audio file to what the model takes: its channels, its rate, and one gain for all of it.

A model is best at the level it was trained at. So the loudness of the whole file (ITU-R BS.1770-4,
of what is going to be coded) is measured in a first pass, and one gain brings it to TRAINED_LUFS:
never one from a piece of it, which would make the level of a file depend on how it was cut. The
gain is stored with the codes, to be undone.
"""

import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from codec.audio import AudioReader, to_mono
from codec.errors import AudioError
from codec.loudness import Loudness
from codec.resampling import resample_stream, resampled_length
from codec.wav_reading import missing_bytes
from infer.header import MAX_CHANNELS
from infer.planning import PIPE
from infer.workers import Report

Samples = NDArray[np.float32]
Channels = Literal["mono", "keep"]

# The median of the recorded speech that models are trained on, which is also where broadcasters
# keep theirs (EBU R 128). Training varies the level by -9 to 6 dB around it.
TRAINED_LUFS = -23.0
MAX_GAIN_DB = 40.0  # what is quieter than this allows for is noise rather than speech
# Hz of a file: others are no audio's, and cost memory, or cannot be measured.
MIN_RATE, MAX_RATE = 10, 768_000
_PIECE_SECONDS = 2.0


@dataclass(frozen=True)
class Survey:
    """What the first pass finds.

    Attributes:
        samples: in each channel of the file, at its own rate.
        lufs: loudness of a channel to be coded; -inf for silence.
        peak: largest magnitude of a sample to be coded.
    """

    samples: int
    lufs: float
    peak: float

    def gain_db(self, target_lufs: float) -> float:
        """The gain that makes it so loud, in whole 1/1000 dB; less where it would clip."""
        if not math.isfinite(self.lufs) or self.peak <= 0:
            return 0.0
        gain = max(-MAX_GAIN_DB, min(target_lufs - self.lufs, MAX_GAIN_DB))
        headroom = -20 * math.log10(self.peak)
        return math.floor(min(gain, headroom) * 1000) / 1000 if gain > 0 else round(gain, 3)


class Intake:
    """An open audio file, piece by piece as the model takes it.

    Attributes:
        reader: of the file.
        channels: that are coded.
        samples: read so far, of each channel of the file at its own rate.

    Raises:
        AudioError: the file has no audio, or of a rate or so many channels that no `.sc` file can
            tell of it.
    """

    def __init__(self, source: Path, channels: Channels) -> None:
        self.reader = AudioReader(sys.stdin.buffer if source == PIPE else source)
        try:
            _check(self.reader)
        except AudioError:
            self.reader.close()
            raise
        self.channels = 1 if channels == "mono" else self.reader.info.channels
        self.samples = 0
        self._piped = source == PIPE
        self._source = source

    def __enter__(self) -> "Intake":
        return self

    def __exit__(self, *_: object) -> None:
        self.reader.close()

    def waves(self, sample_rate: int, gain_db: float) -> Iterator[Samples]:
        """All of it, resampled: float32 (channels, n) in [-1, 1], `coded_length` samples.

        Raises:
            AudioError: it is empty, or holds NaN or infinite samples.
        """
        gain = np.float32(10 ** (gain_db / 20))
        pieces = self._pieces()
        if gain_db:
            pieces = (piece * gain for piece in pieces)
        if self.reader.info.sample_rate != sample_rate:
            pieces = resample_stream(pieces, self.reader.info.sample_rate, sample_rate)
        given = 0
        for piece in pieces:
            given += piece.shape[1]
            yield piece
        if not self.samples:
            why = " (damaged)" if self.reader.damaged else ""
            raise AudioError(f"{self.reader.name}: holds no audio{why}")
        if not given:
            yield np.zeros((self.channels, 1), np.float32)  # as `coded_length` has it

    def problems(self) -> str | None:
        """What is wrong with the file, once it has been read; none: nothing that shows."""
        info, damaged = self.reader.info, self.reader.damaged
        # Their headers count exactly; the decoder passes over broken frames without a word.
        missing = (info.samples or 0) - self.samples if info.seeks_exactly else 0
        if missing > 0 and not self._piped:
            return f"damaged or cut: {missing:,} of {info.samples:,} samples are missing"
        if info.codec.startswith("pcm_") and self._source.is_file():
            with open(self._source, "rb") as file:
                if missing := missing_bytes(file):
                    return f"cut: {missing:,} bytes of its samples are missing"
        return f"damaged in {damaged} places, which were passed over" if damaged else None

    def share(self, expected: int | None) -> float:
        """How much of the file has been read, 0 to 1, if it has so many samples."""
        expected = expected or self.reader.info.samples
        return min(1.0, self.samples / expected) if expected else 0.0

    def _pieces(self) -> Iterator[Samples]:
        """Pieces of a few seconds at the file's rate: a packet at a time is slow."""
        waiting: list[Samples] = []
        count, enough = 0, int(_PIECE_SECONDS * self.reader.info.sample_rate)
        for _, piece in self.reader.pieces():
            mixed = to_mono(piece) if self.channels == 1 else piece
            waiting.append(mixed)
            count += mixed.shape[1]
            self.samples += mixed.shape[1]
            if count >= enough:
                yield np.concatenate(waiting, axis=1)
                waiting, count = [], 0
        if count:
            yield np.concatenate(waiting, axis=1)


def coded_length(samples: int, source_rate: int, model_rate: int) -> int:
    """Samples at the model's rate that stand for a source: one at least, if it has any."""
    return max(min(samples, 1), resampled_length(samples, source_rate, model_rate))


def survey(source: Path, channels: Channels, report: Report) -> Survey:
    """The first pass over a file.

    Raises:
        AudioError: it has no audio, or holds NaN or infinite samples.
    """
    with Intake(source, channels) as intake:
        rate = intake.reader.info.sample_rate
        loudness = Loudness(rate, intake.channels)
        for wave in intake.waves(rate, 0.0):
            loudness.push(wave)
            report(intake.share(None))
        # Channels are coded one by one: what counts is one of them, not the sum of all.
        lufs = loudness.lufs() - 10 * math.log10(intake.channels)
        return Survey(intake.samples, lufs, loudness.peak)


def _check(reader: AudioReader) -> None:
    rate, channels = reader.info.sample_rate, reader.info.channels
    if not MIN_RATE <= rate <= MAX_RATE:
        raise AudioError(
            f"{reader.name}: {rate:,} Hz cannot be encoded ({MIN_RATE} to {MAX_RATE:,} can)"
        )
    if channels > MAX_CHANNELS:
        raise AudioError(
            f"{reader.name}: {channels} channels cannot be encoded (up to {MAX_CHANNELS} can)"
        )
