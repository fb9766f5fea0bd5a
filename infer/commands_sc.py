"""The commands `trim`, `cut`, `verify` and `info`: what is done to `.sc` files as they are."""

import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

import typer

from codec.errors import SottoError
from infer.describing import file_rows
from infer.options import (
    AUDIO_ENDINGS,
    CODED_ENDINGS,
    Codebooks,
    EditJobs,
    Files,
    Force,
    InAndOut,
    Kbps,
    Model,
    Start,
    Stop,
    check_range,
    check_rate,
    split_paths,
)
from infer.planning import Item, named_inputs, plan_outputs
from infer.reporting import count, duration, fail, finish, show
from infer.workers import Failure, Report, Work, system_error, work_through

_CARD = "card.json"  # makes a folder an export

if TYPE_CHECKING:
    from codec.codec import Codec
    from infer.bitstream import Header
    from infer.blocks import Tables
    from infer.conversion import Conversion
    from infer.edit import Edited


def trim(
    paths: InAndOut,
    kbps: Kbps = None,
    codebooks: Codebooks = None,
    model: Model = None,
    jobs: EditJobs = 1,
    force: Force = False,
) -> None:
    """Lower the bitrate of .sc files by dropping codebooks. Only compact files need the model."""
    check_rate(kbps, codebooks)
    if kbps is None and codebooks is None:
        raise SottoError("say what to keep, by --kbps or --codebooks")
    _edit(paths, partial(_trim, kbps, codebooks), model, jobs, did="trimmed", force=force)


def cut(
    paths: InAndOut,
    start: Start = 0.0,
    stop: Stop = None,
    model: Model = None,
    jobs: EditJobs = 1,
    force: Force = False,
) -> None:
    """Take a piece of .sc files, to whole frames. Only compact files need the model."""
    check_range(start, stop)
    _edit(paths, partial(_cut, start, stop), model, jobs, did="cut", force=force)


def verify(paths: Files, jobs: EditJobs = 1) -> None:
    """Check every block of .sc files, without a model; exit code 1 if anything is wrong."""
    from infer.batch import progress_bar
    from infer.streams import input_name

    items = [Item(path, path) for path, _ in named_inputs(paths, endings=CODED_ENDINGS)]
    found: dict[int, _Verified | Failure] = {}
    with progress_bar("verifying", items) as report:
        for number, result in work_through(_verifier, items, jobs=jobs, report=report):
            found[number] = result
            report(number, 1.0)
    failed: list[tuple[Path, str]] = []
    for number, item in enumerate(items):
        name, result = input_name(item.source), found[number]
        if isinstance(result, Failure):
            failed.append((Path(name), result.reason))
        else:
            typer.echo(f"{name}: {result.state}")
            failed += [(Path(name), line) for line in result.wrong]
    if failed:
        fail(failed)


def info(paths: Files, model: Model = None) -> None:
    """Say what files are: encoded, a model, the card.json of an export, or audio."""
    from infer.streams import input_name, open_seekable_input

    paths = [path / _CARD if (path / _CARD).is_file() else path for path in paths]
    endings = AUDIO_ENDINGS | CODED_ENDINGS | {".safetensors"}
    failed: list[tuple[Path, str]] = []
    for path, _ in named_inputs(paths, endings=endings):
        try:
            with open_seekable_input(path) as file:
                rows = file_rows(file, path, model)
                size = file.seek(0, os.SEEK_END)
        except SottoError as error:
            failed.append((Path(input_name(path)), str(error)))
        except OSError as error:
            failed.append((Path(input_name(path)), system_error(error)))
        else:
            _show_rows([("file", input_name(path)), *rows, ("bytes", f"{size:,}")])
    if failed:
        fail(failed)


@dataclass(frozen=True)
class _Verified:
    """What is to be said of a file: how it is in short, and what is wrong with it."""

    state: str
    wrong: list[str]


def _verifier() -> Work[Item, _Verified]:
    return _verify


def _verify(item: Item, report: Report) -> _Verified:
    from infer.edit import verify as check
    from infer.streams import open_seekable_input

    with open_seekable_input(item.source) as file:
        found = check(file)
    wrong = [damage.describe(found.header.frame_rate) for damage in found.damaged]
    if not (found.complete or wrong):
        wrong.append("it is cut: its end is missing")
    if found.seconds is None:
        held = count(found.header.frames or 0, "frame")
    else:
        held = duration(found.seconds)
    what = "version 0, which has no checksums" if found.header.version == 0 else "whole"
    state = "damaged" if wrong else what
    return _Verified(f"{state}, {count(found.blocks, 'block')}, {held}", wrong)


