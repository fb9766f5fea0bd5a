"""Quality over rate, as a figure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from codec.evaluation.metrics import Interval

_LABELS = {
    "pesq_nb": "PESQ narrowband (MOS-LQO, 1 to 4.55)",
    "pesq_wb": "PESQ wideband (MOS-LQO, 1 to 4.64)",
    "stoi": "STOI (0 to 1)",
    "mel_distance": "mel distance (dB, lower is better)",
    "buzz": "buzz (0 to 1, lower is better)",
}
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


def rate_figure(curves: Mapping[str, Sequence[Point]], n_files: int) -> Figure:
    """Each metric over the real bit rate, one curve a codec by name, with 95 % intervals."""
    figure = Figure(figsize=(14, 7.5), layout="constrained")
    FigureCanvasAgg(figure)  # draws in memory: needs no display
    places = list(figure.subplots(2, 3).flat)
    for metric, axes in zip(_LABELS, places, strict=False):
        _draw(axes, curves, metric)
    for axes in places[len(_LABELS) :]:
        axes.set_axis_off()
    figure.suptitle(f"Rate and quality: mean of {n_files} files with 95 % interval")
    return figure


def _draw(axes: Axes, curves: Mapping[str, Sequence[Point]], metric: str) -> None:
    axes.set(xlabel="bit rate (kbps)", ylabel=_LABELS[metric])
    axes.grid(alpha=0.3)
    drawn = 0
    for (name, points), (colour, mark, line) in zip(curves.items(), _STYLES, strict=False):
        defined = [point for point in points if point.intervals[metric].n]
        if not defined:
            continue
        drawn += 1
        intervals = [point.intervals[metric] for point in defined]
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
    axes.set_xlim(left=0)
    if len(curves) > 1:
        axes.legend()
