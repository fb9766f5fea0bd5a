"""The commands `encode` and `decode`."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from codec.errors import SottoError
from infer.options import (
    AUDIO_ENDINGS,
    CODED_ENDINGS,
    Codebooks,
    Device,
    Ending,
    Force,
    InAndOut,
    Jobs,
    Kbps,
    Layout,
    Model,
    Start,
    Stop,
    Strict,
    Where,
    check_range,
    check_rate,
    split_paths,
)
from infer.planning import Item, Plan, plan_outputs
from infer.reporting import finish
from infer.workers import Report, Work

if TYPE_CHECKING:
    from codec.codec import Codec
    from infer.conversion import Conversion


def encode(
    paths: InAndOut,
    model: Model = None,
    kbps: Kbps = None,
    codebooks: Codebooks = None,
    channels: Annotated[
        Layout, typer.Option(help="Mix channels down, or keep each as one of its own.")
    ] = Layout.MONO,
    compact: Annotated[
        bool, typer.Option("--compact", help="Smaller files, by the model's probability tables.")
    ] = False,
    block: Annotated[
        float, typer.Option(metavar="SECONDS", help="How much shares a checksum.")
    ] = 1.0,
    normalize: Annotated[
        bool,
        typer.Option(help="Bring the file to the loudness the model was trained at (never stdin)."),
    ] = True,
    strict: Strict = False,
    device: Where = Device.AUTO,
    jobs: Jobs = None,
    force: Force = False,
) -> None:
    """Encode audio, or the sound of videos, to .sc files."""
    check_rate(kbps, codebooks)
    sources, target = split_paths(paths)
    plan = plan_outputs(sources, target, endings=AUDIO_ENDINGS, ending=".sc", force=force)
    codec, path = _load(model, device)
    if codebooks is None:
        codebooks = codec.n_quantizers_for(codec.default_kbps if kbps is None else kbps)
    codec.kbps(codebooks)
    if compact and codec.tables is None:
        raise SottoError(f"{path} has no probability tables: it makes no compact files")
    from infer.files import encode_file
    from infer.intake import TRAINED_LUFS

    options = {
        "n_quantizers": codebooks,
        "channels": channels.value,
        "compact": compact,
        "block_seconds": block,
        "target_lufs": TRAINED_LUFS if normalize else None,
        "strict": strict,
    }
    start = ByModel(encode_file, path, device.value, options, codec)
    _run(plan, start, doing="encoding", did="encoded", jobs=jobs, force=force)


def decode(
    paths: InAndOut,
    model: Model = None,
    restore: Annotated[
        bool,
        typer.Option("--restore", help="The source's rate, length, loudness and channels."),
    ] = False,
    format: Annotated[
        Ending | None, typer.Option(help="Of outputs in a folder, and of stdout.")
    ] = None,
    start: Start = 0.0,
    stop: Stop = None,
    strict: Strict = False,
    device: Where = Device.AUTO,
    jobs: Jobs = None,
    force: Force = False,
) -> None:
    """Decode .sc files to audio: wav, flac, mp3, m4a, ogg or opus by the ending."""
    check_range(start, stop)
    sources, target = split_paths(paths)
    ending = f".{(format or Ending.WAV).value}"
    plan = plan_outputs(
        sources,
        target,
        endings=CODED_ENDINGS,
        ending=ending,
        writable=[f".{one.value}" for one in Ending],
        force=force,
    )
    codec, path = _load(model, device)
    from infer.files import decode_file

    options = {
        "restore": restore,
        "start": start,
        "stop": stop,
        "format": None if format is None else format.value,
        "strict": strict,
    }
    work = ByModel(decode_file, path, device.value, options, codec)
    _run(plan, work, doing="decoding", did="decoded", jobs=jobs, force=force)


@dataclass
class ByModel:
    """Starts work that a model does: in this process by the one loaded, in others by their own.

    Attributes:
        convert: takes a codec, a source, a target, these options and `report`.
        model: file to load where `codec` is not there.
        device: to load it on.
        options: of `convert`.
        codec: does not travel to other processes.
    """

    convert: Callable[..., "Conversion"]
    model: Path
    device: str
    options: dict[str, Any]
    codec: "Codec | None" = field(default=None, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "codec": None}

    def __call__(self) -> Work[Item, "Conversion"]:
        """Loads the model, if need be, and gives what converts a file."""
        from infer.models import load_model

        codec = self.codec or load_model(self.model, self.device)

        def convert(item: Item, report: Report) -> "Conversion":
            return self.convert(codec, item.source, item.target, report=report, **self.options)

        return convert


def _load(model: Path | None, device: Device) -> tuple["Codec", Path]:
    from infer.models import find_model, load_model

    path = find_model(model)
    return load_model(path, device.value), path


def _run(
    plan: Plan, start: ByModel, *, doing: str, did: str, jobs: int | None, force: bool
) -> None:
    from infer.batch import run

    if start.codec is not None and start.codec.device.type != "cpu" and jobs is None:
        jobs = 1  # processes would share the one device
    finish(run(plan, start, doing=doing, jobs=jobs, force=force), did=did)
