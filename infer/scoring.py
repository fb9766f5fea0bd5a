"""What the commands that score have in common: options, and Opus beside the model."""

import os
from typing import TYPE_CHECKING, Annotated

import typer

from infer.options import parse_rates

if TYPE_CHECKING:
    from codec.evaluation.contenders import Contender

CORES = os.cpu_count() or 1

Opus = Annotated[
    str | None,
    typer.Option(metavar="KBPS,...", help="Score Opus too, at these rates, as 6,8,12."),
]
Workers = Annotated[int, typer.Option(min=1, help="Processes that score.")]


def opus_beside(rates: str | None, sample_rate: int) -> "list[Contender]":
    """What --opus asks for.

    Raises:
        SottoError: no list of rates, a rate that Opus does not have, or no libopus.
    """
    if rates is None:
        return []
    from codec.evaluation.opus import OpusAtRates

    return [OpusAtRates(parse_rates(rates, "--opus"), sample_rate)]
