"""Train a codec: python train.py configs/NAME.yaml [section.key=value ...] [--resume]."""

import os
import sys
from typing import Annotated

from codec.errors import SottoError
from codec.extras import needing

try:
    with needing("torch"):
        import typer
        from rich.console import Console
except SottoError as error:
    sys.exit(f"error: {error}")

# OpenMP threads that spin while they wait take the cores from the processes that read audio.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def main(
    config: Annotated[str, typer.Argument(help="YAML that describes the run.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="section.key=value, applied last.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the run's last checkpoint.")
    ] = False,
) -> None:
    """Train a codec as a YAML file describes it."""
    console = Console(stderr=True)
    try:
        # Imported here so that --help and mistakes in the YAML do not wait for torch.
        with needing("torch"):
            from codec.config_files import load_config
        run = load_config(config, overrides or ())
        with needing("torch"):
            from codec.training.trainer import train

        folder = train(run, resume=resume, console=console)
    except (SottoError, OSError) as error:
        line = " ".join(str(error).splitlines())
        console.print(f"error: {line}", style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(1)
    models = [str(path) for path in (folder.best, folder.last) if path.exists()]
    if models and os.environ.get("RANK", "0") == "0":
        console.print(f"models: {', '.join(models)}", markup=False, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(main)
    app()
