"""What a change of a model costs: codes and scores of two models on the same recordings."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from rich.box import SIMPLE_HEAD
from rich.table import Table

from codec import audio
from codec.codec import Codec
from codec.data.manifest import Entry
from codec.evaluation.metrics import METRICS, Interval, summary
from codec.evaluation.report import DECIMALS, HEADINGS, Evaluation


@dataclass(frozen=True, slots=True)
class ScoreChange:
    """By how much scores differ at one rate, file by file: an `Interval` per metric name."""

    kbps: float
    n_files: int
    intervals: dict[str, Interval]


def score_changes(before: Evaluation, after: Evaluation) -> list[ScoreChange]:
    """Scores after less scores before, of the same recording at the same rate; lowest rate first.

    Paired, so that the intervals do not carry how much recordings differ from each other.
    """
    earlier = {(row.file, row.kbps): row.scores for row in before.rows}
    changes = []
    for kbps in sorted({row.kbps for row in after.rows}):
        pairs = [
            (earlier[row.file, kbps], row.scores)
            for row in after.rows
            if row.kbps == kbps and (row.file, kbps) in earlier
        ]
        intervals = {
            name: summary(getattr(new, name) - getattr(old, name) for old, new in pairs)
            for name in METRICS
        }
        changes.append(ScoreChange(kbps, len(pairs), intervals))
    return changes


def score_table(changes: Sequence[ScoreChange], title: str) -> Table:
    """Mean change ± half of its 95 % interval at each rate; the title gets the number of files."""
    n_files = max((change.n_files for change in changes), default=0)
    table = Table(
        title=f"{title}, {n_files} files", box=SIMPLE_HEAD, collapse_padding=True, pad_edge=False
    )
    for heading in ("kbps", *HEADINGS.values()):
        table.add_column(heading, justify="right")
    for change in changes:
        cells = [
            f"{interval.mean:+.{digits}f}±{interval.half_width:.{digits}f}"
            for interval, digits in (
                (change.intervals[name], 1 + DECIMALS[name]) for name in METRICS
            )
        ]
        table.add_row(f"{change.kbps:g}", *cells)
    return table


def changed_codes(
    before: Codec, after: Codec, files: Sequence[Entry], report: Callable[[], None]
) -> list[float]:
    """The share of codes, 0 to 1, that two models of one architecture tell differently.

    Args:
        before: One model.
        after: The other.
        files: Recordings.
        report: Called after each of them.

    Returns:
        One share a codebook. What one codebook says differently, those after it have to follow.

    Raises:
        AudioError: A recording cannot be read.
    """
    differ = np.zeros(before.n_quantizers)
    frames = 0
    for entry in files:
        wave, _ = audio.read(entry.path, sample_rate=before.sample_rate)
        mono = torch.from_numpy(audio.to_mono(wave)[0])
        codes = [codec.encode(mono).cpu().numpy() for codec in (before, after)]
        differ += (codes[0] != codes[1]).sum(axis=1)
        frames += codes[0].shape[1]
        report()
    return [float(share) for share in differ / max(frames, 1)]
