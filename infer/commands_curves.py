"""The command `curves`."""

from pathlib import Path
from typing import Annotated

import typer

from infer.options import Force
from infer.planning import check_target
from infer.reporting import count


def curves(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder, as runs/NAME.")],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="The PNG to write.")],
    force: Force = False,
) -> None:
    """Draw the curves of a training run: losses, held-out scores, codebooks."""
    check_target(target, force=force)
    from codec.evaluation.figures import save_figure
    from codec.training.curves import curves_figure, read_curves

    found = read_curves(run)
    save_figure(curves_figure(found, run.resolve().name), target)
    last = max(int(curve.steps[-1]) for curve in found.values())
    typer.echo(f"{target}: {count(len(found), 'curve')}, up to step {last:,}")
