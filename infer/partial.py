"""Output files that are locked while they grow, so that what killed runs left can be told.

An output grows in a hidden `.NAME.xxxxxxxx.part` beside its place. A process that is killed leaves
that behind, and the lock, which the system drops with the process, says so: a part that can be
locked is nobody's. Where files cannot be locked (Windows), open ones cannot be deleted, which does
the same.
"""

import contextlib
import errno
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, BinaryIO

from codec.atomic import replacing
from codec.errors import SottoError

_PART = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{8}\.part", re.DOTALL)
_FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))


class OutputError(SottoError):
    """An output that cannot be written.

    Attributes:
        disk_full: nothing else can be written there either.
    """

    def __init__(self, message: str, *, disk_full: bool = False) -> None:
        super().__init__(message)
        self.disk_full = disk_full

    def __reduce__(self) -> tuple[object, ...]:
        return _output_error, (str(self), self.disk_full)


class NoReaderError(SottoError):
    """The reader of a pipe went away, as `head` does: no fault that is worth a message."""


class Output:
    """A file open for writing bytes whose errors are OutputErrors that name it.

    Attributes:
        name: for messages.
        written: bytes so far.
    """

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file = file
        self.name = name
        self.written = 0

    def write(self, data: bytes) -> int:
        """Writes all of `data`."""
        with _naming(self.name):
            count = self._file.write(data)
        self.written += count
        return count

    def flush(self) -> None:
        """Hands everything to the system."""
        with _naming(self.name):
            self._file.flush()


class SeekableOutput(Output):
    """One that can go back to change what it wrote."""

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Goes to a place."""
        with _naming(self.name):
            return self._file.seek(offset, whence)

    def tell(self) -> int:
        """The place, in bytes from the beginning."""
        return self._file.tell()

    def truncate(self) -> int:
        """Ends the file where it stands."""
        with _naming(self.name):
            return self._file.truncate()

    def seekable(self) -> bool:
        """Yes."""
        return True


@contextlib.contextmanager
def writing(target: Path) -> Iterator[Output]:
    """A seekable file that takes the place of `target` if the block ends well.

    Raises:
        OutputError: it cannot be written: no such folder, no right to, the disk is full.
    """
    if target.exists() and not target.is_file():
        raise SottoError(f"{target} is not a plain file: name a file to write")
    with contextlib.ExitStack() as stack:
        with _naming(str(target)):
            part = stack.enter_context(replacing(target))
            file = _claimed(part)
        try:
            yield SeekableOutput(file, str(target))
            with _naming(str(target)):
                file.flush()
                os.fsync(file.fileno())  # a full disk may show only now
        except BaseException:
            with contextlib.suppress(OSError):  # it tries to write what is left once more
                file.close()
            raise
        with _naming(str(target)):
            file.close()
            stack.close()


def remove_stale(targets: Iterable[Path]) -> list[Path]:
    """Deletes what killed runs left of these outputs; returns what it deleted.

    Parts that another process is writing, and of other outputs, are left alone.
    """
    names: dict[Path, set[str]] = {}
    for target in targets:
        names.setdefault(target.parent, set()).add(target.name)
    removed = []
    for folder, wanted in names.items():
        with contextlib.suppress(OSError), os.scandir(folder) as found:
            parts = [entry.name for entry in found if _target_name(entry.name) in wanted]
            removed += [folder / part for part in parts if _removed(folder / part)]
    return removed


def _target_name(part: str) -> str | None:
    match = _PART.fullmatch(part)
    return match["name"] if match else None


def _removed(part: Path) -> bool:
    try:
        with open(part, "rb+") as file:
            if not _lock(file, wait=False):
                return False
            if os.name == "posix":
                part.unlink()  # while locked: its writer, if one just came, notices
                return True
        part.unlink()
    except OSError:
        return False
    return True


def _claimed(part: Path) -> BinaryIO:
    """Opens and locks a part, again if `remove_stale` was quicker between the two."""
    while True:
        file = open(part, "wb")  # noqa: SIM115
        try:
            _lock(file, wait=True)
            if part.exists():
                return file
        except BaseException:
            file.close()
            raise
        file.close()


def _lock(file: IO[bytes], *, wait: bool) -> bool:
    """Locks a file until it is closed; whether it is ours now, or cannot be locked at all."""
    try:
        import fcntl
    except ImportError:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        return wait  # a file system without locks: the writer goes on, nothing is called stale
    return True


@contextlib.contextmanager
def _naming(name: str) -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise NoReaderError(f"nobody reads {name} any more") from None
    except OSError as error:
        raise OutputError(
            f"{name} cannot be written: {error.strerror or error}", disk_full=error.errno in _FULL
        ) from error


def _output_error(message: str, disk_full: bool) -> OutputError:
    return OutputError(message, disk_full=disk_full)
