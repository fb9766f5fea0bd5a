"""The command `usage`."""

from pathlib import Path
from typing import Annotated

import typer

from infer.options import Device, Model, ModelAndFolder, Split, Where, split_model
from infer.planning import check_target
from infer.reporting import show


def usage(
    paths: ModelAndFolder,
    model: Model = None,
    split: Split = None,
    hours: Annotated[float, typer.Option(min=0.0, help="Of speech, at most.")] = 4.0,
    plot: Annotated[Path | None, typer.Option(help="Draw it too, as PNG.")] = None,
    device: Where = Device.AUTO,
    force: Annotated[bool, typer.Option("--force", help="Replace a plot that is there.")] = False,
) -> None:
    """Show how evenly speech uses the rows of each codebook."""
    model, (folder,) = split_model(paths, model, others=("FOLDER",))
    if plot is not None:
        check_target(plot, force=force)
    from rich.console import Console
    from rich.progress import Progress

    from codec.data.manifest import load_entries
    from codec.evaluation.figures import save_figure
    from codec.evaluation.usage import codebook_usage, usage_figure, usage_table
    from infer.models import load_model
    from infer.tables import corpus_codes

    codec = load_model(model, device.value)
    entries = load_entries(folder, split=split)
    with Progress(console=Console(stderr=True), transient=True) as progress:
        codes = corpus_codes(codec, entries, seconds=3600 * hours, progress=progress)
    usages = codebook_usage(codes, codec.codebook_size)
    show(usage_table(usages))
    if plot is not None:
        save_figure(usage_figure(usages), plot)
