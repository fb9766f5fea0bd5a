"""What a change of a model costs: codes and scores of two models on the same recordings."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.box import SIMPLE_HEAD
from rich.table import Table

from codec import audio
from codec.codec import Codec
from codec.data.manifest import Entry
from codec.errors import SottoError
from codec.evaluation.contenders import MODEL_NAME
from codec.evaluation.intervals import Interval, summary
from codec.evaluation.judges import METRICS, Metric, Scores
from codec.evaluation.results import Evaluation


@dataclass(frozen=True, slots=True)
class Change:
    """By how much one metric differs, recording by recording.

    Attributes:
        before: Mean of the recordings that both have.
        after: Likewise.
        difference: After less before.
        gain: The same in the metric's merit, of which more is better.
    """

    before: float
    after: float
    difference: Interval
    gain: Interval

    @property
    def verdict(self) -> str:
        """Whether the difference is more than chance: "better", "worse" or "–"."""
        if self.gain.low > 0:
            return "better"
        return "worse" if self.gain.high < 0 else "–"


@dataclass(frozen=True, slots=True)
class ScoreChange:
    """How scores differ at one rate of one codec: a `Change` per metric that both have.

    Attributes:
        codec: What both call it.
        kbps: The later rate.
        before_kbps: The nearest that the earlier has.
        n_files: Recordings that both have.
        changes: By metric.
    """

    codec: str
    kbps: float
    before_kbps: float
    n_files: int
    changes: dict[str, Change]


def score_changes(before: Evaluation, after: Evaluation) -> list[ScoreChange]:
    """Scores after less scores before, of the same recording at the nearest rate; lowest first.

    Paired, so that the intervals do not carry how much recordings differ from each other.

    Raises:
        SottoError: They have no recording, or no metric, in common.
    """
    metrics = [name for name in after.metrics if name in before.metrics]
    if not metrics:
        raise SottoError("no metric in common: score both by the same --metrics")
    changes = []
    for codec in dict.fromkeys(row.codec for row in after.rows):
        earlier = _by_rate(before, codec)
        if not earlier or not codec.startswith(MODEL_NAME):
            continue
        for kbps, rows in sorted(_by_rate(after, codec).items()):
            nearest = min(earlier, key=lambda rate: abs(rate - kbps))
            pairs = [
                (earlier[nearest][file], scores)
                for file, scores in rows.items()
                if file in earlier[nearest]
            ]
            found = {name: _change(name, pairs) for name in metrics}
            changes.append(ScoreChange(codec, kbps, nearest, len(pairs), found))
    if not any(change.n_files for change in changes):
        raise SottoError("no recording in common: score the same files")
    return changes


def _by_rate(evaluation: Evaluation, codec: str) -> dict[float, dict[Path, Scores]]:
    """Scores of a codec by rate and recording, wherever a relative path was relative to."""
    scores: dict[float, dict[Path, Scores]] = {}
    for row in evaluation.rows:
        if row.codec == codec:
            scores.setdefault(row.kbps, {})[Path(row.file).resolve()] = row.scores
    return scores


def _change(name: str, pairs: Sequence[tuple[Scores, Scores]]) -> Change:
    both = [
        (old[name], new[name])
        for old, new in pairs
        if not (math.isnan(old[name]) or math.isnan(new[name]))
    ]
    merit = METRICS[name].merit
    return Change(
        summary(old for old, _ in both).mean,
        summary(new for _, new in both).mean,
        summary(new - old for old, new in both),
        summary(merit(new) - merit(old) for old, new in both),
    )


def score_table(
    changes: Sequence[ScoreChange],
    title: str,
    losses: Mapping[str, Mapping[str, float] | None],
) -> Table:
    """Mean change ± half of its 95 % interval at each rate; the title gets the number of files.

    Args:
        changes: As `score_changes` gives them.
        title: Without that number.
        losses: What the losses of each model are, if that is known, by what to call the model.
    """
    n_files = max((change.n_files for change in changes), default=0)
    table = Table(
        title=f"{title}, {n_files} files", box=SIMPLE_HEAD, collapse_padding=True, pad_edge=False
    )
    table.add_column("codec")
    table.add_column("kbps", justify="right")
    table.add_column("metric")
    for heading in ("before", "after", "change"):
        table.add_column(heading, justify="right")
    table.add_column("")
    table.add_column("learnt from by")
    for change in changes:
        rates = f"{change.kbps:g}"
        if change.before_kbps != change.kbps:
            rates = f"{change.before_kbps:g} → {rates}"
        for name, one in change.changes.items():
            metric = METRICS[name]
            digits = metric.decimals
            table.add_row(
                change.codec,
                rates,
                metric.heading,
                f"{one.before:.{digits}f}",
                f"{one.after:.{digits}f}",
                _signed(one.difference, 1 + digits),
                one.verdict,
                _learners(metric, losses),
            )
        table.add_section()
    return table


def _signed(interval: Interval, digits: int) -> str:
    if not interval.n:
        return "undefined"
    text = f"{interval.mean:+.{digits}f}"
    return text + (f"±{interval.half_width:.{digits}f}" if interval.n > 1 else "")


def _learners(metric: Metric, losses: Mapping[str, Mapping[str, float] | None]) -> str:
    """Which models learnt from a metric."""
    answers = {model: metric.learnt(told) for model, told in losses.items()}
    learners = [model for model, answer in answers.items() if answer == "yes"]
    learners += [f"{model}?" for model, answer in answers.items() if answer == "unknown"]
    return ", ".join(learners) or "none"


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
