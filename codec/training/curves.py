"""Curves of a run, read from its TensorBoard events."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from codec.errors import DataError
from codec.evaluation.judges import METRICS

# Panels in this order; other groups of scalars are for TensorBoard to show.
_PANELS = {
    "loss": "losses",
    "parameters": "losses on parameters of the voice",
    **{f"validation_{name}": f"{metric.meaning}, held out" for name, metric in METRICS.items()},
    "codebook_perplexity": "perplexity of codebooks",
    "codebook_used": "share of rows used",
}
_SMOOTHED_POINTS = 200  # a curve of more is drawn as means of neighbours


@dataclass(frozen=True, slots=True)
class Curve:
    """A scalar over training: steps (n,) int64 in rising order, values (n,) float64."""

    steps: NDArray[np.int64]
    values: NDArray[np.float64]


def read_curves(run: Path) -> dict[str, Curve]:
    """Scalars of a run by tag; where a step was logged twice, the later value.

    Args:
        run: its folder, or that of its TensorBoard events.

    Raises:
        DataError: no such folder, or no scalars in it.
    """
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = run / "tensorboard" if (run / "tensorboard").is_dir() else run
    if not folder.is_dir():
        raise DataError(f"{run}: there is no such run")
    # All scalars, and little of the sounds and pictures among them.
    events = EventAccumulator(str(folder), {"scalars": 0, "images": 1, "audio": 1, "tensors": 1})
    events.Reload()
    curves = {}
    for tag in events.Tags()["scalars"]:
        latest = {event.step: event.value for event in events.Scalars(tag)}
        steps = sorted(latest)
        values = np.array([latest[step] for step in steps], np.float64)
        curves[tag] = Curve(np.array(steps, np.int64), values)
    if not curves:
        raise DataError(f"{run}: has no TensorBoard events with curves")
    return curves


def curves_figure(curves: Mapping[str, Curve], title: str) -> Figure:
    """Losses, held-out scores and codebooks over steps, a panel each.

    Raises:
        DataError: none of the curves is of these.
    """
    groups = {
        name: {tag.partition("/")[2]: curve for tag, curve in curves.items() if _group(tag) == name}
        for name in _PANELS
    }
    groups = {name: group for name, group in groups.items() if group}
    if not groups:
        raise DataError(f"{title}: has no curves of losses, scores or codebooks")
    columns = min(2, len(groups))
    rows = -(-len(groups) // columns)
    figure = Figure(figsize=(5.5 * columns, 3.2 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    panels: Sequence[Axes] = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
    for axes, (name, group) in zip(panels, groups.items(), strict=False):
        _draw(axes, _PANELS[name], group)
        if name in ("loss", "parameters"):
            _to_log_scale(axes)
    for axes in panels[len(groups) :]:
        axes.remove()
    figure.suptitle(title)
    return figure


def _group(tag: str) -> str:
    return tag.partition("/")[0]


def _draw(axes: Axes, title: str, group: Mapping[str, Curve]) -> None:
    axes.set(title=title, xlabel="step")
    axes.grid(alpha=0.3)
    for label, curve in group.items():
        steps, values = _smoothed(curve)
        if not values.any():  # a loss that is switched off
            continue
        mark = "o" if len(steps) < 40 else ""
        axes.plot(steps, values, label=label.replace("_", " "), marker=mark, markersize=3)
    axes.legend(fontsize=7)


def _to_log_scale(axes: Axes) -> None:
    if not axes.lines:
        return
    axes.set_yscale("log")
    for ticks in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
        ticks("{x:g}")


def _smoothed(curve: Curve) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Means of neighbours, so that at most `_SMOOTHED_POINTS` are left; not finite ones go."""
    finite = np.isfinite(curve.values)
    steps, values = curve.steps[finite], curve.values[finite]
    pieces = max(1, min(_SMOOTHED_POINTS, len(steps)))
    if not len(steps):
        return np.zeros(0), np.zeros(0)
    return (
        np.array([piece.mean() for piece in np.array_split(steps, pieces)]),
        np.array([piece.mean() for piece in np.array_split(values, pieces)]),
    )
