"""The commands `evaluate`, `tables` and `schema`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from codec.errors import SottoError
from infer.options import (
    Device,
    Model,
    ModelAndFolder,
    Split,
    Where,
    parse_passes,
    parse_rates,
    split_model,
)
from infer.planning import check_target
from infer.reporting import show
from infer.scoring import CORES, Metrics, Opus, Whisper, Workers, opus_beside, parse_metrics

if TYPE_CHECKING:
    from rich.table import Table

    from codec.evaluation.results import Evaluation


def evaluate(
    paths: ModelAndFolder,
    model: Model = None,
    bitrates: Annotated[
        str | None, typer.Option(metavar="KBPS,...", help="As 1.5,3; else the model's own.")
    ] = None,
    opus: Opus = None,
    metrics: Metrics = None,
    whisper: Whisper = None,
    tandem: Annotated[
        str | None,
        typer.Option(metavar="TIMES,...", help="Encode and decode so often too, as 2,5."),
    ] = None,
    split: Split = None,
    csv: Annotated[Path | None, typer.Option(help="Write the scores of every file.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw quality over rate, as PNG.")] = None,
    against: Annotated[
        Path | None,
        typer.Option(metavar="CSV", help="Compare with what --csv wrote of another model."),
    ] = None,
    workers: Workers = CORES,
    device: Where = Device.AUTO,
    force: Annotated[bool, typer.Option("--force", help="Replace files that are there.")] = False,
) -> None:
    """Score a model by judges of your choice at each bitrate, perhaps beside Opus."""
    model, (folder,) = split_model(paths, model, others=("FOLDER",))
    for target in (csv, plot):
        if target is not None:
            check_target(target, force=force)
    from infer.models import load_model

    codec = load_model(model, device.value)
    rates = [codec.default_kbps] if bitrates is None else parse_rates(bitrates, "--bitrates")
    for rate in rates:
        codec.n_quantizers_for(rate)  # an impossible one is refused before the folder is read
    names = parse_metrics(metrics, whisper)
    passes = [] if tandem is None else parse_passes(tandem, "--tandem")
    from codec.data.manifest import load_entries
    from codec.evaluation.report import evaluate as score
    from codec.evaluation.score_files import read_scores, write_scores

    earlier = None if against is None else read_scores(against)
    beside = opus_beside(opus, codec.sample_rate)
    entries = load_entries(folder, split=split)
    evaluation = score(
        codec,
        entries,
        kbps=rates,
        beside=beside,
        tandem=passes,
        metrics=names,
        whisper=whisper,
        workers=workers,
        progress=True,
    )
    show(evaluation.table())
    if csv is not None:
        write_scores(evaluation, csv)
    if earlier is not None and against is not None:
        show(_compared(earlier, evaluation, against))
    if plot is not None:
        evaluation.plot(plot)


def _compared(earlier: "Evaluation", evaluation: "Evaluation", path: Path) -> "Table":
    """How this model's scores differ from those of a file.

    Raises:
        SottoError: they have nothing in common.
    """
    from codec.evaluation.comparison import score_changes, score_table

    try:
        changes = score_changes(earlier, evaluation)
    except SottoError as error:
        raise SottoError(f"{path}: {error}") from None
    losses = {"before": earlier.losses, "after": evaluation.losses}
    title = f"Against {path.name}: change ± half of its 95 % interval"
    return score_table(changes, title, losses)


def tables(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="[MODEL] FOLDER OUT",
            help="A .safetensors file, in place of --model; a folder of speech, or a manifest; "
            "the model with its tables.",
            show_default=False,
        ),
    ],
    model: Model = None,
    split: Split = None,
    hours: Annotated[float, typer.Option(min=0.0, help="Of speech, at most.")] = 4.0,
    device: Where = Device.AUTO,
    force: Annotated[bool, typer.Option("--force", help="Replace OUT if it is there.")] = False,
) -> None:
    """Learn from speech what --compact needs, and keep it in the model file."""
    model, (folder, target) = split_model(paths, model, others=("FOLDER", "OUT"))
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
