"""Scores a codec on a folder of recordings: a table, a CSV and a rate-quality plot."""

import csv
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from functools import partial
from pathlib import Path
from typing import Self

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress
from rich.table import Table

from codec import audio
from codec.atomic import replacing
from codec.data.manifest import Entry
from codec.errors import AudioError, DataError, SottoError
from codec.evaluation.contenders import Contender, Decoding, ModelAtRates, SpeechCodec
from codec.evaluation.figures import save_figure
from codec.evaluation.metrics import METRICS, Interval, ScorePool, Scores, Wave, summary
from codec.evaluation.rate_plot import Point, rate_figure

_BACKLOG_PER_WORKER = 4  # decoded recordings waiting for a scorer: what bounds memory
HEADINGS = {
    "pesq_nb": "PESQ-nb",
    "pesq_wb": "PESQ-wb",
    "stoi": "STOI",
    "mel_distance": "mel (dB)",
    "buzz": "buzz",
}
DECIMALS = {"pesq_nb": 2, "pesq_wb": 2, "stoi": 3, "mel_distance": 2, "buzz": 2}


@dataclass(frozen=True, slots=True)
class Row:
    """One recording at one rate of one codec.

    Attributes:
        file: Path of the recording.
        seconds: Its length.
        codec: "Sotto" or what was scored beside it.
        n_quantizers: Codebooks used; none where the codec has no such thing.
        kbps: The rate asked for.
        real_kbps: Bits of the codes or packets over the recording's length, without what a file
            adds around them. A last frame in part full makes it more than a model's `kbps`.
        scores: What it scored.
    """

    file: str
    seconds: float
    codec: str
    n_quantizers: int | None
    kbps: float
    real_kbps: float
    scores: Scores


@dataclass(frozen=True, slots=True)
class Skipped:
    """A recording that was passed over, and why."""

    file: str
    reason: str


