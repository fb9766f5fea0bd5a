"""Scores a codec on a folder of recordings: a table, a CSV and a rate-quality plot."""

import csv
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from functools import partial
from pathlib import Path
from typing import Protocol, Self

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress
from rich.table import Table
from torch import Tensor

from codec import audio
from codec.atomic import replacing
from codec.data.manifest import Entry
from codec.errors import AudioError, DataError, SottoError
from codec.evaluation.metrics import METRICS, Interval, ScorePool, Scores, Wave, summary

_BACKLOG_PER_WORKER = 4  # decoded recordings waiting for a scorer: what bounds memory
_HEADINGS = {
    "pesq_nb": "PESQ-nb",
    "pesq_wb": "PESQ-wb",
    "stoi": "STOI",
    "mel_distance": "mel distance\n(dB)",
}
_AXES = {
    "pesq_nb": "PESQ narrowband (MOS-LQO, 1 to 4.55)",
    "pesq_wb": "PESQ wideband (MOS-LQO, 1 to 4.64)",
    "stoi": "STOI (0 to 1)",
    "mel_distance": "mel distance (dB, lower is better)",
}
_DECIMALS = {"pesq_nb": 2, "pesq_wb": 2, "stoi": 3, "mel_distance": 2}


class SpeechCodec(Protocol):
    """What `evaluate` asks of a codec; `codec.codec.Codec` is one."""

    @property
    def sample_rate(self) -> int:
        """Hz, of the waves it takes and gives."""

    @property
    def hop_length(self) -> int:
        """Samples a frame."""

    @property
    def bits_per_code(self) -> int:
        """Bits one code takes in a file."""

    def kbps(self, n_quantizers: int) -> float:
        """Bit rate with this many codebooks."""

    def n_quantizers_for(self, kbps: float) -> int:
        """Codebooks for a bit rate; SottoError naming the possible ones."""

    def encode(self, wave: Tensor, n_quantizers: int | None = None) -> Tensor:
        """(samples,) -> codes (n_quantizers, frames)."""

    def decode(self, codes: Tensor, length: int | None = None) -> Tensor:
        """(n_quantizers, frames) -> (samples,), cut to `length`."""


