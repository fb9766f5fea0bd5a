"""Options and arguments that several commands share."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from codec.errors import SottoError

# What is searched for in folders. Files that are named may be called anything.
AUDIO_ENDINGS = frozenset(
    (
        *(".wav", ".w64", ".flac", ".mp3", ".mp2", ".m4a", ".m4b", ".aac", ".ogg", ".oga", ".opus"),
        *(".wma", ".aif", ".aiff", ".aifc", ".au", ".caf", ".amr", ".ac3", ".mka"),
        *(".mp4", ".m4v", ".mkv", ".webm", ".mov", ".avi", ".mpg", ".mpeg", ".ts", ".3gp"),
    )
)
CODED_ENDINGS = frozenset({".sc"})


class Device(StrEnum):
    """Where the network runs."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"
    MPS = "mps"


class Layout(StrEnum):
    """What becomes of several channels."""

    MONO = "mono"
    KEEP = "keep"


class Ending(StrEnum):
    """Formats of audio that can be written."""

    WAV = "wav"
    FLAC = "flac"
    MP3 = "mp3"
    M4A = "m4a"
    OGG = "ogg"
    OPUS = "opus"


InAndOut = Annotated[
    list[Path],
    typer.Argument(
        metavar="IN... OUT",
        help="One file and the file to write; or several files and folders, and the folder to "
        "write to. - is stdin or stdout.",
        allow_dash=True,
        show_default=False,
    ),
]
Files = Annotated[
    list[Path], typer.Argument(metavar="FILE...", help="Files and folders.", show_default=False)
]
Model = Annotated[
    Path | None,
    typer.Option(help="A .safetensors file; else that in SOTTO_MODEL; else the one shipped."),
]
ModelAndFolder = Annotated[
    list[Path],
    typer.Argument(
        metavar="[MODEL] FOLDER",
        help="A .safetensors file, in place of --model; a folder of speech, or a manifest.",
        show_default=False,
    ),
]
Split = Annotated[str | None, typer.Option(help="Only this split of the manifest, such as test.")]
Where = Annotated[Device, typer.Option("--device", help="Where the network runs.")]
Jobs = Annotated[
    int | None,
    typer.Option(min=1, help="Processes; else one a core, if there are files enough."),
]
EditJobs = Annotated[int, typer.Option("--jobs", min=1, help="Processes.")]
Force = Annotated[bool, typer.Option("--force", help="Replace outputs that are there.")]
Strict = Annotated[bool, typer.Option("--strict", help="Refuse damaged files.")]
Kbps = Annotated[float | None, typer.Option(help="Bitrate of a channel.")]
Codebooks = Annotated[int | None, typer.Option(help="Codebooks, in place of --kbps.")]
Start = Annotated[float, typer.Option("--from", min=0, help="Seconds to leave out.")]
Stop = Annotated[float | None, typer.Option("--to", help="Where to end, in seconds.")]


def split_paths(paths: list[Path]) -> tuple[list[Path], Path]:
    """The inputs and the output of IN... OUT.

    Raises:
        typer.BadParameter: there is no output.
    """
    if len(paths) < 2:
        raise typer.BadParameter(f"OUT is missing: what should {paths[0]} become?")
    return paths[:-1], paths[-1]


def split_model(
    arguments: list[Path], model: Path | None, *, others: tuple[str, ...]
) -> tuple[Path | None, list[Path]]:
    """The model and the rest of [MODEL] OTHERS..., where --model may have named it too.

    Raises:
        typer.BadParameter: too few arguments, too many, or a model named twice.
    """
    named, rest = arguments[: -len(others)], arguments[-len(others) :]
    if len(rest) < len(others) or (not named and rest[0].suffix == ".safetensors"):
        missing = others[len(rest)] if len(rest) < len(others) else others[-1]
        raise typer.BadParameter(f"{missing} is missing beside {' '.join(map(str, arguments))}")
    if len(named) > 1:
        raise typer.BadParameter(f"expected [MODEL] {' '.join(others)}, got {len(arguments)} names")
    if named and model is not None:
        raise typer.BadParameter(f"two models are named, {named[0]} and {model}")
    return (named[0] if named else model), rest


def parse_rates(text: str, option: str) -> list[float]:
    """Bit rates in kbit/s from a list as 1.5,3.

    Raises:
        SottoError: it is none; the message names the option.
    """
    try:
        return [float(rate) for rate in text.split(",")]
    except ValueError:
        raise SottoError(
            f"{option} {text!r} is no list of kbps: separate numbers by commas, as 1.5,3"
        ) from None


def parse_passes(text: str, option: str) -> list[int]:
    """Numbers of passes, lowest first and each once, from a list as 2,5.

    Raises:
        SottoError: it is none, or has fewer than 2 in it; the message names the option.
    """
    try:
        passes = sorted({int(number) for number in text.split(",")})
    except ValueError:
        passes = []
    if not passes or passes[0] < 2:
        raise SottoError(f"{option} {text!r} is no list of whole numbers from 2 up, as 2,5")
    return passes


def check_rate(kbps: float | None, codebooks: int | None) -> None:
    """Refuses two rates.

    Raises:
        SottoError: both are given.
    """
    if kbps is not None and codebooks is not None:
        raise SottoError("--kbps and --codebooks say the same thing twice: give one of them")


def check_range(start: float, stop: float | None) -> None:
    """Refuses a stretch that is none.

    Raises:
        SottoError: it ends before it begins, or is no number.
    """
    if not 0 <= start < float("inf") or (stop is not None and not start < stop < float("inf")):
        raise SottoError(f"there is nothing from {start:g} s to {stop} s: --to comes after --from")
