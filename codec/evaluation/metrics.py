"""How near a decoded recording is to its original: PESQ, STOI, a mel distance and a buzz."""

import math
import signal
import warnings
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing import get_context
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from pesq import PesqError, pesq
from pystoi import stoi as pystoi_stoi
from scipy.special import stdtrit  # type: ignore[import-untyped]

from codec.errors import SottoError
from codec.evaluation.buzz import repetition
from codec.spectra import MelSpectrogram, resample

Wave = NDArray[np.float32]
Pair = tuple[Wave, Wave, int]

SCORED_RATE = 16_000
"""Hz. PESQ is defined at 8 and 16 kHz only, so both bands and STOI are scored at this rate."""

# The ITU program keeps 50 utterances and writes past its table when there are more: three
# minutes of speech crash it. An utterance with its pause takes 0.4 s or more, so 20 s are safe.
_PESQ_PIECE_SECONDS = 20.0
_PESQ_SHORTEST_SECONDS = 0.25
# STOI drops frames 40 dB under the loudest of the whole signal, so it is cut only to bound memory.
_STOI_PIECE_SECONDS = 300.0
_STOI_SHORTEST_SECONDS = 0.1
_PYSTOI_TOO_SHORT = 1e-5  # what pystoi returns when fewer than 30 frames are left
_SILENT_PEAK = 1e-7  # under the last bit of 24-bit audio
_TRAILING_SECONDS = 0.25
_MEL_WINDOW_SECONDS = 0.064
_MEL_BANDS = 80
_MEL_FLOOR = 1e-4  # 80 dB under the loudest band of the reference


@dataclass(frozen=True, slots=True)
class Scores:
    """What one decoded recording scored; NaN where a metric is undefined.

    Attributes:
        pesq_nb: Narrowband PESQ, MOS-LQO 1.0 to 4.55.
        pesq_wb: Wideband PESQ, MOS-LQO 1.0 to 4.64.
        stoi: Short-time objective intelligibility, 0 to 1.
        mel_distance: dB, 0 for equal recordings.
        buzz: How much more than the original repeats at one interval, about 0 to 1.
    """

    pesq_nb: float
    pesq_wb: float
    stoi: float
    mel_distance: float
    buzz: float


METRICS: tuple[str, ...] = tuple(Scores.__slots__)
LESS_IS_BETTER = frozenset({"mel_distance", "buzz"})


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean with its 95 % confidence interval.

    Attributes:
        mean: Of the defined values; NaN when there are none.
        low: Lower end; NaN for fewer than two values.
        high: Upper end; NaN for fewer than two values.
        n: How many values were defined.
        undefined: How many were NaN and left out.
    """

    mean: float
    low: float
    high: float
    n: int
    undefined: int

    @property
    def half_width(self) -> float:
        """Half of the interval's length: the figure after ±."""
        return (self.high - self.low) / 2


def pesq_nb(reference: Wave, decoded: Wave, sample_rate: int) -> float:
    """Narrowband PESQ (ITU-T P.862 with the P.862.1 mapping), at 16 kHz.

    Recordings over 20 s are scored in equal pieces and the pieces' scores averaged.

    Args:
        reference: The original, float32 (samples,) in [-1, 1].
        decoded: What came out of the codec, likewise.
        sample_rate: Hz, of both.

    Returns:
        MOS-LQO, or NaN for a recording that is silent, under 0.25 s or has no utterance.

    Raises:
        SottoError: A sample is NaN or infinite, or the lengths differ by more than 0.25 s.
    """
    return _pesq(*_at_scored_rate(*_prepared(reference, decoded, sample_rate)), "nb")


def pesq_wb(reference: Wave, decoded: Wave, sample_rate: int) -> float:
    """Wideband PESQ (ITU-T P.862.2), at 16 kHz; arguments and errors as `pesq_nb`."""
    return _pesq(*_at_scored_rate(*_prepared(reference, decoded, sample_rate)), "wb")


def stoi(reference: Wave, decoded: Wave, sample_rate: int) -> float:
    """Short-time objective intelligibility (Taal et al. 2011, not the extended form).

    Returns:
        0 to 1, or NaN for a silent recording or one with under 30 frames (0.4 s) of speech.
        Arguments and errors as `pesq_nb`.
    """
    return _stoi(*_at_scored_rate(*_prepared(reference, decoded, sample_rate)))


