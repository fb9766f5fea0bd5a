"""Which files a corpus has: a manifest of JSON lines, or a folder that is searched."""

import hashlib
import json
import logging
import math
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.progress import Progress

from codec import audio
from codec.atomic import replacing
from codec.errors import AudioError, DataError

log = logging.getLogger(__name__)

MANIFEST_NAME = "manifest.jsonl"
SUFFIXES = (
    *(".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a", ".aac", ".aif", ".aiff"),
    *(".au", ".caf", ".wma", ".webm", ".mka", ".mp4", ".w64"),
)
SPLITS = ("train", "valid", "test")


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of a corpus.

    Attributes:
        path: of the file.
        seconds: its duration, above 0.
        split: ``train``, ``valid``, ``test`` or whatever the manifest says; None if nothing.
        speaker: nobody is in two splits when ``assign_splits`` makes them.
        details: what else a manifest line holds (language, text, licence); kept, not used.
        root: folder of the corpus it was found in; None: of its own.
    """

    path: Path
    seconds: float
    split: str | None = None
    speaker: str | None = None
    details: dict[str, Any] = field(default_factory=dict)
    root: Path | None = field(default=None, compare=False)


def load_entries(
    path: str | os.PathLike[str], *, split: str | None = None, progress: Progress | None = None
) -> list[Entry]:
    """The files of a manifest, of a folder with a ``manifest.jsonl``, or found in a folder.

    Args:
        path: a manifest or a folder.
        split: keep only the entries of this split; None keeps all. A corpus without splits is
            split by ``assign_splits``, the same way every time.
        progress: shows how far the search of a folder is.

    Raises:
        DataError: nothing usable there, or no entry of that split.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"{path}: there is no such manifest or folder of audio files")
    root = path if path.is_dir() else path.parent
    if path.is_file():
        entries = read_manifest(path)
    elif (path / MANIFEST_NAME).is_file():
        entries = read_manifest(path / MANIFEST_NAME)
    else:
        entries = scan_folder(path, progress)
    entries = [replace(entry, root=root) for entry in entries]
    if split is None:
        return entries
    if all(entry.split is None for entry in entries):
        entries = assign_splits(entries, root)
    chosen = [entry for entry in entries if entry.split == split]
    if not chosen:
        there = ", ".join(sorted({entry.split or "none" for entry in entries}))
        raise DataError(f"{path}: has no files of split {split!r} (its splits: {there})")
    return chosen


