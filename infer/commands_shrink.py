"""The command `shrink`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from infer.options import Device, Split, Where, parse_rates
from infer.planning import check_target
from infer.reporting import show
from infer.scoring import CORES, Workers, counting

if TYPE_CHECKING:
    from codec.codec import Codec
    from codec.data.manifest import Entry


def shrink(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A .safetensors file.")],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="The smaller model to write.")],
    speech: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Speech to measure what it costs by; or a manifest."),
    ] = None,
    split: Split = None,
    bitrates: Annotated[
        str | None, typer.Option(metavar="KBPS,...", help="To measure at; else the model's own.")
    ] = None,
    workers: Workers = CORES,
    device: Where = Device.AUTO,
    force: Annotated[bool, typer.Option("--force", help="Replace OUT if it is there.")] = False,
) -> None:
    """Write a model with weights in half precision: half the size, and a fingerprint of its own."""
    check_target(target, force=force)
    from infer.models import load_model

    codec = load_model(model, device.value)
    rates = [codec.default_kbps] if bitrates is None else parse_rates(bitrates, "--bitrates")
    for rate in rates:
        codec.n_quantizers_for(rate)
    entries: list[Entry] | None = None
    if speech is not None:
        from codec.data.manifest import load_entries

        entries = load_entries(speech, split=split)
    half = codec.halved()
    before = model.stat().st_size  # OUT may take its place
    half.save(target)
    after = target.stat().st_size
    typer.echo(f"{model}: model {codec.fingerprint}, {before / 1e6:.2f} MB")
    typer.echo(
        f"{target}: model {half.fingerprint}, {after / 1e6:.2f} MB, "
        f"{half.n_parameters / 1e6:.2f} million numbers"
        + (", tables kept" if half.tables is not None else "")
    )
    if entries is not None:
        _compare(codec, half, entries, rates, workers)


def _compare(
    codec: "Codec", half: "Codec", entries: "Sequence[Entry]", rates: list[float], workers: int
) -> None:
    """Says what the smaller model costs."""
    from codec.evaluation.comparison import changed_codes, score_changes, score_table
    from codec.evaluation.report import evaluate

    evaluations = [
        evaluate(one, entries, kbps=rates, workers=workers, progress=True) for one in (codec, half)
    ]
    scored = {row.file for row in evaluations[0].rows}
    usable = [entry for entry in entries if str(entry.path) in scored]
    with counting("codes", len(usable)) as advance:
        shares = changed_codes(codec, half, usable, advance)
    losses = {"the model": codec.losses}
    title = "Change of scores ± half of its 95 % interval"
    show(score_table(score_changes(*evaluations), title, losses))
    listed = ", ".join(f"{share:.2%}" for share in shares)
    typer.echo(f"codes that differ, first codebook to last: {listed}")
