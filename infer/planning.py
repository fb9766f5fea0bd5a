"""Which files a command reads and writes: one to one, or many into a folder.

One file goes to the file named, or into the folder named if it is there. Several files, and
folders with what lies in them, go into a folder, which is made: `encode a b.wav out` gives
out/a/... and out/b.sc, and `encode a out`, a folder alone, gives out/... without an a in between,
whether out is there or not, so that running a command twice does the same.
"""

import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from codec.errors import SottoError

PIPE = Path("-")  # stdin or stdout


@dataclass(frozen=True)
class Item:
    """One file to read and the one to write."""

    source: Path
    target: Path

    @property
    def source_bytes(self) -> int:
        """Size of what is read, 0 where there is none to know."""
        try:
            return 0 if self.source == PIPE else self.source.stat().st_size
        except OSError:
            return 0


@dataclass(frozen=True)
class Plan:
    """What a command has to do.

    Attributes:
        items: in order.
        refused: files that cannot be done, and why.
        many: whether outputs go into a folder: those that are there are skipped.
    """

    items: list[Item] = field(default_factory=list)
    refused: list[tuple[Path, str]] = field(default_factory=list)
    many: bool = False


def plan_outputs(
    sources: Sequence[Path],
    target: Path,
    *,
    endings: Collection[str],
    ending: str,
    writable: Collection[str] = (),
    force: bool = False,
) -> Plan:
    """Gives every input its output.

    Args:
        sources: files, folders, or `-` alone.
        target: a file, a folder, or `-`.
        endings: lower case, of the files to take from folders; files that are named are taken
            whatever they are called.
        ending: of the outputs in a folder.
        writable: endings that an output file may have; only `ending` if empty.
        force: whether a single output may be there.

    Raises:
        SottoError: an input is not there, or the output cannot be what it should.
    """
    for source in sources:
        if source != PIPE and not source.exists():
            raise SottoError(f"{source} is not there")
    if len(sources) == 1 and not sources[0].is_dir():
        source = sources[0]
        if target.is_dir() and source != PIPE:
            return _into_folder([(source, Path(source.name))], target, ending)
        _check_single(source, target, writable or (ending,), force=force)
        return Plan([Item(source, target)])
    if PIPE in (*sources, target):
        raise SottoError("- stands for one input or output, not for one among several or a folder")
    if target.exists() and not target.is_dir():
        raise SottoError(f"{target} is a file: several inputs need a folder to go to")
    found = [pair for source in sources for pair in _below(source, endings, target, len(sources))]
    if not found:
        names = ", ".join(str(source) for source in sources)
        raise SottoError(f"{names}: no files found (looked for {' '.join(sorted(endings))})")
    return _into_folder(found, target, ending)


def named_inputs(sources: Sequence[Path], *, endings: Collection[str]) -> list[tuple[Path, str]]:
    """Files, and those of these endings in folders, for a command that writes no file for each.

    Returns:
        paths, and names that tell them apart: paths below the folder, or below all, with `/`.

    Raises:
        SottoError: an input is not there, or a folder has none.
    """
    files = []
    for source in sources:
        if source != PIPE and not source.exists():
            raise SottoError(f"{source} is not there")
        below = list(_below(source, endings, None, len(sources)))
        if not below:
            raise SottoError(f"{source}: no files found (looked for {' '.join(sorted(endings))})")
        files += [(path, "stdin" if path == PIPE else name.as_posix()) for path, name in below]
    return files


def check_target(target: Path, *, force: bool) -> None:
    """Refuses, before any work, a file that cannot or should not be written.

    Raises:
        SottoError: saying why.
    """
    if target.is_dir():
        raise SottoError(f"{target} is a folder: name a file to write")
    if target.exists() and not target.is_file():
        raise SottoError(f"{target} is not a plain file: name a file to write")
    if target.exists() and not force:
        raise SottoError(f"{target} is there already: --force replaces it")
    if not target.parent.is_dir():
        raise SottoError(f"{target} cannot be written: there is no folder {target.parent}")


def _check_single(source: Path, target: Path, writable: Collection[str], *, force: bool) -> None:
    if target == PIPE:
        return
    if source != PIPE and target.exists() and target.samefile(source):
        raise SottoError(f"{target} is the input: give the output another name")
    check_target(target, force=force)
    if target.suffix.lower() not in writable:
        raise SottoError(
            f"{target} has the wrong ending: this command writes {' '.join(writable)} files"
        )


def _into_folder(found: list[tuple[Path, Path]], folder: Path, ending: str) -> Plan:
    """Plans (file, path below the folder) pairs; two that would become one are refused."""
    plan = Plan(many=True)
    taken: dict[str, Path] = {}
    for source, below in found:
        target = folder / below.with_suffix(ending)
        key = os.path.normcase(target)
        if key in taken:
            reason = f"would become {target}, as {taken[key]} does: encode it to a name of its own"
            plan.refused.append((source, reason))
        elif target.exists() and target.samefile(source):
            plan.refused.append((source, "is its own output: name another folder"))
        elif target.is_dir():
            plan.refused.append((source, f"would become {target}, which is a folder"))
        else:
            taken[key] = source
            plan.items.append(Item(source, target))
    return plan


def _below(
    source: Path, endings: Collection[str], target: Path | None, n_sources: int
) -> Iterator[tuple[Path, Path]]:
    """A file, or those in a folder: each with its path in the output folder."""
    if not source.is_dir():
        yield source, Path(source.name)
        return
    # What earlier runs wrote is not taken for input, unless everything is done in place.
    avoid = None if target is None or target.resolve() == source.resolve() else target.resolve()
    root = Path(source.resolve().name) if n_sources > 1 else Path()
    for folder, folders, files in os.walk(source):
        here = Path(folder)
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".") and (avoid is None or (here / name).resolve() != avoid)
        )
        for name in sorted(files):
            path = here / name
            if not name.startswith(".") and path.suffix.lower() in endings and path.is_file():
                yield path, root / path.relative_to(source)
