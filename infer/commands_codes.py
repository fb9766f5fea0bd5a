"""The command `codes`: many `.sc` files to one array of codes, and back."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO, cast

import typer

from codec.errors import SottoError
from infer.options import (
    CODED_ENDINGS,
    Codebooks,
    Device,
    Ending,
    Force,
    InAndOut,
    Model,
    Where,
    split_paths,
)
from infer.planning import check_target, named_inputs
from infer.reporting import duration, fail, files

if TYPE_CHECKING:
    from codec.codec import Codec
    from infer.bitstream import Header, Tables
    from infer.codes import Codes, Entry, Index


def codes(
    paths: InAndOut,
    codebooks: Annotated[
        int | None, typer.Option(min=1, help="Codebooks to keep; else all, equally many in each.")
    ] = None,
    format: Annotated[
        Ending | None, typer.Option(help="Back to audio of this format, in place of .sc files.")
    ] = None,
    restore: Annotated[
        bool, typer.Option("--restore", help="As for decode, of audio that is made.")
    ] = False,
    model: Model = None,
    device: Where = Device.AUTO,
    force: Force = False,
) -> None:
    """Codes of .sc files as one array for NumPy (OUT.npy and OUT.json); or IN.npy back to files."""
    sources, target = split_paths(paths)
    if len(sources) == 1 and sources[0].suffix.lower() == ".npy":
        _back(sources[0], target, format, model, device, restore=restore, force=force)
    else:
        _export(sources, target, codebooks, model, force=force)


def _export(
    sources: list[Path], target: Path, codebooks: Codebooks, model: Path | None, *, force: bool
) -> None:
    if target.suffix.lower() != ".npy":
        raise SottoError(f"{target} has the wrong ending: codes go to a .npy file")
    found = named_inputs(sources, endings=CODED_ENDINGS)
    from infer.batch import progress_bar
    from infer.codes import export_codes, index_path
    from infer.partial import remove_stale
    from infer.planning import Item

    outputs = (target, index_path(target))
    for path in outputs:
        check_target(path, force=force)
    remove_stale(outputs)
    items = [Item(source, target) for source, _ in found]
    with progress_bar("reading", items) as report:
        index, failed = export_codes(
            found,
            target,
            n_quantizers=codebooks,
            tables_for=_TablesOf(model),
            report=lambda number: report(number, 1.0),
        )
    seconds = index.frames * index.hop_length / index.sample_rate
    typer.echo(
        f"{target}: {index.frames:,} frames of {index.n_quantizers} codes, {duration(seconds)} in "
        f"{files(len(found) - len(failed))}"
    )
    if failed:
        fail(failed)


def _back(
    source: Path,
    target: Path,
    format: Ending | None,
    model: Path | None,
    device: Device,
    *,
    restore: bool,
    force: bool,
) -> None:
    from infer import codes as arrays

    if not source.is_file():
        raise SottoError(f"{source} is not there")
    if target.exists() and not target.is_dir():
        raise SottoError(f"{target} is a file: the files of an array need a folder to go to")
    index = arrays.read_index(source)
    array = arrays.open_codes(source, index)
    codec = None
    if format is not None:
        from infer.models import load_model

        codec = load_model(model, device.value)
    done, skipped, failed = 0, 0, []
    for name, entries in arrays.files_of(index).items():
        ending = ".sc" if format is None else f".{format.value}"
        path = (target / name).with_suffix(ending)
        if path.exists() and not force:
            skipped += 1
            continue
        try:
            _write_one(array, index, entries, path, codec, restore=restore)
            done += 1
        except SottoError as error:
            failed.append((path, str(error)))
    typer.echo(f"{target}: {files(done)} written")
    if skipped:
        typer.echo(f"{files(skipped)} skipped: there already (--force replaces)")
    if failed:
        fail(failed)


def _write_one(
    array: "Codes",
    index: "Index",
    entries: "list[Entry]",
    path: Path,
    codec: "Codec | None",
    *,
    restore: bool,
) -> None:
    from infer import codes as arrays
    from infer.partial import remove_stale, writing

    remove_stale([path])
    if codec is None:
        with writing(path) as file:
            arrays.write_sc(cast(BinaryIO, file), array, index, entries)
    else:
        from infer.files import decode_file

        decode_file(codec, arrays.sc_in_memory(array, index, entries), path, restore=restore)


class _TablesOf:
    """Gives the tables of a compact file: of the model, which is loaded when one is met."""

    def __init__(self, model: Path | None) -> None:
        self._model = model
        self._codec: Codec | None = None

    def __call__(self, header: "Header") -> "Tables | None":
        from infer.models import load_model

        self._codec = self._codec or load_model(self._model)
        return self._codec.tables