@dataclass(frozen=True, slots=True)
class RateSummary:
    """All recordings at one rate of a codec: `intervals` has one `Interval` per metric name."""

    codec: str
    n_quantizers: int | None
    kbps: float
    real_kbps: float
    n_files: int
    intervals: dict[str, Interval]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Scores of every recording at every rate, and what was passed over."""

    rows: list[Row]
    skipped: list[Skipped]

    def summaries(self) -> list[RateSummary]:
        """One entry a codec and rate: codecs in the order of the rows, the lowest rate first."""
        codecs = dict.fromkeys(row.codec for row in self.rows)
        return [
            self._summary([row for row in self.rows if (row.codec, row.kbps) == (codec, kbps)])
            for codec in codecs
            for kbps in sorted({row.kbps for row in self.rows if row.codec == codec})
        ]

    def _summary(self, rows: Sequence[Row]) -> RateSummary:
        intervals = {name: summary(getattr(row.scores, name) for row in rows) for name in METRICS}
        real = sum(row.real_kbps * row.seconds for row in rows) / sum(row.seconds for row in rows)
        first = rows[0]
        return RateSummary(first.codec, first.n_quantizers, first.kbps, real, len(rows), intervals)

    def table(self) -> Table:
        """Mean ± half of the 95 % interval at each real rate; below, how many are undefined."""
        rates = self.summaries()
        n_files = max((rate.n_files for rate in rates), default=0)
        title = f"Mean over {n_files} files ± half of the 95 % interval"
        table = Table(title=title, box=SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
        table.add_column("codec")
        for heading in ("kbps", "books", *HEADINGS.values()):
            table.add_column(heading, justify="right")
        for rate in rates:
            table.add_row(
                rate.codec,
                f"{rate.real_kbps:.2f}",
                "–" if rate.n_quantizers is None else str(rate.n_quantizers),
                *(_cell(rate.intervals[name], DECIMALS[name]) for name in METRICS),
            )
        if self.skipped:
            reasons = Counter(item.reason for item in self.skipped)
            listed = "; ".join(f"{count} × {reason}" for reason, count in reasons.most_common(3))
            table.caption = f"{len(self.skipped)} files passed over: {listed}"
        return table

    def write_csv(self, path: Path) -> None:
        """Writes a line a file and rate to `path`, and one a rate to `STEM-summary.csv` by it.

        Undefined scores are `nan`. Neither file is ever seen half-written.

        Raises:
            SottoError: The folder cannot be made or written to.
        """
        path = Path(path)
        per_file = [
            (
                *(row.file, row.seconds, row.codec, row.n_quantizers, row.kbps, row.real_kbps),
                *astuple(row.scores),
            )
            for row in self.rows
        ]
        heading = ("file", "seconds", "codec", "n_quantizers", "kbps", "real_kbps", *METRICS)
        _write_rows(path, [heading, *per_file])
        ends = [f"{name}_{end}" for name in METRICS for end in ("mean", "low", "high", "undefined")]
        per_rate: list[tuple[object, ...]] = [
            ("codec", "n_quantizers", "kbps", "real_kbps", "files", *ends),
        ]
        for rate in self.summaries():
            values = [
                value
                for interval in rate.intervals.values()
                for value in (interval.mean, interval.low, interval.high, interval.undefined)
            ]
            per_rate.append(
                (
                    *(rate.codec, rate.n_quantizers, rate.kbps, rate.real_kbps, rate.n_files),
                    *values,
                ),
            )
        _write_rows(path.with_name(f"{path.stem}-summary{path.suffix}"), per_rate)

    def plot(self, path: Path) -> None:
        """Draws each metric over the real bit rate, with 95 % intervals, as a PNG.

        Raises:
            SottoError: The file cannot be written.
        """
        curves: dict[str, list[Point]] = {}
        rates = self.summaries()
        for rate in rates:
            curves.setdefault(rate.codec, []).append(Point(rate.real_kbps, rate.intervals))
        figure = rate_figure(curves, max((rate.n_files for rate in rates), default=0))
        save_figure(figure, Path(path))


def evaluate(
    codec: SpeechCodec,
    files: Sequence[Entry],
    *,
    kbps: Sequence[float],
    beside: Sequence[Contender] = (),
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
        workers: Processes that score; 0 or 1 scores in this one.
        progress: Show on stderr how far the model and the scorers are.

    Raises:
        SottoError: An impossible rate, no usable file, or a codec that gives NaN.
    """
    contenders: list[Contender] = [ModelAtRates(codec, kbps), *beside]
    n_rates = sum(len(contender.kbps) for contender in contenders)
    rows: list[Row] = []
    skipped: list[Skipped] = []
    waiting: deque[tuple[Callable[[Scores], Row], Future[Scores]]] = deque()
    with ScorePool(workers) as pool, _Bars(len(files), n_rates, shown=progress) as bars:

        def collect(leave: int) -> None:
            while len(waiting) > leave:
                row, future = waiting.popleft()
                rows.append(row(pool.result(future)))
                bars.scored()

        for entry in files:
            path = Path(entry.path)
            try:
                original = read_recording(path, codec.sample_rate)
                if len(original) < codec.hop_length:
                    raise AudioError("shorter than a frame of the codec")
            except (AudioError, OSError) as error:
                skipped.append(Skipped(str(path), _reason(error, path)))
                bars.passed_over()
                continue
            for row, decoded in _decoded(contenders, path, original, codec.sample_rate):
                waiting.append((row, pool.submit(original, decoded, codec.sample_rate)))
                collect(leave=max(1, workers) * _BACKLOG_PER_WORKER)
            bars.coded()
        collect(leave=0)
    if not rows:
        first = f"; the first: {skipped[0].file}: {skipped[0].reason}" if skipped else ""
        raise DataError(f"none of {len(files)} files can be scored{first}")
    return Evaluation(rows, skipped)


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


def _cell(interval: Interval, decimals: int) -> str:
    if interval.n == 0:
        return f"all {interval.undefined} undefined"
    text = f"{interval.mean:.{decimals}f}"
    if interval.n > 1:
        text += f"±{interval.half_width:.{decimals}f}"  # no spaces: 80 columns are few
    return text + (f"\n{interval.undefined} undefined" if interval.undefined else "")


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """`replacing`, with an error in one line."""
    try:
        with replacing(path) as temporary:
            yield temporary
    except OSError as error:
        raise SottoError(f"{path}: cannot be written: {error.strerror or error}") from error


def _write_rows(path: Path, rows: Sequence[Sequence[object]]) -> None:
    with (
        _replacing(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        csv.writer(file).writerows(rows)
