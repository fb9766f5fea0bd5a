"""The command `report`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from infer.options import (
    Device,
    Force,
    Model,
    ModelAndFolder,
    Split,
    Where,
    parse_rates,
    split_model,
)
from infer.reporting import show
from infer.scoring import (
    CORES,
    Metrics,
    Opus,
    Whisper,
    Workers,
    counting,
    opus_beside,
    parse_metrics,
)

if TYPE_CHECKING:
    from codec.codec import Codec


def report(
    paths: ModelAndFolder,
    target: Annotated[
        Path, typer.Option("--out", metavar="FOLDER", help="To make; a browser opens index.html.")
    ],
    model: Model = None,
    split: Split = None,
    clips: Annotated[int, typer.Option(min=1, help="Recordings to listen to.")] = 8,
    bitrates: Annotated[
        str, typer.Option("--bitrates", "--kbps", metavar="KBPS,...", help="Of the model.")
    ] = "1.5,3,4",
    opus: Opus = "6,8,12",
    metrics: Metrics = None,
    whisper: Whisper = None,
    workers: Workers = CORES,
    device: Where = Device.AUTO,
    force: Force = False,
) -> None:
    """Make a page to listen to a model beside Opus: audio, spectrograms and scores."""
    model, (speech,) = split_model(paths, model, others=("FOLDER",))
    from codec.data.manifest import load_entries
    from codec.evaluation.contenders import ModelAtRates
    from codec.evaluation.report import evaluate
    from infer.listening import check_page, choose_clips, write_page
    from infer.models import load_model

    check_page(target, replace=force)
    codec = load_model(model, device.value)
    rates = parse_rates(bitrates, "--bitrates")
    names = parse_metrics(metrics, whisper)
    beside = opus_beside(opus, codec.sample_rate)
    contenders = [ModelAtRates(codec, rates), *beside]
    entries = load_entries(speech, split=split)
    evaluation = evaluate(
        codec,
        entries,
        kbps=rates,
        beside=beside,
        metrics=names,
        whisper=whisper,
        workers=workers,
        progress=True,
    )
    chosen = choose_clips(evaluation, clips)
    with counting("clips", len(chosen)) as advance:
        write_page(
            target,
            evaluation,
            contenders,
            chosen,
            sample_rate=codec.sample_rate,
            title="Sotto, a page to listen to",
            about=_about(codec, speech, split),
            replace=force,
            report=advance,
        )
    show(evaluation.table())
    typer.echo(f"{target / 'index.html'}: {len(chosen)} recordings to listen to")


def _about(codec: "Codec", speech: Path, split: str | None) -> str:
    name = speech.resolve().name
    files = f"the {split} files of {name}" if split else f"files of {name}"
    return (
        f"Model {codec.fingerprint}, {codec.n_parameters / 1e6:.1f} million numbers, "
        f"{codec.sample_rate / 1000:g} kHz, on {files}."
    )
