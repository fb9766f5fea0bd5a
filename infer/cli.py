"""The command line, `sotto`: encode, decode, info, evaluate, schema.

What goes wrong with an input ends in one line on stderr and exit code 1 (2 for a command typed
wrongly, 130 for Ctrl-C). torch is imported by the commands that need it, so that help is quick.
"""

import errno
import io
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from codec.errors import SottoError

if TYPE_CHECKING:
    from codec.codec import Codec
    from infer.files import Conversion


class Commands(TyperGroup):
    """A group of commands that turns the errors of users and systems into one line."""

    def invoke(self, ctx: Any) -> Any:
        """Runs the command; raises typer.Exit for what is no bug."""
        try:
            return super().invoke(ctx)
        except SottoError as error:
            message, code = str(error), 1
        except OSError as error:
            if error.errno == errno.EPIPE:  # the reader went away, as `head` does
                raise
            message, code = _system_error(error), 1
        except KeyboardInterrupt:
            message, code = "interrupted", 130
        typer.echo("error: " + " ".join(message.splitlines()), err=True)
        raise typer.Exit(code)


app = typer.Typer(
    cls=Commands,
    help="Sotto, a speech codec: audio to a few kilobits per second and back.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Model = Annotated[
    Path | None,
    typer.Option(envvar="SOTTO_MODEL", help="The model: a .safetensors file."),
]
_CORES = os.cpu_count() or 1
Force = Annotated[bool, typer.Option("--force", help="Replace OUT if it is there.")]


@app.command()
def encode(
    source: Annotated[Path, typer.Argument(metavar="IN", help="Audio, or the sound of a video.")],
    target: Annotated[Path, typer.Argument(metavar="OUT.sc", help="The encoded file.")],
    model: Model = None,
    kbps: Annotated[float | None, typer.Option(help="Bitrate; else the model's own.")] = None,
    codebooks: Annotated[int | None, typer.Option(help="Codebooks, in place of --kbps.")] = None,
    force: Force = False,
) -> None:
    """Encode an audio file."""
    if kbps is not None and codebooks is not None:
        raise SottoError("--kbps and --codebooks say the same thing twice: give one of them")
    _check_paths(source, target, ending=".sc", force=force)
    codec = _load(model)
    from infer.files import encode_file

    n_quantizers = codebooks
    if n_quantizers is None:
        n_quantizers = codec.n_quantizers_for(codec.default_kbps if kbps is None else kbps)
    done = encode_file(codec, source, target, n_quantizers=n_quantizers)
    ratio = done.source_bytes / done.target_bytes
    _report(
        target,
        codec,
        done,
        f"{done.target_bytes:,} bytes, {ratio:.1f} times smaller than the {done.source_bytes:,} "
        f"of {source}",
    )


@app.command()
def decode(
    source: Annotated[Path, typer.Argument(metavar="IN.sc", help="The encoded file.")],
    target: Annotated[Path, typer.Argument(metavar="OUT.wav", help="The audio.")],
    model: Model = None,
    force: Force = False,
) -> None:
    """Decode a .sc file to WAV."""
    _check_paths(source, target, ending=".wav", force=force)
    codec = _load(model)
    from infer.files import decode_file

    done = decode_file(codec, source, target)
    _report(target, codec, done, f"{done.target_bytes:,} bytes from the {done.source_bytes:,}")


@app.command()
def info(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A .sc file, a model, or audio.")],
    model: Model = None,
) -> None:
    """Say what a file is: encoded, a model, or audio."""
    with open(file, "rb") as stream:
        start = stream.read(9)
    from infer.bitstream import is_sc

    if is_sc(start):
        rows = _rows_of_encoded(file, model)
    elif start[8:] == b"{":  # safetensors: the length of a JSON header in 8 bytes, then the header
        rows = _rows_of_model(file)
    else:
        rows = _rows_of_audio(file)
    from rich.table import Table

    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for row in [("file", str(file)), *rows, ("bytes", f"{file.stat().st_size:,}")]:
        table.add_row(*row)
    _print(table)


@app.command()
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
    force: Annotated[bool, typer.Option("--force", help="Replace files that are there.")] = False,
) -> None:
    """Score a model: PESQ, STOI and mel distance at each bitrate."""
    for target in (csv, plot):
        if target is not None:
            _check_target(target, force=force)
    codec = _load(model)
    rates = [codec.default_kbps] if bitrates is None else _parse_rates(bitrates)
    for rate in rates:
        codec.n_quantizers_for(rate)  # an impossible one is refused before the folder is read
    from codec.data.manifest import load_entries
    from codec.evaluation import report

    entries = load_entries(folder, split=split)
    evaluation = report.evaluate(codec, entries, kbps=rates, workers=workers, progress=True)
    _print(evaluation.table())
    if csv is not None:
        evaluation.write_csv(csv)
    if plot is not None:
        evaluation.plot(plot)


@app.command()
def schema() -> None:
    """Print the JSON schema of a training configuration, for an editor to check YAML by."""
    import json

    from codec.config import json_schema

    typer.echo(json.dumps(json_schema(), indent=2))


