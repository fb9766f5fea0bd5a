"""What commands say: results on stdout, or on stderr where stdout is the output; errors last."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer

from infer.batch import Outcome
from infer.conversion import Conversion
from infer.planning import PIPE, Item


def finish(outcome: Outcome, *, did: str, speed: bool = True) -> None:
    """Says what came of a plan.

    Args:
        outcome: of `batch.run`.
        did: such as "encoded".
        speed: whether audio went through the network, so that its speed is of interest.

    Raises:
        typer.Exit: with code 1, if a file failed.
    """
    for _, conversion in outcome.done:
        for line in conversion.warnings:
            typer.echo(f"warning: {line}", err=True)
    single = len(outcome.done) == 1 and not (outcome.skipped or outcome.failed or outcome.undone)
    if single:
        _say_one(*outcome.done[0], speed=speed)
    else:
        _say_many(outcome, did=did, speed=speed)
    if outcome.undone:
        typer.echo(f"error: {files(outcome.undone)} not done: nothing can be written", err=True)
    if outcome.failed or outcome.undone:
        fail(outcome.failed)


def fail(failed: Sequence[tuple[Path, str]]) -> None:
    """Names the files that failed, one a line.

    Raises:
        typer.Exit: with code 1, if there is one.
    """
    for path, reason in failed:
        line = " ".join(reason.splitlines())
        named = line if str(path) in line else f"{path}: {line}"
        typer.echo(f"error: {named}", err=True)
    raise typer.Exit(1)


def files(number: int) -> str:
    """A number of files."""
    return count(number, "file")


def count(number: int, what: str) -> str:
    """A number of something, whose plural takes an s."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def duration(seconds: float) -> str:
    """A duration for people: `3.25 s`, `2 min 05 s`, `10 h 02 min`."""
    if seconds < 60:
        return f"{seconds:.2f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s"
    return f"{minutes // 60} h {minutes % 60:02} min"


def show(renderable: Any) -> None:
    """Prints with rich, taking file names as they are, brackets and colons included."""
    from rich.console import Console

    Console(markup=False, emoji=False, highlight=False).print(renderable)


def _say_one(item: Item, done: Conversion, *, speed: bool) -> None:
    if item.target == PIPE:
        return
    sizes = f"{done.target_bytes:,} bytes"
    if done.source_bytes > done.target_bytes:
        ratio = done.source_bytes / done.target_bytes
        sizes += f", {ratio:.1f} times smaller than the {done.source_bytes:,} of {item.source}"
    elif done.source_bytes:
        sizes += f" from the {done.source_bytes:,} of {item.source}"
    typer.echo(f"{item.target}: {sizes}")
    line = f"{duration(done.seconds)} of audio"
    line += f" at {done.kbps:g} kbps" if done.kbps else ""
    line += f" ({count(done.n_quantizers, 'codebook')}"
    line += f", {done.channels} channels)" if done.channels > 1 else ")"
    if speed:
        line += f", in {duration(done.elapsed)}: {done.speed:.1f} times real time"
    typer.echo(line)


def _say_many(outcome: Outcome, *, did: str, speed: bool) -> None:
    line = f"{files(len(outcome.done))} {did}"
    if outcome.done:
        line += f": {duration(outcome.seconds)} of audio"
        if speed:
            line += f" in {duration(outcome.elapsed)}, {outcome.speed:.1f} times real time"
        source = sum(conversion.source_bytes for _, conversion in outcome.done)
        target = sum(conversion.target_bytes for _, conversion in outcome.done)
        line += f"; {source:,} bytes to {target:,}"
    typer.echo(line)
    if outcome.skipped:
        typer.echo(f"{files(len(outcome.skipped))} skipped: there already (--force replaces)")
    if outcome.failed:
        typer.echo(f"{files(len(outcome.failed))} failed", err=True)
