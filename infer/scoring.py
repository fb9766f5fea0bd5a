"""What the commands that score have in common: options, and Opus beside the model."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from infer.options import parse_rates

if TYPE_CHECKING:
    from codec.evaluation.contenders import Contender

CORES = os.cpu_count() or 1

Opus = Annotated[
    str | None,
    typer.Option(metavar="KBPS,...", help="Score Opus too, at these rates, as 6,8,12; '': not."),
]
Metrics = Annotated[
    str | None,
    typer.Option(
        metavar="NAME,...", help="What to score by, as stoi,visqol; all: whatever is installed."
    ),
]
Whisper = Annotated[
    str | None,
    typer.Option(metavar="MODEL", help="Whisper checkpoint for the metric dwer: a name or a path."),
]
Workers = Annotated[int, typer.Option(min=1, help="Processes that score.")]


def opus_beside(rates: str | None, sample_rate: int) -> "list[Contender]":
    """What --opus asks for.

    Raises:
        SottoError: no list of rates, a rate that Opus does not have, or no libopus.
    """
    if not rates:
        return []
    from codec.evaluation.opus import OpusAtRates

    return [OpusAtRates(parse_rates(rates, "--opus"), sample_rate)]


def parse_metrics(text: str | None, whisper: str | None) -> list[str]:
    """What --metrics asks for; without it what needs no extra package, and dwer with --whisper.

    Raises:
        SottoError: there is no such metric, or what it needs is not there.
    """
    from codec.evaluation.judges import DEFAULT, Settings, chosen, installed

    settings = Settings(whisper=whisper)
    if text == "all":
        return installed(settings)
    names = list(DEFAULT) if text is None else [name.strip() for name in text.split(",")]
    if text is None and whisper is not None:
        names.append("dwer")
    return [metric.name for metric in chosen(names, settings)]


@contextmanager
def counting(doing: str, total: int) -> Iterator[Callable[[], None]]:
    """A progress bar on stderr; yields what to call after each of `total` things."""
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress

    columns = (*Progress.get_default_columns(), MofNCompleteColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(doing, total=total)
        yield lambda: progress.advance(task)