@dataclass(frozen=True, slots=True)
class Row:
    """One recording at one rate.

    Attributes:
        file: Path of the recording.
        seconds: Its length.
        n_quantizers: Codebooks used.
        kbps: The codec's rate with them.
        real_kbps: Bits of the codes over the recording's length; a last frame in part full makes
            it more than `kbps`.
        scores: What it scored.
    """

    file: str
    seconds: float
    n_quantizers: int
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
    """All recordings at one rate: `intervals` holds one `Interval` per metric name."""

    n_quantizers: int
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
        """One entry a rate, the lowest first."""
        return [self._summary(n) for n in sorted({row.n_quantizers for row in self.rows})]

    def _summary(self, n_quantizers: int) -> RateSummary:
        rows = [row for row in self.rows if row.n_quantizers == n_quantizers]
        intervals = {name: summary(getattr(row.scores, name) for row in rows) for name in METRICS}
        real = sum(row.real_kbps * row.seconds for row in rows) / sum(row.seconds for row in rows)
        return RateSummary(n_quantizers, rows[0].kbps, real, len(rows), intervals)

    def table(self) -> Table:
        """Mean ± half of the 95 % interval at each real rate; below, how many are undefined."""
        title = "Mean over files ± half of the 95 % interval"
        table = Table(title=title, box=SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
        for heading in ("kbps", "books", "files", *_HEADINGS.values()):
            table.add_column(heading, justify="right")
        for rate in self.summaries():
            table.add_row(
                f"{rate.real_kbps:.2f}",
                str(rate.n_quantizers),
                str(rate.n_files),
                *(_cell(rate.intervals[name], _DECIMALS[name]) for name in METRICS),
            )
        if self.skipped:
            reasons = Counter(item.reason for item in self.skipped)
            listed = "; ".join(f"{count} × {reason}" for reason, count in reasons.most_common(3))
            table.caption = f"{len(self.skipped)} files passed over: {listed}"
        return table

    def write_csv(self, path: Path) -> None:
        """Writes one line a file and rate to `path`, and one a rate to `STEM-summary.csv` by it.

        Undefined scores are `nan`. Neither file is ever seen half-written.

        Raises:
            SottoError: The folder cannot be made or written to.
        """
        path = Path(path)
        per_file = [
            (row.file, row.seconds, row.n_quantizers, row.kbps, row.real_kbps, *astuple(row.scores))
            for row in self.rows
        ]
        heading = ("file", "seconds", "n_quantizers", "kbps", "real_kbps", *METRICS)
        _write_rows(path, [heading, *per_file])
        ends = [f"{name}_{end}" for name in METRICS for end in ("mean", "low", "high", "undefined")]
        per_rate: list[tuple[object, ...]] = [
            ("n_quantizers", "kbps", "real_kbps", "files", *ends),
        ]
        for rate in self.summaries():
            values = [
                value
                for interval in rate.intervals.values()
                for value in (interval.mean, interval.low, interval.high, interval.undefined)
            ]
            per_rate.append(
                (rate.n_quantizers, rate.kbps, rate.real_kbps, rate.n_files, *values),
            )
        _write_rows(path.with_name(f"{path.stem}-summary{path.suffix}"), per_rate)

    def plot(self, path: Path) -> None:
        """Draws each metric over the real bit rate, with 95 % intervals, as a PNG.

        Raises:
            SottoError: The file cannot be written.
        """
        figure = Figure(figsize=(10, 7.5), layout="constrained")
        FigureCanvasAgg(figure)  # draws in memory: needs no display
        rates = self.summaries()
        for name, axes in zip(METRICS, figure.subplots(2, 2).flat, strict=True):
            _draw(axes, rates, name)
        n_files = max((rate.n_files for rate in rates), default=0)
        figure.suptitle(f"Rate and quality: mean of {n_files} files with 95 % interval")
        with _replacing(Path(path)) as temporary:
            figure.savefig(temporary, format="png", dpi=120)


def evaluate(
    codec: SpeechCodec,
    files: Sequence[Entry],
    *,
    kbps: Sequence[float],
    workers: int = 1,
    progress: bool = False,
) -> Evaluation:
    """Encodes each recording once and scores what its first codebooks decode to.

    Args:
        codec: The codec; its first n codebooks must be the codes at the lower rate, as an RVQ's.
        files: The recordings, as `load_entries` gives them for a folder or a manifest. Unreadable
            ones and those shorter than a frame are passed over.
        kbps: Bit rates, each one the codec has.
        workers: Processes that score; 0 or 1 scores in this one.
        progress: Show on stderr how far the model and the scorers are.

    Raises:
        SottoError: An impossible rate, no usable file, or a codec that gives NaN.
    """
    rates = sorted({codec.n_quantizers_for(rate) for rate in kbps})
    if not rates:
        raise SottoError("no bit rate to evaluate: name at least one")
    rows: list[Row] = []
    skipped: list[Skipped] = []
    waiting: deque[tuple[Callable[[Scores], Row], Future[Scores]]] = deque()
    with ScorePool(workers) as pool, _Bars(len(files), len(rates), shown=progress) as bars:

        def collect(leave: int) -> None:
            while len(waiting) > leave:
                row, future = waiting.popleft()
                rows.append(row(pool.result(future)))
                bars.scored()

        for entry in files:
            path = Path(entry.path)
            try:
                original = _read(path, codec)
            except (AudioError, OSError) as error:
                skipped.append(Skipped(str(path), _reason(error, path)))
                bars.passed_over()
                continue
            for row, decoded in _decoded(codec, path, original, rates):
                waiting.append((row, pool.submit(original, decoded, codec.sample_rate)))
                collect(leave=max(1, workers) * _BACKLOG_PER_WORKER)
            bars.coded()
        collect(leave=0)
    if not rows:
        first = f"; the first: {skipped[0].file}: {skipped[0].reason}" if skipped else ""
        raise DataError(f"none of {len(files)} files can be scored{first}")
    return Evaluation(rows, skipped)


def _read(path: Path, codec: SpeechCodec) -> Wave:
    """One recording as float32 (samples,) at the codec's rate, its channels averaged."""
    channels, _ = audio.read(path, sample_rate=codec.sample_rate)
    wave = np.ascontiguousarray(audio.to_mono(channels).reshape(-1), dtype=np.float32)
    if len(wave) < codec.hop_length:
        raise AudioError("shorter than a frame of the codec")
    return wave


def _decoded(
    codec: SpeechCodec, path: Path, original: Wave, rates: Sequence[int]
) -> Iterator[tuple[Callable[[Scores], Row], Wave]]:
    """What one recording sounds like at each number of codebooks, and the row it will fill."""
    seconds = len(original) / codec.sample_rate
    codes = codec.encode(torch.from_numpy(original), n_quantizers=rates[-1])
    for n_quantizers in rates:
        wave = codec.decode(codes[:n_quantizers], length=len(original)).cpu().numpy()
        if not np.isfinite(wave).all():
            raise SottoError(f"{path}: decodes to NaN or infinite samples with this model")
        bits = n_quantizers * codes.shape[-1] * codec.bits_per_code
        row = partial(
            Row, str(path), seconds, n_quantizers, codec.kbps(n_quantizers), bits / seconds / 1000
        )
        yield row, wave


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
        text += f" ± {interval.half_width:.{decimals}f}"
    return text + (f"\n{interval.undefined} undefined" if interval.undefined else "")


def _draw(axes: Axes, rates: Sequence[RateSummary], metric: str) -> None:
    """One metric over the rate: the mean of each rate, its interval as a bar."""
    axes.set(xlabel="bit rate (kbps)", ylabel=_AXES[metric])
    axes.grid(alpha=0.3)
    defined = [rate for rate in rates if rate.intervals[metric].n]
    if not defined:
        axes.text(0.5, 0.5, "undefined for all files", ha="center", transform=axes.transAxes)
        return
    intervals = [rate.intervals[metric] for rate in defined]
    axes.errorbar(
        [rate.real_kbps for rate in defined],
        [interval.mean for interval in intervals],
        yerr=np.nan_to_num([interval.half_width for interval in intervals]),
        marker="o",
        capsize=4,
    )
    axes.set_xlim(left=0)


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
