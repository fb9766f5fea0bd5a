"""The command line that the corpus scripts share."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated

import typer

from data_scripts.prepare import Utterance, run

Out = Annotated[Path, typer.Argument(help="Folder of the corpus to be made.")]
Archives = Annotated[
    list[Path] | None,
    typer.Option("--archive", help="The corpus's .tar.gz, or the folder it unpacks to."),
]
Subsets = Annotated[
    list[str] | None,
    typer.Option("--hub", help="CONFIG:SPLIT on the hub, as the head of this script shows."),
]
Repository = Annotated[str, typer.Option(help="Where on the hub.")]
Hours = Annotated[float | None, typer.Option(help="Stop at this much audio.")]

FromArchives = Callable[[list[Path], dict[str, str], list[str]], Iterable[Utterance]]
FromHub = Callable[[list[str]], Iterable[Utterance]]


def run_on(
    out: Path,
    corpus: str,
    archives: list[Path] | None,
    subsets: list[str] | None,
    hours: float | None,
    *,
    from_archives: FromArchives,
    from_hub: FromHub,
) -> None:
    """Prepares a corpus from archives or from the hub; exactly one of them has to be given."""
    if bool(archives) == bool(subsets):
        raise typer.BadParameter("give --archive or --hub, as often as needed")
    if archives:
        run(out, corpus, lambda texts, bad: from_archives(archives, texts, bad), hours)
    elif subsets:
        run(out, corpus, lambda *_: from_hub(subsets), hours)
