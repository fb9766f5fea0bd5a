"""What an evaluation found: rows, their means, a table and a plot."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

from codec.evaluation.figures import save_figure
from codec.evaluation.intervals import Interval, summary
from codec.evaluation.judges import DEFAULT, METRICS, Scores, learnt_from
from codec.evaluation.rate_plot import Point, rate_figure

ORIGINAL = "original"
"""What tables and CSVs call the recordings themselves, where a codec's name stands."""

_TABLE_WIDTH = 80


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
        scores: What it scored, by metric.
    """

    file: str
    seconds: float
    codec: str
    n_quantizers: int | None
    kbps: float
    real_kbps: float
    scores: Scores


@dataclass(frozen=True, slots=True)
class Original:
    """What a recording itself scored, by those metrics that compare it with nothing."""

    file: str
    seconds: float
    scores: Scores


@dataclass(frozen=True, slots=True)
class Skipped:
    """A recording that was passed over, and why."""

    file: str
    reason: str


@dataclass(frozen=True, slots=True)
class RateSummary:
    """All recordings at one rate of a codec: `intervals` has one `Interval` per metric name.

    Rates are none for the originals, which have intervals of some metrics only.
    """

    codec: str
    n_quantizers: int | None
    kbps: float | None
    real_kbps: float | None
    n_files: int
    intervals: dict[str, Interval]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Scores of every recording at every rate, and what was passed over.

    Attributes:
        rows: One a recording, codec and rate.
        skipped: Recordings that were passed over.
        originals: What the recordings themselves scored, where a metric can tell.
        metrics: Names of what was scored by, in the order to show.
        losses: Weights by name of the losses that the model learnt from; none: not known.
    """

    rows: list[Row]
    skipped: list[Skipped]
    originals: list[Original] = field(default_factory=list)
    metrics: Sequence[str] = DEFAULT
    losses: dict[str, float] | None = None

    def summaries(self) -> list[RateSummary]:
        """One entry a codec and rate: codecs in the order of the rows, the lowest rate first."""
        codecs = dict.fromkeys(row.codec for row in self.rows)
        return [
            self._summary([row for row in self.rows if (row.codec, row.kbps) == (codec, kbps)])
            for codec in codecs
            for kbps in sorted({row.kbps for row in self.rows if row.codec == codec})
        ]

    def _summary(self, rows: Sequence[Row]) -> RateSummary:
        intervals = {name: summary(row.scores[name] for row in rows) for name in self.metrics}
        real = sum(row.real_kbps * row.seconds for row in rows) / sum(row.seconds for row in rows)
        first = rows[0]
        return RateSummary(first.codec, first.n_quantizers, first.kbps, real, len(rows), intervals)

    def original_summary(self) -> RateSummary | None:
        """Of the originals, by the metrics that judge them; none where none does."""
        if not self.originals:
            return None
        intervals = {
            name: summary(original.scores[name] for original in self.originals)
            for name in self.metrics
            if METRICS[name].alone
        }
        return RateSummary(ORIGINAL, None, None, None, len(self.originals), intervals)

    def with_originals(self) -> list[RateSummary]:
        """The originals' summary, if there is one, and those of `summaries`."""
        original = self.original_summary()
        return [*([original] if original else []), *self.summaries()]

    def table(self) -> Group:
        """Mean ± half of the 95 % interval at each real rate; below, what to mind.

        Metrics that do not fit 80 columns make another table.
        """
        rates = self.with_originals()
        parts: list[Table | Text] = []
        n_files = max((rate.n_files for rate in rates), default=0)
        title: str | None = f"Mean over {n_files} files ± half of the 95 % interval"
        for metrics in self._fitting(rates):
            parts.append(self._part(rates, metrics, title))
            title = None
        if note := learnt_from(self.metrics, self.losses):
            parts.append(Text(note, style="dim"))
        if self.skipped:
            reasons = Counter(item.reason for item in self.skipped)
            listed = "; ".join(f"{count} × {reason}" for reason, count in reasons.most_common(3))
            parts.append(Text(f"{len(self.skipped)} files passed over: {listed}", style="dim"))
        return Group(*parts)

    def _fitting(self, rates: Sequence[RateSummary]) -> list[list[str]]:
        """The metrics, in groups of as many as a table has room for."""
        groups: list[list[str]] = [[]]
        room = free = (
            _TABLE_WIDTH - max(len(rate.codec) for rate in rates) - len("  kbps  books   ")
        )
        for name in self.metrics:
            cells = [_cell(rate.intervals.get(name), METRICS[name].decimals) for rate in rates]
            lines = [line for cell in cells for line in cell.splitlines()]
            width = 2 + max(map(len, [self.heading(name), *lines]))
            if width > free and groups[-1]:
                groups.append([])
                free = room
            groups[-1].append(name)
            free -= width
        return groups

    def _part(
        self, rates: Sequence[RateSummary], metrics: Sequence[str], title: str | None
    ) -> Table:
        table = Table(title=title, box=SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
        table.add_column("codec")
        for heading in ("kbps", "books", *(self.heading(name) for name in metrics)):
            table.add_column(heading, justify="right")
        for rate in rates:
            if rate.real_kbps is None and not rate.intervals.keys() & set(metrics):
                continue  # originals, where none of these metrics judges them
            table.add_row(
                rate.codec,
                "–" if rate.real_kbps is None else f"{rate.real_kbps:.2f}",
                "–" if rate.n_quantizers is None else str(rate.n_quantizers),
                *(_cell(rate.intervals.get(name), METRICS[name].decimals) for name in metrics),
            )
        return table

    def heading(self, name: str) -> str:
        """A metric's, with a † if the model learnt from it or may have."""
        metric = METRICS[name]
        return metric.heading + ("" if metric.learnt(self.losses) == "no" else "†")

    def plot(self, path: Path) -> None:
        """Draws each metric over the real bit rate, with 95 % intervals, as a PNG.

        Raises:
            SottoError: The file cannot be written.
        """
        curves: dict[str, list[Point]] = {}
        rates = self.summaries()
        for rate in rates:
            assert rate.real_kbps is not None  # these are no originals
            curves.setdefault(rate.codec, []).append(Point(rate.real_kbps, rate.intervals))
        original = self.original_summary()
        figure = rate_figure(
            curves,
            {name: self.heading(name) for name in self.metrics},
            n_files=max((rate.n_files for rate in rates), default=0),
            originals=original.intervals if original else {},
        )
        save_figure(figure, Path(path))


def _cell(interval: Interval | None, decimals: int) -> str:
    if interval is None:
        return "–"
    if interval.n == 0:
        return f"all {interval.undefined} undefined"
    text = f"{interval.mean:.{decimals}f}"
    if interval.n > 1:
        text += f"±{interval.half_width:.{decimals}f}"  # no spaces: 80 columns are few
    return text + (f"\n{interval.undefined} undefined" if interval.undefined else "")
