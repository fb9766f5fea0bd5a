"""Random pieces of a corpus, each fully determined by a seed and an index."""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from codec.audio import AudioReader, to_mono
from codec.data.analysis import hop_samples
from codec.data.batches import Crop
from codec.data.manifest import Entry
from codec.data.targets import Targets
from codec.errors import AudioError, DataError
from codec.resampling import Samples, Window, resample

log = logging.getLogger(__name__)

_SILENT_TRIES = 10
_FAILED_TRIES = 100
_STEP = np.float32(1 / 32768)  # of 16-bit samples


class RandomCrops(Dataset[Crop]):
    """Crops of ``segment`` samples from anywhere in a corpus, longer files more often.

    ``crops[index].wave`` is float32 (1, segment) in [-1, 1] for any ``index >= 0`` and depends on
    nothing but the seed and the index: not on what was drawn before, nor on the cache. Only the
    crop is decoded; it is mixed to mono, resampled and given a random gain. Files shorter than
    a segment end in zeros. Silent crops are drawn again, up to ten times, then the loudest is
    kept. A file that cannot be decoded is warned of once and another is drawn.

    With targets, crops begin at a whole 5 ms of their file, and ``crops[index].parameters``,
    float32 (66, segment / hop), are the file's there: moved by the gain, silence after its end.

    Args:
        entries: the corpus; with targets, those that have some.
        sample_rate: of the crops, Hz.
        segment: length of a crop in samples.
        seed: of all draws.
        gain_db: range of the random gain in dB, uniform; no gain drives a crop past full scale.
        silence_db: RMS in dB of full scale below which a crop is silent.
        cache_mb: keep decoded files in memory up to this size *in every worker*; 0 keeps none.
            Changes speed only. Files are kept whole at ``sample_rate``, as 16 bit where that
            loses nothing.
        targets: parameters of the entries' voices at ``sample_rate``; None: crops have none.

    Raises:
        DataError: no entries; or, when drawing, hardly a file can be decoded.
    """

    def __init__(
        self,
        entries: Sequence[Entry],
        *,
        sample_rate: int,
        segment: int,
        seed: int,
        gain_db: tuple[float, float] = (0.0, 0.0),
        silence_db: float = -60.0,
        cache_mb: float = 0.0,
        targets: Targets | None = None,
    ) -> None:
        if targets is not None:
            entries = [entry for entry in entries if entry.path in targets]
        if not entries:
            raise DataError("no audio files to draw crops from")
        if segment < 1 or sample_rate < 1:
            raise ValueError(f"segment and sample_rate must be positive: {segment}, {sample_rate}")
        if gain_db[0] > gain_db[1]:
            raise ValueError(f"gain_db must be (lowest, highest), got {gain_db}")
        self._hop = _hop(targets, sample_rate, segment)
        self.sample_rate = sample_rate
        self.segment = segment
        self.seed = seed
        self.gain_db = gain_db
        self.silence_db = silence_db
        self._paths = [str(entry.path) for entry in entries]
        self._seconds = np.array([entry.seconds for entry in entries])
        self._cumulative = np.cumsum(self._seconds)
        self._cache_left = int(cache_mb * 2**20)
        self._cache: dict[str, NDArray[Any]] = {}
        self._warned: set[str] = set()
        self._targets = targets

    def __getitem__(self, index: int) -> Crop:
        """Crop ``index``."""
        if index < 0:
            raise IndexError(f"crops are numbered from 0, got {index}")
        rng = np.random.default_rng([self.seed, index])
        piece = self._draw(rng)
        rms = _rms(piece.wave)
        threshold = 10 ** (self.silence_db / 20)
        for _ in range(_SILENT_TRIES - 1):
            if rms >= threshold:
                break
            other = self._draw(rng)
            if _rms(other.wave) > rms:
                piece, rms = other, _rms(other.wave)
        gain = self._gain(rng, piece.wave)
        padded = np.zeros((1, self.segment), np.float32)
        padded[:, : piece.wave.shape[1]] = piece.wave * gain
        if self._targets is None:
            return Crop(torch.from_numpy(padded))
        frames = self.segment // self._hop
        parameters = self._targets.read(piece.path, piece.hops, frames, float(gain))
        return Crop(torch.from_numpy(padded), torch.from_numpy(parameters))

    def _draw(self, rng: np.random.Generator) -> "_Piece":
        """At most ``segment`` samples from a file that can be decoded."""
        length = self.segment / self.sample_rate
        for _ in range(_FAILED_TRIES):
            # Two numbers a try, whatever comes of it.
            place, where = rng.random(2)
            position = place * self._cumulative[-1]
            file = int(np.searchsorted(self._cumulative[:-1], position, side="right"))
            start = where * max(0.0, self._seconds[file] - length)
            hops = 0
            if self._targets is not None:
                hops = int(start * self.sample_rate) // self._hop
                start = hops * self._hop / self.sample_rate
            try:
                return _Piece(self._crop(self._paths[file], start, length), self._paths[file], hops)
            except AudioError as error:
                if self._paths[file] not in self._warned:
                    self._warned.add(self._paths[file])
                    log.warning("passed over: %s", error)
        raise DataError(
            f"{_FAILED_TRIES} draws in a row met only files that cannot be decoded, the last "
            f"{self._paths[file]}; check the corpus"
        )

    def _crop(self, path: str, start: float, seconds: float) -> Samples:
        whole = self._cache.get(path)
        if whole is None:
            with AudioReader(path) as reader:
                info, rate = reader.info, reader.info.sample_rate
                size = 4 * math.ceil((info.seconds or math.inf) * self.sample_rate)
                if not (info.exact and size <= self._cache_left):
                    window = Window.of(rate, self.sample_rate, start, seconds)
                    native = to_mono(reader.read(window.first, window.samples))
                    return self._not_empty(window.resample(native), path, start)
                whole = self._keep(path, resample(to_mono(reader.read()), rate, self.sample_rate))
        begin = round(start * self.sample_rate)
        piece = whole[:, begin : begin + round(seconds * self.sample_rate)]
        if piece.dtype == np.int16:
            piece = piece.astype(np.float32) * _STEP
        return self._not_empty(piece, path, start)

    def _not_empty(self, piece: Samples, path: str, start: float) -> Samples:
        if not piece.shape[1]:
            raise AudioError(f"{path}: holds no audio from {start:.2f} s on")
        return piece

    def _keep(self, path: str, whole: Samples) -> NDArray[Any]:
        """Cache a whole file, as 16 bit if it came from 16 bit."""
        levels = np.rint(whole / _STEP)
        exact = bool((levels * _STEP == whole).all()) and levels.max(initial=0) < 32768
        kept: NDArray[Any] = levels.astype(np.int16) if exact else whole
        self._cache_left -= kept.nbytes
        self._cache[path] = kept
        return kept

    def _gain(self, rng: np.random.Generator, crop: Samples) -> np.float32:
        gain = 10 ** (rng.uniform(*self.gain_db) / 20)
        peak = float(np.abs(crop).max())
        return np.float32(min(gain, max(1.0, 1.0 / peak)) if peak > 0 else gain)


@dataclass(frozen=True, slots=True)
class _Piece:
    """What was drawn: (1, samples) of a file, from so many hops of 5 ms on if it has targets."""

    wave: Samples
    path: str
    hops: int


def _hop(targets: Targets | None, sample_rate: int, segment: int) -> int:
    """Samples of 5 ms, or 1 without targets: the grid that crops begin on."""
    if targets is None:
        return 1
    hop = hop_samples(sample_rate)
    if targets.sample_rate != sample_rate or segment % hop:
        raise ValueError(
            f"targets of {targets.sample_rate} Hz and a segment of {segment} samples do not fit "
            f"crops of {sample_rate} Hz: need the same rate, and a multiple of {hop} samples"
        )
    return hop


def _rms(crop: Samples) -> float:
    return float(np.sqrt(np.mean(np.square(crop), dtype=np.float64)))