@dataclass
class _Editing:
    """Starts the editing of `.sc` files; a model is loaded when one needs it."""

    change: Callable[["_Source", BinaryIO], "Edited"]
    model: Path | None

    def __call__(self) -> Work[Item, "Conversion"]:
        from infer.conversion import Conversion
        from infer.streams import input_name, open_output, open_seekable_input, size_of

        models = _Models(self.model)

        def convert(item: Item, report: Report) -> Conversion:
            started, name = time.perf_counter(), input_name(item.source)
            with open_seekable_input(item.source) as file, open_output(item.target) as output:
                source = _Source(file, name, models)
                edited = self.change(source, cast(BinaryIO, output))
                written = output.written
            header = edited.header
            rate = source.header.frame_rate
            return Conversion(
                seconds=header.seconds or 0.0,
                frames=header.frames or 0,
                n_quantizers=header.n_quantizers,
                source_bytes=size_of(item.source),
                target_bytes=size_of(item.target, written),
                elapsed=time.perf_counter() - started,
                kbps=header.kbps or 0.0,
                channels=header.channels,
                gain_db=header.gain_db,
                warnings=tuple(f"{name}: {damage.describe(rate)}" for damage in edited.damage),
            )

        return convert


class _Models:
    """The model named, loaded when it is first needed."""

    def __init__(self, named: Path | None) -> None:
        self._named = named
        self._codec: Codec | None = None

    def made(self, header: "Header", name: str) -> "Codec":
        """The model, if it is the one that made a file.

        Raises:
            SottoError: none is there, or another.
        """
        from infer.files import check_made_by
        from infer.models import load_model

        self._codec = self._codec or load_model(self._named)
        check_made_by(self._codec, header, name)
        return self._codec


class _Source:
    """An open `.sc` file to be edited, and what its model knows of it."""

    def __init__(self, file: BinaryIO, name: str, models: _Models) -> None:
        from infer.bitstream import Reader

        self.file, self.name, self._models = file, name, models
        reader = Reader(file)
        self.header, self.frames = reader.header, reader.frames
        file.seek(0)

    @property
    def frame_rate(self) -> float:
        """Frames a second."""
        known = self.header.frame_rate
        return known or self._models.made(self.header, self.name).frame_rate

    @property
    def tables(self) -> "Tables | None":
        """Of a compact file."""
        if not self.header.compact:
            return None
        return self._models.made(self.header, self.name).tables


def _trim(kbps: float | None, codebooks: int | None, source: _Source, target: BinaryIO) -> "Edited":
    from infer import edit

    there = source.header.n_quantizers
    if codebooks is None:
        each = source.frame_rate * source.header.bits / 1000
        rates = {n: n * each for n in range(1, there + 1)}
        fitting = [n for n, rate in rates.items() if math.isclose(rate, kbps or 0, rel_tol=1e-3)]
        if not fitting:
            possible = ", ".join(f"{rate:g}" for rate in rates.values())
            raise SottoError(
                f"{source.name} cannot be trimmed to {kbps:g} kbps; possible: {possible}"
            )
        codebooks = fitting[0]
    if not 1 <= codebooks <= there:
        raise SottoError(f"{source.name} has {there} codebooks: {codebooks} cannot be kept")
    return edit.trim(source.file, target, codebooks, tables=source.tables)


def _cut(start: float, stop: float | None, source: _Source, target: BinaryIO) -> "Edited":
    from infer import edit

    rate = source.frame_rate
    first = math.floor(start * rate + 1e-6)
    last = None if stop is None else math.ceil(stop * rate - 1e-6)
    if source.frames is not None and first >= source.frames:
        raise SottoError(
            f"{source.name} ends at {source.frames / rate:.2f} s: there is nothing from "
            f"{start:g} s on"
        )
    return edit.cut(source.file, target, first, last, tables=source.tables)


def _edit(
    paths: list[Path],
    change: Callable[..., "Edited"],
    model: Path | None,
    jobs: int,
    *,
    did: str,
    force: bool,
) -> None:
    from infer.batch import run

    sources, target = split_paths(paths)
    plan = plan_outputs(sources, target, endings=CODED_ENDINGS, ending=".sc", force=force)
    outcome = run(plan, _Editing(change, model), doing="editing", jobs=jobs, force=force)
    finish(outcome, did=did, speed=False)


def _show_rows(rows: list[tuple[str, str]]) -> None:
    from rich.table import Table

    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for row in rows:
        table.add_row(*row)
    show(table)