def mel_distance(reference: Wave, decoded: Wave, sample_rate: int) -> float:
    """Mean difference of two mel spectrograms in dB, at the recordings' own rate.

    The mean over bands and frames of |20 log10 max(R, f) - 20 log10 max(D, f)|, with R and D the
    magnitudes in 80 mel bands (64 ms window, 16 ms hop) and f = max(R) / 10,000: what lies 80 dB
    under the loudest band of the reference counts as silence.

    Returns:
        dB, or NaN for a silent reference or one shorter than a window. Arguments and errors as
        `pesq_nb`.
    """
    return _mel_distance(*_prepared(reference, decoded, sample_rate))


def buzz(reference: Wave, decoded: Wave, sample_rate: int) -> float:
    """How much of a recording repeats from frame to frame, above 1 kHz and at 16 kHz.

    PESQ's bands and mel filters are too wide to hear it; see `codec.evaluation.buzz.repetition`.

    Returns:
        About 0 to 1, or NaN for a recording that is silent or under 0.15 s. Arguments and errors
        as `pesq_nb`.
    """
    return _buzz(*_at_scored_rate(*_prepared(reference, decoded, sample_rate)))


def score_pair(reference: Wave, decoded: Wave, sample_rate: int) -> Scores:
    """All metrics of one recording; arguments and errors as `pesq_nb`."""
    prepared = _prepared(reference, decoded, sample_rate)
    scored = _at_scored_rate(*prepared)
    return Scores(
        pesq_nb=_pesq(*scored, "nb"),
        pesq_wb=_pesq(*scored, "wb"),
        stoi=_stoi(*scored),
        mel_distance=_mel_distance(*prepared),
        buzz=_buzz(*scored),
    )


class ScorePool:
    """Scores recordings in processes that stay, so that their start is paid once.

    The processes are spawned, which is safe beside torch's threads and the same on every
    platform, and start with the first recording.

    Args:
        workers: Processes; 0 or 1 scores in this one, at the moment of `submit`.
    """

    def __init__(self, workers: int) -> None:
        if workers < 0:
            raise ValueError(f"workers must be 0 or more, not {workers}")
        self.workers = workers
        self._executor: ProcessPoolExecutor | None = None

    def submit(self, reference: Wave, decoded: Wave, sample_rate: int) -> "Future[Scores]":
        """Asks for the scores of one recording; arguments as `score_pair`."""
        if self.workers > 1:
            if self._executor is None:
                self._executor = ProcessPoolExecutor(
                    self.workers, mp_context=get_context("spawn"), initializer=_start_worker
                )
            try:
                return self._executor.submit(score_pair, reference, decoded, sample_rate)
            except BrokenProcessPool as error:
                raise _lost_workers() from error
        future: Future[Scores] = Future()
        try:
            future.set_result(score_pair(reference, decoded, sample_rate))
        except Exception as error:
            future.set_exception(error)
        return future

    def result(self, future: "Future[Scores]") -> Scores:
        """Waits for scores asked for with `submit`.

        Raises:
            SottoError: As `score_pair`, or a process has died (no memory left, mostly).
        """
        try:
            return future.result()
        except BrokenProcessPool as error:
            self.close()
            raise _lost_workers() from error

    def score(self, pairs: Iterable[Pair]) -> list[Scores]:
        """Scores (reference, decoded, sample_rate) triples; results in their order."""
        return [self.result(future) for future in [self.submit(*pair) for pair in pairs]]

    def close(self) -> None:
        """Ends the processes, dropping what has not begun; the next `submit` starts new ones."""
        if self._executor is not None:
            self._executor.shutdown(wait=True, cancel_futures=True)
            self._executor = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def score_many(pairs: Iterable[Pair], workers: int) -> list[Scores]:
    """Scores (reference, decoded, sample_rate) triples on `workers` processes, in order.

    For more than one call keep a `ScorePool`. Errors as `score_pair`.
    """
    with ScorePool(workers) as pool:
        return pool.score(pairs)


def summary(values: Iterable[float]) -> Interval:
    """Mean and 95 % interval by Student's t, leaving NaN out and counting it."""
    given = np.asarray(list(values), dtype=np.float64)
    defined = given[~np.isnan(given)]
    n = len(defined)
    mean = float(defined.mean()) if n else math.nan
    half = math.nan
    if n > 1:
        half = float(stdtrit(n - 1, 0.975)) * float(defined.std(ddof=1)) / math.sqrt(n)
    return Interval(mean, mean - half, mean + half, n, len(given) - n)


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    torch.set_num_threads(1)


