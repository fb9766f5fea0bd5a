"""Quality over rate, as a figure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from textwrap import fill

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from codec.evaluation.intervals import Interval
from codec.evaluation.judges import METRICS, Metric

_BETTER = {"more": "", "less": ", lower is better", "zero": ", 0 is best"}
_COLUMNS = 3
_LABEL_WIDTH = 36  # characters of a line
_PANEL_INCHES = (4.7, 3.7)
# Colours that differ for colour-blind eyes too (Okabe and Ito), and marks that differ in grey.
_STYLES = (
    ("#0072b2", "o", "-"),
    ("#d55e00", "s", "--"),
    ("#009e73", "^", "-."),
    ("#666", "D", ":"),
)


@dataclass(frozen=True, slots=True)
class Point:
    """A codec at one rate: real kbit/s, and one `Interval` per metric name."""

    real_kbps: float
    intervals: Mapping[str, Interval]


def rate_figure(
    curves: Mapping[str, Sequence[Point]],
    metrics: Mapping[str, str],
    *,
    n_files: int,
    originals: Mapping[str, Interval],
) -> Figure:
    """Each metric over the real bit rate, one curve a codec by name, with 95 % intervals.

    Args:
        curves: By the name of each codec.
        metrics: Headings by name of what to draw; a † in one is kept.
        n_files: That were scored.
        originals: What the recordings themselves scored, where a metric can tell.
    """
    rows = max(1, -(-len(metrics) // _COLUMNS))
    width, height = _PANEL_INCHES
    figure = Figure(figsize=(_COLUMNS * width, rows * height), layout="constrained")
    FigureCanvasAgg(figure)  # draws in memory: needs no display
    places = list(figure.subplots(rows, _COLUMNS, squeeze=False).flat)
    for (name, heading), axes in zip(metrics.items(), places, strict=False):
        learnt = "; learnt from†" if heading.endswith("†") else ""
        _draw(axes, curves, METRICS[name], originals.get(name))
        label = f"{METRICS[name].meaning}{_BETTER[METRICS[name].better]}{learnt}"
        axes.set_ylabel(fill(label, _LABEL_WIDTH))
    for axes in places[len(metrics) :]:
        axes.set_axis_off()
    figure.suptitle(f"Rate and quality: mean of {n_files} files with 95 % interval")
    return figure


def _draw(
    axes: Axes, curves: Mapping[str, Sequence[Point]], metric: Metric, original: Interval | None
) -> None:
    axes.set_xlabel("bit rate (kbps)")
    axes.grid(alpha=0.3)
    drawn = 0
    for (name, points), (colour, mark, line) in zip(curves.items(), cycle(_STYLES), strict=False):
        defined = [point for point in points if point.intervals[metric.name].n]
        if not defined:
            continue
        drawn += 1
        intervals = [point.intervals[metric.name] for point in defined]
        axes.errorbar(
            [point.real_kbps for point in defined],
            [interval.mean for interval in intervals],
            yerr=np.nan_to_num([interval.half_width for interval in intervals]),
            color=colour,
            marker=mark,
            linestyle=line,
            capsize=4,
            label=name,
        )
    if not drawn:
        axes.text(0.5, 0.5, "undefined for all files", ha="center", transform=axes.transAxes)
        return
    if original is not None and original.n:
        axes.axhline(original.mean, color="#999", linestyle=(0, (1, 2)), label="original")
    axes.set_xlim(left=0)
    if len(axes.get_legend_handles_labels()[1]) > 1:
        axes.legend()
