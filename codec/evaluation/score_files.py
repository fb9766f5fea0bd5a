"""Scores of every file as CSV: written, and read again to be compared with."""

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from codec.atomic import replacing
from codec.errors import SottoError
from codec.evaluation.contenders import MODEL_NAME
from codec.evaluation.judges import METRICS
from codec.evaluation.results import ORIGINAL, Evaluation, Original, Row

_ABOUT = ("file", "seconds", "codec", "n_quantizers", "kbps", "real_kbps")
_LOSSES = "losses"


def write_scores(evaluation: Evaluation, path: Path) -> None:
    """Writes a line a file and rate to `path`, and one a rate to `STEM-summary.csv` by it.

    Columns of metrics have their names; undefined scores are `nan`. The originals, where a metric
    judges them, have lines without a rate. `losses` are those that the model learnt from, as
    "mel:2 waveform:0.1", and empty where they are not known. Neither file is ever seen
    half-written.

    Raises:
        SottoError: The folder cannot be made or written to.
    """
    path = Path(path)
    names = evaluation.metrics
    lines: list[tuple[object, ...]] = [(*_ABOUT, _LOSSES, *names)]
    for o in evaluation.originals:
        scores = (o.scores.get(name, math.nan) for name in names)
        lines.append((o.file, o.seconds, ORIGINAL, None, None, None, None, *scores))
    losses = _losses_text(evaluation.losses)
    for row in evaluation.rows:
        about = (row.file, row.seconds, row.codec, row.n_quantizers, row.kbps, row.real_kbps)
        learnt = losses if row.codec.startswith(MODEL_NAME) else None
        lines.append((*about, learnt, *(row.scores[name] for name in names)))
    _write_rows(path, lines)
    _write_rows(path.with_name(f"{path.stem}-summary{path.suffix}"), _summary_lines(evaluation))


def read_scores(path: Path) -> Evaluation:
    """Reads what `write_scores` wrote, of this Sotto or an earlier one.

    Raises:
        SottoError: There is no such file, or it is no CSV of scores.
    """
    path = Path(path)
    try:
        with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
            lines = list(csv.DictReader(file, restval=""))
    except (OSError, csv.Error) as error:
        raise SottoError(f"{path}: cannot be read: {error}") from None
    columns = lines[0].keys() if lines else ()
    names = [name for name in METRICS if name in columns]
    if not names or not set(_ABOUT) <= set(columns):
        raise SottoError(f"{path}: no scores of files, as `sotto evaluate --csv` writes them")
    try:
        found = [line for line in lines if line["codec"] != ORIGINAL]
        rows = [_row(line, names) for line in found]
        losses = _losses(next((line.get(_LOSSES, "") for line in found), ""))
    except ValueError as error:
        raise SottoError(f"{path}: damaged: {error}") from None
    originals = [_original(line, names) for line in lines if line["codec"] == ORIGINAL]
    return Evaluation(rows, [], originals, names, losses)


def _row(line: Mapping[str, str], names: Sequence[str]) -> Row:
    books = line["n_quantizers"]
    return Row(
        line["file"],
        float(line["seconds"]),
        line["codec"],
        int(books) if books else None,
        float(line["kbps"]),
        float(line["real_kbps"]),
        {name: float(line[name]) for name in names},
    )


def _original(line: Mapping[str, str], names: Sequence[str]) -> Original:
    scores = {name: float(line[name]) for name in names if METRICS[name].alone}
    return Original(line["file"], float(line["seconds"]), scores)


def _losses_text(losses: Mapping[str, float] | None) -> str | None:
    if losses is None:
        return None
    return " ".join(f"{name}:{weight:g}" for name, weight in losses.items())


def _losses(text: str) -> dict[str, float] | None:
    if not text:
        return None
    pairs = (pair.partition(":") for pair in text.split())
    return {name: float(weight) for name, _, weight in pairs}


def _summary_lines(evaluation: Evaluation) -> list[tuple[object, ...]]:
    names = evaluation.metrics
    ends = [f"{name}_{end}" for name in names for end in ("mean", "low", "high", "undefined")]
    lines: list[tuple[object, ...]] = [
        ("codec", "n_quantizers", "kbps", "real_kbps", "files", *ends),
    ]
    for rate in evaluation.with_originals():
        values: list[object] = []
        for interval in map(rate.intervals.get, names):
            values += (
                (interval.mean, interval.low, interval.high, interval.undefined)
                if interval is not None
                else (None, None, None, None)
            )
        about = (rate.codec, rate.n_quantizers, rate.kbps, rate.real_kbps, rate.n_files)
        lines.append((*about, *values))
    return lines


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """`replacing`, with an error in one line."""
    try:
        with replacing(path) as temporary:
            yield temporary
    except OSError as error:
        raise SottoError(f"{path}: cannot be written: {error.strerror or error}") from error


def _write_rows(path: Path, rows: Sequence[Sequence[object]]) -> None:
    with (
        _replacing(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        csv.writer(file).writerows(rows)
