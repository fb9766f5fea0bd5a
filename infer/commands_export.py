"""The command `export`."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from codec.errors import SottoError
from codec.extras import needing
from infer.options import Force, Model, split_model


class Format(StrEnum):
    """What a model can be exported to."""

    ONNX = "onnx"


def export(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="[MODEL] OUT",
            help="A .safetensors file, in place of --model; the folder to make.",
            show_default=False,
        ),
    ],
    model: Model = None,
    format: Annotated[Format, typer.Option(help="Of the files.")] = Format.ONNX,
    int8: Annotated[
        bool, typer.Option("--int8", help="Add files in 8 bits; see --calibrate.")
    ] = False,
    calibrate: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Speech by which to choose the ranges of 8 bits."),
    ] = None,
    force: Force = False,
) -> None:
    """Write a model as ONNX files that run without PyTorch, checked against it."""
    model, (target,) = split_model(paths, model, others=("OUT",))
    if int8 != (calibrate is not None):
        raise SottoError("8 bits need speech to choose ranges by: --int8 --calibrate FOLDER")
    with needing("export"):
        from infer.export import export as write
        from infer.export_int8 import calibration_waves
    from infer.models import load_model

    codec = load_model(model)
    waves = [] if calibrate is None else calibration_waves(codec, calibrate)
    card = write(codec, target, calibration=waves, replace=force, report=typer.echo)
    kind = "streams and whole signals" if card.causal else "whole signals alone: it looks ahead"
    typer.echo(f"{target}: model {card.fingerprint} for {kind}")
