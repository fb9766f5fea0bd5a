"""Scores a codec on a folder of recordings."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Self

import numpy as np
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress

from codec import audio
from codec.data.manifest import Entry
from codec.errors import AudioError, DataError, SottoError
from codec.evaluation.contenders import Contender, Decoding, InTandem, ModelAtRates, SpeechCodec
from codec.evaluation.judges import DEFAULT, METRICS, Scores, Settings
from codec.evaluation.pairs import Wave
from codec.evaluation.pool import ScorePool
from codec.evaluation.results import Evaluation, Original, Row, Skipped

_BACKLOG_PER_WORKER = 4  # decoded recordings waiting for a scorer: what bounds memory


def evaluate(
    codec: SpeechCodec,
    files: Sequence[Entry],
    *,
    kbps: Sequence[float],
    beside: Sequence[Contender] = (),
    tandem: Sequence[int] = (),
    metrics: Iterable[str] = DEFAULT,
    whisper: str | None = None,
    workers: int = 1,
    progress: bool = False,
) -> Evaluation:
    """Encodes each recording once and scores what its first codebooks decode to.

    Args:
        codec: The codec; its first n codebooks must be the codes at the lower rate, as an RVQ's.
        files: The recordings, as `load_entries` gives them for a folder or a manifest. Unreadable
            ones and those shorter than a frame are passed over.
        kbps: Bit rates, each one the codec has.
        beside: Other codecs to score on the same recordings.
        tandem: Numbers of times to encode and decode what was decoded, beside once.
        metrics: Names of what to score by.
        whisper: Name or path of a Whisper checkpoint, for the metric that transcribes.
        workers: Processes that score; 0 or 1 scores in this one.
        progress: Show on stderr how far the model and the scorers are.

    Raises:
        SottoError: An impossible rate, a metric that cannot be had, no usable file, or a codec
            that gives NaN.
    """
    again = [InTandem(codec, kbps, passes) for passes in tandem]
    contenders: list[Contender] = [ModelAtRates(codec, kbps), *again, *beside]
    settings = Settings(codec.hop_length / codec.sample_rate, whisper)
    with ScorePool(workers, metrics, settings) as pool:
        n_scored = sum(len(contender.kbps) for contender in contenders)
        alone = any(METRICS[name].alone for name in pool.metrics)
        with _Bars(len(files), n_scored + alone, shown=progress) as bars:
            run = _Run(pool, bars, contenders, codec)
            for entry in files:
                run.take(Path(entry.path))
            run.collect(leave=0)
    if not run.rows:
        first = (
            f"; the first: {run.skipped[0].file}: {run.skipped[0].reason}" if run.skipped else ""
        )
        raise DataError(f"none of {len(files)} files can be scored{first}")
    losses = getattr(codec, "losses", None)  # other codecs than Sotto's do not tell
    return Evaluation(run.rows, run.skipped, run.originals, pool.metrics, losses)


class _Run:
    """The recordings of an evaluation, one after another: decoded here, scored in the pool."""

    def __init__(
        self,
        pool: ScorePool,
        bars: "_Bars",
        contenders: Sequence[Contender],
        codec: SpeechCodec,
    ) -> None:
        self.rows: list[Row] = []
        self.originals: list[Original] = []
        self.skipped: list[Skipped] = []
        self._pool, self._bars = pool, bars
        self._contenders, self._codec = contenders, codec
        self._waiting: deque[tuple[Callable[[Scores], None], Future[Scores]]] = deque()

    def take(self, path: Path) -> None:
        """Encodes and decodes a recording, and has it scored."""
        codec, pool = self._codec, self._pool
        try:
            original = read_recording(path, codec.sample_rate)
            if len(original) < codec.hop_length:
                raise AudioError("shorter than a frame of the codec")
        except (AudioError, OSError) as error:
            self.skipped.append(Skipped(str(path), _reason(error, path)))
            self._bars.passed_over()
            return
        if any(METRICS[name].alone for name in pool.metrics):
            keep = partial(self._keep_original, path, len(original) / codec.sample_rate)
            self._wait_for(keep, pool.submit_original(original, codec.sample_rate))
        for row, decoded in _decoded(self._contenders, path, original, codec.sample_rate):
            keep = partial(self._keep_row, row)
            self._wait_for(keep, pool.submit(original, decoded, codec.sample_rate))
        self._bars.coded()

    def collect(self, leave: int) -> None:
        """Waits for scores until `leave` recordings are still to be scored."""
        while len(self._waiting) > leave:
            keep, future = self._waiting.popleft()
            keep(self._pool.result(future))
            self._bars.scored()

    def _wait_for(self, keep: Callable[[Scores], None], future: "Future[Scores]") -> None:
        self._waiting.append((keep, future))
        self.collect(leave=max(1, self._pool.workers) * _BACKLOG_PER_WORKER)

    def _keep_original(self, path: Path, seconds: float, scores: Scores) -> None:
        self.originals.append(Original(str(path), seconds, scores))

    def _keep_row(self, row: Callable[[Scores], Row], scores: Scores) -> None:
        self.rows.append(row(scores))


def read_recording(path: Path, sample_rate: int) -> Wave:
    """One recording as float32 (samples,) at a rate in Hz, its channels averaged.

    Raises:
        AudioError: It cannot be read.
    """
    channels, _ = audio.read(path, sample_rate=sample_rate)
    return np.ascontiguousarray(audio.to_mono(channels).reshape(-1), dtype=np.float32)


def _decoded(
    contenders: Sequence[Contender], path: Path, original: Wave, sample_rate: int
) -> Iterator[tuple[Callable[[Scores], Row], Wave]]:
    """What one recording sounds like from each codec at each rate, and the row it will fill."""
    seconds = len(original) / sample_rate
    for contender in contenders:
        for decoding in contender.decodings(original):
            if not np.isfinite(decoding.wave).all():
                raise SottoError(f"{path}: decodes to NaN or infinite samples with this model")
            yield partial(_row, path, seconds, contender.name, decoding), decoding.wave


def _row(path: Path, seconds: float, name: str, decoding: Decoding, scores: Scores) -> Row:
    real_kbps = decoding.bits / seconds / 1000
    return Row(str(path), seconds, name, decoding.n_quantizers, decoding.kbps, real_kbps, scores)


def _reason(error: Exception, path: Path) -> str:
    """The message of `error` in one line, without the name of the file it is about."""
    lines = str(error).splitlines() or [type(error).__name__]
    return lines[0].removeprefix(f"{path}: ")


class _Bars:
    """The two progress bars of an evaluation."""

    def __init__(self, n_files: int, n_rates: int, *, shown: bool) -> None:
        self._bars = Progress(
            *Progress.get_default_columns(),
            MofNCompleteColumn(),
            console=Console(stderr=True),
            transient=True,
            disable=not shown,
        )
        self._n_rates = n_rates
        self._to_score = n_files * n_rates
        self._coding = self._bars.add_task("encode and decode", total=n_files)
        self._scoring = self._bars.add_task("score", total=self._to_score)

    def coded(self) -> None:
        self._bars.advance(self._coding)

    def passed_over(self) -> None:
        self._to_score -= self._n_rates
        self._bars.advance(self._coding)
        self._bars.update(self._scoring, total=self._to_score)

    def scored(self) -> None:
        self._bars.advance(self._scoring)

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()
