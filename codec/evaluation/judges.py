"""The metrics there are, in one table: what each is called, means and needs, and what learns of it.

A metric is a row of `METRICS` and the function that it names. Columns of a CSV, tables, plots,
TensorBoard's curves and the keys of a configuration follow from the row. Importing this module is
cheap: what a metric needs is imported when it scores.
"""

import importlib.util
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from typing import Literal

from codec.errors import SottoError
from codec.extras import MissingPackageError

Scores = dict[str, float]
"""What one decoded recording scored by the name of each metric; NaN where it is undefined."""

EXTRA = "metrics"


@dataclass(frozen=True)
class Settings:
    """What some metrics have to be told.

    Attributes:
        frame_seconds: Length of a codec's frame.
        whisper: Name or path of a Whisper checkpoint; None where there is none.
    """

    frame_seconds: float = 0.02
    whisper: str | None = None


@dataclass(frozen=True)
class Metric:
    """One way to judge what a codec made of a recording.

    Attributes:
        name: Of a CSV's column, a curve and a configuration's key.
        heading: Of a table's column: short.
        meaning: Of a plot's axis: what it is, its unit or range.
        decimals: Worth showing of a mean.
        better: Which values are: larger ones, smaller ones, or those near 0.
        function: As "module:name"; takes (reference, decoded, sample_rate) and what `takes` names,
            and gives a float, NaN where it is undefined.
        losses: Keys of `losses` in a configuration that make a model learn what this judges, so
            that it is no independent judge of a model that had them.
        packages: What has to be importable, all of it in the extra `metrics`.
        takes: Names of `Settings` that the function takes as well.
        alone: Judges what it is given by itself, so that an original has a score as well.
        at_own_rate: Judges at the recordings' own rate, where others hear 16 kHz.
    """

    name: str
    heading: str
    meaning: str
    decimals: int
    better: Literal["more", "less", "zero"]
    function: str
    losses: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    takes: tuple[str, ...] = ()
    alone: bool = False
    at_own_rate: bool = False

    @cached_property
    def _function(self) -> Callable[..., float]:
        module, name = self.function.split(":")
        function: Callable[..., float] = getattr(import_module(module), name)
        return function

    def score(
        self, reference: object, decoded: object, sample_rate: int, settings: Settings
    ) -> float:
        """Of one recording: two float32 (samples,) at a rate in Hz.

        Raises:
            SottoError: A sample is NaN or infinite, the lengths differ by more than 0.25 s, or a
                package is missing.
        """
        told = {name: getattr(settings, name) for name in self.takes}
        return self._function(reference, decoded, sample_rate, **told)

    def merit(self, value: float) -> float:
        """`value` with the sign by which more is better."""
        return {"more": value, "less": -value, "zero": -abs(value)}[self.better]

    def missing(self) -> str | None:
        """The first package that is not installed, if there is one."""
        return next((name for name in self.packages if not importlib.util.find_spec(name)), None)

    def learnt(self, losses: Mapping[str, float] | None) -> str:
        """Whether the losses of a model, weights by name, include it: "yes", "no" or "unknown"."""
        if not self.losses:
            return "no"
        if losses is None:
            return "unknown"
        return "yes" if any(losses.get(name, 0) for name in self.losses) else "no"


_METRICS = "codec.evaluation.metrics"
_SIGNALS = "codec.evaluation.signals"
_NEURAL = "codec.evaluation.neural"
_VOICE = ("parameters",)