def scan_folder(folder: str | os.PathLike[str], progress: Progress | None = None) -> list[Entry]:
    """Audio files in a folder and its subfolders, by header; in the same order everywhere.

    Files that cannot be read are reported by a warning and passed over, hidden ones ignored.

    Raises:
        DataError: no such folder, or no audio files in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"{folder}: there is no such folder")
    found = sorted(
        (path.relative_to(folder).as_posix(), path)
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
    )
    if not found:
        raise DataError(f"{folder}: no audio files found (looked for {' '.join(SUFFIXES)})")
    task = None if progress is None else progress.add_task(f"reading {folder}", total=len(found))
    entries: list[Entry] = []
    refused: list[str] = []
    with ThreadPoolExecutor() as pool:
        for result in pool.map(_measure, (path for _, path in found)):
            if isinstance(result, Entry):
                entries.append(result)
            else:
                refused.append(result)
            if progress is not None and task is not None:
                progress.advance(task)
    _report(refused, f"{folder}: {len(refused)} of {len(found)} files cannot be read")
    if not entries:
        raise DataError(f"{folder}: none of its {len(found)} audio files can be read: {refused[0]}")
    return entries


def read_manifest(path: str | os.PathLike[str]) -> list[Entry]:
    """The entries of a JSON-lines manifest whose files are there.

    A line is an object with ``path`` (relative to the manifest's folder, or absolute) and
    ``seconds`` (measured here where absent), perhaps ``split`` and ``speaker``, and more.

    Raises:
        DataError: a damaged line, no lines, or all files missing.
    """
    path = Path(path)
    entries: list[Entry] = []
    missing: list[str] = []
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as a manifest ({error})") from error
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        entry = _parse(line, path.parent, f"{path}, line {number}")
        if not entry.path.is_file():
            missing.append(str(entry.path))
        elif entry.seconds > 0:
            entries.append(entry)
        else:
            measured = _measure(entry.path)
            if isinstance(measured, Entry):
                entries.append(replace(entry, seconds=measured.seconds))
            else:
                missing.append(measured)
    if not entries and not missing:
        raise DataError(f"{path}: the manifest is empty")
    if not entries:
        raise DataError(f"{path}: none of its {len(missing)} files is there, such as {missing[0]}")
    _report(missing, f"{path}: {len(missing)} of its files are missing")
    return entries


def write_manifest(path: str | os.PathLike[str], entries: Iterable[Entry]) -> None:
    """Write a manifest, whole or not at all; paths below its folder become relative."""
    root = Path(path).absolute().parent
    with replacing(path) as temporary:
        text = "".join(manifest_line(entry, root) + "\n" for entry in entries)
        temporary.write_text(text, encoding="utf-8", newline="\n")


def manifest_line(entry: Entry, root: Path) -> str:
    """An entry as one line of JSON, its path relative to the folder ``root`` if below it."""
    target = entry.path.absolute()
    shown = target.relative_to(root) if target.is_relative_to(root) else target
    line: dict[str, Any] = {"path": shown.as_posix(), "seconds": round(entry.seconds, 6)}
    if entry.split is not None:
        line["split"] = entry.split
    if entry.speaker is not None:
        line["speaker"] = entry.speaker
    return json.dumps(line | entry.details, ensure_ascii=False)


def assign_splits(entries: Sequence[Entry], root: Path, share: float = 0.05) -> list[Entry]:
    """Give every entry a split by a hash of its speaker, or of its path where none is known.

    About ``share`` of the speakers (at least one) are held out for ``valid`` and as many for
    ``test``; fewer than three files or speakers are in every split, with a warning.
    """

    def group(entry: Entry) -> str:
        if entry.speaker is not None:
            return f"speaker {entry.speaker}"
        inside = entry.path.is_relative_to(root)
        return (entry.path.relative_to(root) if inside else entry.path).as_posix()

    groups = sorted(
        {group(entry) for entry in entries},
        key=lambda name: hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest(),
    )
    if len(groups) < 3:
        log.warning("only %d files or speakers: train, valid and test share them", len(groups))
        return [replace(entry, split=split) for split in SPLITS for entry in entries]
    count = max(1, math.floor(share * len(groups)))
    splits = dict.fromkeys(groups, "train")
    splits |= dict.fromkeys(groups[:count], "valid")
    splits |= dict.fromkeys(groups[count : 2 * count], "test")
    return [replace(entry, split=splits[group(entry)]) for entry in entries]


def _measure(path: Path) -> Entry | str:
    """An entry with the duration its header gives, or why there is none."""
    try:
        info = audio.probe(path)
        seconds = info.seconds
        if seconds is None:  # raw streams do not say: count
            rate = info.sample_rate
            pieces = audio.blocks(path, sample_rate=rate, block_samples=rate)
            seconds = sum(piece.shape[1] for piece in pieces) / rate
    except AudioError as error:
        return str(error)
    if seconds <= 0:
        return f"{path}: holds no audio"
    return Entry(path, seconds)


def _parse(line: str, root: Path, where: str) -> Entry:
    try:
        values = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"{where}: not a line of JSON ({error})") from error
    if not isinstance(values, dict) or not isinstance(values.get("path"), str):
        raise DataError(f'{where}: not an object with a "path"')
    seconds = values.pop("seconds", None)
    valid = isinstance(seconds, (int, float)) and not isinstance(seconds, bool)
    if seconds is not None and not (valid and 0 < seconds < math.inf):
        raise DataError(f'{where}: "seconds" must be a duration above 0, not {seconds!r}')
    path, split = root / values.pop("path"), values.pop("split", None)
    speaker = values.pop("speaker", None)
    return Entry(
        path=path,
        seconds=float(seconds or 0.0),
        split=None if split is None else str(split),
        speaker=None if speaker is None else str(speaker),
        details=values,
    )


def _report(names: Sequence[str], what: str, shown: int = 5) -> None:
    if names:
        more = f" and {len(names) - shown} more" if len(names) > shown else ""
        log.warning("%s, passed over: %s%s", what, "; ".join(names[:shown]), more)
