"""Scores recordings, in processes of their own."""

import signal
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import Self

import torch

from codec.errors import SottoError
from codec.evaluation.judges import DEFAULT, Metric, Scores, Settings, chosen
from codec.evaluation.pairs import SCORED_RATE, Pair, Wave, at_scored_rate, prepared


def score_pair(
    reference: Wave,
    decoded: Wave,
    sample_rate: int,
    metrics: Sequence[str] = DEFAULT,
    settings: Settings = Settings(),  # noqa: B008
) -> Scores:
    """All metrics of one recording.

    Args:
        reference: The original, float32 (samples,) in [-1, 1].
        decoded: What came out of the codec, likewise.
        sample_rate: Hz, of both.
        metrics: Names of them.
        settings: What they have to be told.

    Raises:
        SottoError: A sample is NaN or infinite, the lengths differ by more than 0.25 s, or a metric
            cannot be had.
    """
    return _scores(reference, decoded, sample_rate, chosen(metrics, settings), settings)


def _scores(
    reference: Wave,
    decoded: Wave,
    sample_rate: int,
    metrics: Sequence[Metric],
    settings: Settings,
) -> Scores:
    own = prepared(reference, decoded, sample_rate)
    scored = (*at_scored_rate(*own), SCORED_RATE)  # once for all of them
    return {
        metric.name: metric.score(*(own if metric.at_own_rate else scored), settings)
        for metric in metrics
    }


class ScorePool:
    """Scores recordings in processes that stay, so that their start is paid once.

    The processes are spawned, which is safe beside torch's threads and the same on every
    platform, and start with the first recording. What a metric has to load is loaded once in each.

    Args:
        workers: Processes; 0 or 1 scores in this one, at the moment of `submit`.
        metrics: Names of what to score by.
        settings: What they have to be told.

    Raises:
        SottoError: A metric cannot be had.
    """

    def __init__(
        self,
        workers: int,
        metrics: Iterable[str] = DEFAULT,
        settings: Settings = Settings(),  # noqa: B008
    ) -> None:
        if workers < 0:
            raise ValueError(f"workers must be 0 or more, not {workers}")
        self.workers = workers
        self.settings = settings
        self._metrics = chosen(metrics, settings)
        self._executor: ProcessPoolExecutor | None = None

    @property
    def metrics(self) -> list[str]:
        """Names of what is scored by."""
        return [metric.name for metric in self._metrics]

    def submit(self, reference: Wave, decoded: Wave, sample_rate: int) -> "Future[Scores]":
        """Asks for the scores of one recording; arguments as `score_pair`."""
        return self._submit(reference, decoded, sample_rate, self._metrics)

    def submit_original(self, original: Wave, sample_rate: int) -> "Future[Scores]":
        """Asks what an original scores by those metrics that need nothing to compare it with."""
        alone = [metric for metric in self._metrics if metric.alone]
        return self._submit(original, original, sample_rate, alone)

    def _submit(
        self, reference: Wave, decoded: Wave, sample_rate: int, metrics: Sequence[Metric]
    ) -> "Future[Scores]":
        arguments = (reference, decoded, sample_rate, metrics, self.settings)
        if self.workers > 1:
            if self._executor is None:
                self._executor = ProcessPoolExecutor(
                    self.workers, mp_context=get_context("spawn"), initializer=_start_worker
                )
            try:
                return self._executor.submit(_scores, *arguments)
            except BrokenProcessPool as error:
                raise _lost_workers() from error
        future: Future[Scores] = Future()
        try:
            future.set_result(_scores(*arguments))
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


def score_many(
    pairs: Iterable[Pair], workers: int, metrics: Iterable[str] = DEFAULT
) -> list[Scores]:
    """Scores (reference, decoded, sample_rate) triples on `workers` processes, in order.

    For more than one call keep a `ScorePool`. Errors as `score_pair`.
    """
    with ScorePool(workers, metrics) as pool:
        return pool.score(pairs)


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    torch.set_num_threads(1)


def _lost_workers() -> SottoError:
    return SottoError(
        "a scoring process died, most likely for want of memory: try fewer workers, or workers=1"
    )