def main() -> None:
    """Entry of the console script."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name that the terminal lacks letters for
            stream.reconfigure(errors="backslashreplace")
    app()


def _load(model: Path | None) -> "Codec":
    """Loads the model named by --model or SOTTO_MODEL."""
    if model is None:
        raise SottoError("no model: name one with --model FILE, or in SOTTO_MODEL")
    from codec.codec import Codec

    return Codec.load(model)


def _check_paths(source: Path, target: Path, *, ending: str, force: bool) -> None:
    """Refuses, before any work, paths that cannot be what they should."""
    if not source.exists():
        raise SottoError(f"{source} is not there")
    if source.is_dir():
        raise SottoError(f"{source} is a folder: name a file")
    if target.exists() and target.samefile(source):
        raise SottoError(f"{target} is the input: give the output another name")
    _check_target(target, force=force)
    if target.suffix.lower() != ending:
        raise SottoError(f"{target} has the wrong ending: this command writes {ending} files")


def _check_target(target: Path, *, force: bool) -> None:
    """Refuses, before any work, an output that cannot or should not be written."""
    if target.is_dir():
        raise SottoError(f"{target} is a folder: name a file to write")
    if target.exists() and not force:
        raise SottoError(f"{target} is there already: --force replaces it")
    if not target.parent.is_dir():
        raise SottoError(f"{target} cannot be written: there is no folder {target.parent}")


def _parse_rates(text: str) -> list[float]:
    try:
        return [float(rate) for rate in text.split(",")]
    except ValueError:
        raise SottoError(
            f"--bitrates {text!r} is no list of kbps: separate numbers by commas, as 1.5,3"
        ) from None


def _report(target: Path, codec: "Codec", done: "Conversion", sizes: str) -> None:
    """Prints what became of a file."""
    typer.echo(f"{target}: {sizes}")
    typer.echo(
        f"{done.seconds:.2f} s of audio at {codec.kbps(done.n_quantizers):g} kbps "
        f"({done.n_quantizers} of {codec.n_quantizers} codebooks), in {done.elapsed:.2f} s: "
        f"{done.speed:.1f} times real time"
    )


def _rows_of_encoded(file: Path, model: Path | None) -> list[tuple[str, str]]:
    from infer.bitstream import read_header

    with open(file, "rb") as stream:
        header = read_header(stream)
    size = file.stat().st_size
    rows = [
        ("kind", f"encoded speech, .sc version {header.version}"),
        ("frames", f"{header.frames:,}"),
        ("codebooks", f"{header.n_quantizers} of {header.bits} bits"),
        ("model", header.fingerprint),
    ]
    if model is None:
        rows.append(("duration", "known to the model only: name it with --model"))
    elif (codec := _load(model)).fingerprint == header.fingerprint:
        rows.append(("duration", f"{header.frames / codec.frame_rate:.2f} s"))
        rows.append(("bitrate", f"{codec.kbps(header.n_quantizers):g} kbps"))
    else:
        rows.append(("duration", f"unknown: {model} is another model, {codec.fingerprint}"))
    if size != header.file_bytes:
        held = header.frames_in(size)
        state = (
            f"holds {held:,} of {header.frames:,} frames"
            if size < header.file_bytes
            else (f"has {size - header.file_bytes:,} bytes too many")
        )
        rows.append(("damaged", state))
    return rows


def _rows_of_model(file: Path) -> list[tuple[str, str]]:
    codec = _load(file)
    lowest, highest = codec.kbps(1), codec.kbps(codec.n_quantizers)
    return [
        ("kind", "model"),
        ("fingerprint", codec.fingerprint),
        ("parameters", f"{codec.n_parameters:,}"),
        ("sample rate", f"{codec.sample_rate:,} Hz"),
        ("frames", f"{codec.frame_rate:g} a second, of {codec.hop_length} samples"),
        ("codebooks", f"{codec.n_quantizers} of {codec.codebook_size} entries"),
        ("bitrates", f"{lowest:g} to {highest:g} kbps, {codec.default_kbps:g} by default"),
    ]


def _rows_of_audio(file: Path) -> list[tuple[str, str]]:
    from codec.audio import probe

    found = probe(file)
    duration = "unknown" if found.seconds is None else f"{found.seconds:.2f} s"
    return [
        ("kind", f"audio, {found.codec}"),
        ("duration", duration),
        ("sample rate", f"{found.sample_rate:,} Hz"),
        ("channels", str(found.channels)),
    ]


def _print(renderable: Any) -> None:
    """Prints with rich, taking file names as they are, brackets and colons included."""
    from rich.console import Console

    Console(markup=False, emoji=False, highlight=False).print(renderable)


def _system_error(error: OSError) -> str:
    """What the system says, the file first: `out.sc: No space left on device`."""
    reason = error.strerror or str(error) or type(error).__name__
    return reason if error.filename is None else f"{error.filename}: {reason}"
