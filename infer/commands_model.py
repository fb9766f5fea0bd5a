"""The commands `evaluate`, `tables` and `schema`."""

import os
from pathlib import Path
from typing import Annotated

import typer

from codec.errors import SottoError
from infer.options import Device, Where
from infer.planning import check_target
from infer.reporting import show

_CORES = os.cpu_count() or 1


def evaluate(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A .safetensors file.")],
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="A folder of audio, or a manifest.")
    ],
    bitrates: Annotated[
        str | None, typer.Option(metavar="KBPS,...", help="As 1.5,3; else the model's own.")
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="Only this split of the manifest, such as test.")
    ] = None,
    csv: Annotated[Path | None, typer.Option(help="Write the scores of every file.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw quality over rate, as PNG.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes that score.")] = _CORES,
    device: Where = Device.AUTO,
    force: Annotated[bool, typer.Option("--force", help="Replace files that are there.")] = False,
) -> None:
    """Score a model: PESQ, STOI and mel distance at each bitrate."""
    for target in (csv, plot):
        if target is not None:
            check_target(target, force=force)
    from infer.models import load_model

    codec = load_model(model, device.value)
    rates = [codec.default_kbps] if bitrates is None else _parse_rates(bitrates)
    for rate in rates:
        codec.n_quantizers_for(rate)  # an impossible one is refused before the folder is read
    from codec.data.manifest import load_entries
    from codec.evaluation import report

    entries = load_entries(folder, split=split)
    evaluation = report.evaluate(codec, entries, kbps=rates, workers=workers, progress=True)
    show(evaluation.table())
    if csv is not None:
        evaluation.write_csv(csv)
    if plot is not None:
        evaluation.plot(plot)


def tables(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A .safetensors file.")],
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="A folder of speech, or a manifest.")
    ],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="The model with its tables.")],
    split: Annotated[
        str | None, typer.Option(help="Only this split of the manifest, such as train.")
    ] = None,
    hours: Annotated[float, typer.Option(min=0.0, help="Of speech, at most.")] = 4.0,
    device: Where = Device.AUTO,
    force: Annotated[bool, typer.Option("--force", help="Replace OUT if it is there.")] = False,
) -> None:
    """Learn from speech what --compact needs, and keep it in the model file."""
    check_target(target, force=force)
    from rich.console import Console
    from rich.progress import Progress

    from codec.data.manifest import load_entries
    from infer import tables as learning
    from infer.models import load_model

    codec = load_model(model, device.value)
    entries = load_entries(folder, split=split)
    with Progress(console=Console(stderr=True)) as progress:
        codes = learning.corpus_codes(codec, entries, seconds=3600 * hours, progress=progress)
        learnt = learning.learn_for(codec, codes, progress=progress)
    learning.save_with(codec, learnt, target)
    size = sum(array.nbytes for array in learnt.tensors().values())
    typer.echo(f"{target}: model {codec.fingerprint} with tables of {size / 1e6:.2f} MB")


def schema() -> None:
    """Print the JSON schema of a training configuration, for an editor to check YAML by."""
    import json

    from codec.config import json_schema

    typer.echo(json.dumps(json_schema(), indent=2))


def _parse_rates(text: str) -> list[float]:
    try:
        return [float(rate) for rate in text.split(",")]
    except ValueError:
        raise SottoError(
            f"--bitrates {text!r} is no list of kbps: separate numbers by commas, as 1.5,3"
        ) from None