def _lost_workers() -> SottoError:
    return SottoError(
        "a scoring process died, most likely for want of memory: try fewer workers, or workers=1"
    )


def _prepared(reference: Wave, decoded: Wave, sample_rate: int) -> Pair:
    reference = np.asarray(reference, dtype=np.float32)
    decoded = np.asarray(decoded, dtype=np.float32)
    for name, wave in (("reference", reference), ("decoded", decoded)):
        if wave.ndim != 1:
            raise ValueError(f"{name} must have the shape (samples,), not {wave.shape}")
        if not np.isfinite(wave).all():
            raise SottoError(f"the {name} recording holds NaN or infinite samples")
    length = min(len(reference), len(decoded))
    surplus = max(len(reference), len(decoded)) - length
    if surplus > _TRAILING_SECONDS * sample_rate:
        raise SottoError(
            f"the reference has {len(reference)} samples and the decoded recording {len(decoded)}:"
            f" they may differ by {_TRAILING_SECONDS} s at most"
        )
    return reference[:length], decoded[:length], sample_rate


def _at_scored_rate(reference: Wave, decoded: Wave, sample_rate: int) -> tuple[Wave, Wave]:
    if sample_rate == SCORED_RATE or not len(reference):
        return reference, decoded
    both = torch.from_numpy(np.stack([reference, decoded]))
    scored = resample(both, sample_rate, SCORED_RATE).numpy()
    return scored[0], scored[1]


def _silent(wave: Wave) -> bool:
    return not len(wave) or float(np.abs(wave).max()) < _SILENT_PEAK


def _mean_of_pieces(
    metric: Callable[[Wave, Wave], float], reference: Wave, decoded: Wave, piece_seconds: float
) -> float:
    """Mean of a metric over equal pieces of at most `piece_seconds`, undefined ones left out."""
    n_pieces = max(1, math.ceil(len(reference) / (piece_seconds * SCORED_RATE)))
    pieces = zip(
        np.array_split(reference, n_pieces), np.array_split(decoded, n_pieces), strict=True
    )
    return summary(metric(*piece) for piece in pieces).mean


def _pesq(reference: Wave, decoded: Wave, band: str) -> float:
    def piece_score(reference: Wave, decoded: Wave) -> float:
        too_short = len(reference) < _PESQ_SHORTEST_SECONDS * SCORED_RATE
        if too_short or _silent(reference) or _silent(decoded):
            return math.nan
        try:
            return float(pesq(SCORED_RATE, reference, decoded, band))
        except (PesqError, ValueError):  # pesq meets its own NaN with a ValueError
            return math.nan

    return _mean_of_pieces(piece_score, reference, decoded, _PESQ_PIECE_SECONDS)


def _stoi(reference: Wave, decoded: Wave) -> float:
    def piece_score(reference: Wave, decoded: Wave) -> float:
        too_short = len(reference) < _STOI_SHORTEST_SECONDS * SCORED_RATE
        if too_short or _silent(reference) or _silent(decoded):
            return math.nan
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # "not enough frames": we say NaN
            score = float(pystoi_stoi(reference, decoded, SCORED_RATE, extended=False))
        return math.nan if score == _PYSTOI_TOO_SHORT else score

    return _mean_of_pieces(piece_score, reference, decoded, _STOI_PIECE_SECONDS)


def _buzz(reference: Wave, decoded: Wave) -> float:
    if _silent(reference) or _silent(decoded):
        return math.nan
    return repetition(reference, decoded, SCORED_RATE)


@lru_cache(maxsize=4)
def _mel_transform(sample_rate: int) -> MelSpectrogram:
    window = 4 * round(_MEL_WINDOW_SECONDS * sample_rate / 4)
    return MelSpectrogram(
        sample_rate=sample_rate, n_fft=window, hop_length=window // 4, n_mels=_MEL_BANDS
    )


def _mel_distance(reference: Wave, decoded: Wave, sample_rate: int) -> float:
    if len(reference) < _MEL_WINDOW_SECONDS * sample_rate or _silent(reference):
        return math.nan
    both = torch.from_numpy(np.stack([reference, decoded]))[:, None]
    with torch.no_grad():
        mel = _mel_transform(sample_rate)(both)
    decibels = 20 * torch.log10(mel.clamp(min=_MEL_FLOOR * float(mel[0].max())))
    return float((decibels[0] - decibels[1]).abs().mean())
