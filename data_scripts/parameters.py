"""Parameters of voices (pitch, envelope, aperiodicity) of corpora, before training asks for them.

python -m data_scripts.parameters CORPUS... [--out FOLDER] [--jobs 8] [--sample-rate 16000]

Training makes those that are missing itself, but several processes that train together wait for
one of them then. Stopped and begun again, it goes on where it was.
"""

import logging
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.logging import RichHandler
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from codec.data.manifest import load_entries
from codec.data.targets import make_targets
from codec.errors import DataError, SottoError
from codec.nn.parameters import FRAMES_PER_SECOND


def main(
    corpora: Annotated[list[Path], typer.Argument(help="Folders of audio, or manifests.")],
    out: Annotated[
        Path | None, typer.Option(help="Where to keep them; none: beside each corpus.")
    ] = None,
    jobs: Annotated[int | None, typer.Option(min=1, help="Processes; none: all CPUs.")] = None,
    sample_rate: Annotated[int, typer.Option(help="Of the model, in Hz.")] = 16000,
) -> None:
    """Analyse the files that training and validation take; those of a `test` split are left out."""
    console = Console(stderr=True)
    logging.getLogger("codec").addHandler(
        RichHandler(console=console, show_path=False, show_time=False)
    )
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
    times = (TimeElapsedColumn(), TimeRemainingColumn())
    try:
        with Progress(*columns, *times, console=console) as progress:
            for corpus in corpora:
                entries = load_entries(corpus, progress=progress)
                entries = [entry for entry in entries if entry.split in (None, "train", "valid")]
                if not entries:
                    raise DataError(f"{corpus}: has no files of split train or valid")
                targets = make_targets(
                    entries, sample_rate=sample_rate, out=out, jobs=jobs, progress=progress
                )
                seconds = sum(targets.frames(path) for path in targets) / FRAMES_PER_SECOND
                console.print(f"{corpus}: {len(targets)} files, {seconds / 3600:.2f} h")
    except (SottoError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        print("stopped; what is made stays, and the next run goes on", file=sys.stderr)
        raise SystemExit(130) from None


if __name__ == "__main__":
    typer.run(main)