_TABLE = (
    Metric(
        *("pesq_nb", "PESQ-nb", "PESQ narrowband (MOS-LQO, 1 to 4.55)", 2, "more"),
        function=f"{_METRICS}:pesq_nb",
        losses=("disturbance",),
    ),
    Metric(
        *("pesq_wb", "PESQ-wb", "PESQ wideband (MOS-LQO, 1 to 4.64)", 2, "more"),
        function=f"{_METRICS}:pesq_wb",
        losses=("disturbance",),
    ),
    Metric(
        *("stoi", "STOI", "STOI (0 to 1)", 3, "more"),
        function=f"{_METRICS}:stoi",
    ),
    Metric(
        *("mel_distance", "mel (dB)", "mel distance (dB)", 2, "less"),
        function=f"{_METRICS}:mel_distance",
        losses=("mel", "spectrum"),
        at_own_rate=True,
    ),
    Metric(
        *("buzz", "buzz", "buzz (0 to 1)", 2, "less"),
        function=f"{_METRICS}:buzz",
    ),
    Metric(
        *("flutter", "flutter", "power by place in the frame (dB span)", 1, "less"),
        function=f"{_SIGNALS}:flutter",
        takes=("frame_seconds",),
    ),
    Metric(
        *("pauses", "pauses", "noise in pauses (dB over the original's)", 1, "zero"),
        function=f"{_SIGNALS}:pauses",
    ),
    Metric(
        *("periodicity", "period.", "periodicity at 1 to 4 kHz, less the original's", 3, "zero"),
        function=f"{_SIGNALS}:periodicity",
        losses=_VOICE,
    ),
    Metric(
        *("f0", "F0 (ct)", "error of the pitch (cents)", 0, "less"),
        function=f"{_SIGNALS}:f0",
        losses=_VOICE,
    ),
    Metric(
        *("voicing", "voicing", "frames voiced wrongly (share)", 3, "less"),
        function=f"{_SIGNALS}:voicing",
        losses=_VOICE,
    ),
    Metric(
        *("distillmos", "DistillMOS", "DistillMOS (1 to 5)", 2, "more"),
        function=f"{_NEURAL}:distillmos",
        packages=("distillmos", "xls_r_sqa"),
        alone=True,
    ),
    Metric(
        *("visqol", "ViSQOL", "ViSQOL, speech (MOS-LQO, 1 to 5)", 2, "more"),
        function=f"{_NEURAL}:visqol",
        packages=("visqol", "ai_edge_litert"),
    ),
    Metric(
        *("dnsmos", "DNSMOS", "DNSMOS P.835, overall (1 to 5)", 2, "more"),
        function=f"{_NEURAL}:dnsmos",
        packages=("speechmos", "onnxruntime"),
        alone=True,
    ),
    Metric(
        *("plcmos", "PLCMOS", "PLCMOS (1 to 5)", 2, "more"),
        function=f"{_NEURAL}:plcmos",
        packages=("speechmos", "onnxruntime"),
        alone=True,
    ),
    Metric(
        *("speaker", "speaker", "likeness of the speaker (cosine, up to 1)", 3, "more"),
        function=f"{_NEURAL}:speaker",
        packages=("resemblyzer", "librosa", "webrtcvad", "pkg_resources"),
    ),
    Metric(
        *("dwer", "dWER", "words told differently (share)", 3, "less"),
        function="codec.evaluation.transcripts:dwer",
        losses=("whisper",),
        takes=("whisper",),
    ),
)

METRICS: dict[str, Metric] = {metric.name: metric for metric in _TABLE}
"""All of them by name, in the order that they are shown in."""

DEFAULT: tuple[str, ...] = tuple(
    name
    for name, metric in METRICS.items()
    if not metric.packages and "whisper" not in metric.takes
)
"""Those that need no extra package and take no longer than what they judge."""


def known_metric(name: str) -> str:
    """`name` itself.

    Raises:
        ValueError: There is no such metric.
    """
    if name not in METRICS:
        raise ValueError(f"{name!r} is no metric: there are {', '.join(METRICS)}")
    return name


def chosen(names: Iterable[str], settings: Settings = Settings()) -> list[Metric]:
    """Metrics by their names, each once, in the table's order.

    Raises:
        SottoError: There is none of that name, or it has to be told something.
        MissingPackageError: It needs a package that is not installed.
    """
    try:
        wanted = {known_metric(name) for name in names}
    except ValueError as error:
        raise SottoError(str(error)) from None
    metrics = [metric for name, metric in METRICS.items() if name in wanted]
    for metric in metrics:
        if package := metric.missing():
            raise MissingPackageError(
                f"{metric.name} needs {package}, which is not installed: "
                f"pip install 'sotto[{EXTRA}]'"
            )
        if "whisper" in metric.takes and settings.whisper is None:
            raise SottoError(
                f"{metric.name} needs a Whisper checkpoint: evaluate --whisper names one"
            )
    return metrics


def installed(settings: Settings = Settings()) -> list[str]:
    """Names of all metrics that `chosen` would not refuse."""
    return [
        name
        for name, metric in METRICS.items()
        if not metric.missing() and ("whisper" not in metric.takes or settings.whisper is not None)
    ]


def formula(weights: Mapping[str, float]) -> str:
    """A weighted sum of metrics in one line, as "10 stoi - 0.1 flutter - |periodicity|"."""
    terms = []
    for name, weight in weights.items():
        better = METRICS[name].better
        what = f"|{name}|" if better == "zero" else name
        sign = "+" if better == "more" else "-"
        terms.append(f"{sign} {what}" if weight == 1 else f"{sign} {weight:g} {what}")
    return " ".join(terms).removeprefix("+ ")


def merit(weights: Mapping[str, float], scores: Mapping[str, float]) -> float:
    """Sum of weight times score, what should be small counted against; NaN where one is."""
    return math.fsum(weight * METRICS[name].merit(scores[name]) for name, weight in weights.items())


def learnt_from(metrics: Sequence[str], losses: Mapping[str, float] | None) -> str | None:
    """A sentence on those metrics that a model's losses include, or may include; None for none."""
    by_losses: dict[str, list[str]] = {}
    for metric in (METRICS[name] for name in metrics):
        if metric.learnt(losses) != "no":
            by_losses.setdefault(" or ".join(metric.losses), []).append(metric.heading)
    if not by_losses:
        return None
    named = "; ".join(f"{', '.join(names)} (by {keys})" for keys, names in by_losses.items())
    if losses is None:
        return f"† perhaps learnt from, as the model file does not tell its losses: {named}"
    return f"† learnt from, so no independent judge: {named}"
