"""Python files under FFmpeg: what they are called, and errors that FFmpeg would swallow."""

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from codec.errors import AudioError

Source = str | os.PathLike[str] | BinaryIO

NAMELESS = "audio data"  # what messages call a file object without a name
_NAMES = {"<stdin>": "standard input", "<stdout>": "standard output"}
_PEEK = 12


def source_name(source: Any, nameless: str = NAMELESS) -> str:
    """What messages call a source: its path, or the name of a file object that has one."""
    if isinstance(source, (str, os.PathLike)):
        return os.fspath(source)
    name = getattr(source, "name", None)  # a number, of a file that was opened by one
    return _NAMES.get(name, name) if isinstance(name, str) else nameless


class _UnderFFmpeg:
    """The half that both directions share: seeking, and the first error that was met.

    Called from inside FFmpeg, a method must not raise: what it would raise is kept for `check`.
    """

    def __init__(self, file: Any, name: str) -> None:
        self.name = name
        self.error: BaseException | None = None
        self._file = file
        self._seekable = _can_seek(file)
        self._base = file.tell() if self._seekable else 0

    def seekable(self) -> bool:
        """Whether the file can seek; a pipe cannot."""
        return self._seekable

    def tell(self) -> int:
        """Bytes from where the file stood when it was handed over."""
        return int(self._file.tell()) - self._base

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place, counted like `tell`, and return it."""
        if self.error is None:
            try:
                if whence == os.SEEK_SET:
                    offset += self._base
                self._file.seek(offset, whence)
                return self.tell()
            except BaseException as error:  # Ctrl-C too: raised here it would be lost
                self._seek_failed(error)
        return -1

    def _seek_failed(self, error: BaseException) -> None:
        self.error = error


class InputFile(_UnderFFmpeg):
    """A file to be read: a path, a file that can seek, or anything with ``read``.

    Raises:
        AudioError: there is no such file, or it cannot be opened or read.
    """

    def __init__(self, source: Source) -> None:
        name = source_name(source)
        self._owned: BinaryIO | None = None
        self._ahead = b""
        if isinstance(source, (str, os.PathLike)):
            self._owned = source = _open(Path(source), name)
        try:
            super().__init__(source, name)
            if not self._seekable:
                self._look_ahead()
        except OSError as error:
            self.close()
            raise AudioError(f"{name}: cannot be read ({error.strerror or error})") from error

    def read(self, size: int) -> bytes:
        """The next bytes, at most ``size``; none at the end and after an error."""
        if self._ahead:
            data, self._ahead = self._ahead[:size], self._ahead[size:]
            return data
        if self.error is None:
            try:
                return _read(self._file, size)
            except BaseException as error:
                self.error = error
        return b""

    def check(self) -> None:
        """Raise what reading met: AudioError for an OSError, anything else as it is."""
        if isinstance(self.error, OSError):
            reason = self.error.strerror or self.error
            raise AudioError(f"{self.name}: cannot be read ({reason})") from self.error
        if self.error is not None:
            raise self.error

    def close(self) -> None:
        """Close the file if it was opened here."""
        if self._owned is not None:
            self._owned.close()

    def _seek_failed(self, error: BaseException) -> None:
        # FFmpeg tries places before the beginning of short files: no more than a "no" to it.
        if not isinstance(error, (OSError, ValueError)):
            self.error = error

    def _look_ahead(self) -> None:
        while len(self._ahead) < _PEEK and (more := _read(self._file, _PEEK - len(self._ahead))):
            self._ahead += more
        if self._ahead[4:8] == b"ftyp":
            # The index of an MP4 file mostly lies at its end: a pipe is put on disk first.
            self._owned = whole = tempfile.TemporaryFile()  # noqa: SIM115
            whole.write(self._ahead)
            shutil.copyfileobj(self._file, whole, 1 << 20)
            whole.seek(0)
            self._file, self._ahead, self._seekable = whole, b"", True


class OutputFile(_UnderFFmpeg):
    """A file to be written; after the first error nothing more reaches it."""

    def write(self, data: bytes | memoryview) -> int:
        """Write all of ``data``, however little the file takes at a time."""
        if self.error is None:
            try:
                rest = memoryview(data)
                while rest:
                    # A raw file says how much it took, a mere object with ``write`` may not.
                    taken = self._file.write(rest)
                    rest = rest[len(rest) if taken is None else taken :]
            except BaseException as error:
                self.error = error
        return len(data)

    def abandon(self, error: BaseException) -> None:
        """Let nothing more reach the file."""
        self.error = self.error or error

    def check(self) -> None:
        """Raise what writing met: AudioError for an OSError, anything else as it is."""
        if isinstance(self.error, OSError):
            unwritable(self.name, self.error)
        if self.error is not None:
            raise self.error


def unwritable(name: str, error: OSError) -> NoReturn:
    """Raise the AudioError for a file that could not be written."""
    raise AudioError(f"{name}: cannot be written ({error.strerror or error})") from error


def _can_seek(file: Any) -> bool:
    if not (hasattr(file, "seek") and hasattr(file, "tell")):
        return False
    seekable = getattr(file, "seekable", None)
    return seekable is None or bool(seekable())


def _read(file: Any, size: int) -> bytes:
    data = file.read(size)
    if data is None:
        raise BlockingIOError("it has no data yet and does not wait for any")
    if len(data) > size:
        raise OSError(f"it gave {len(data)} bytes where {size} were asked for")
    return bytes(data)


def _open(path: Path, name: str) -> BinaryIO:
    try:
        # Unbuffered: FFmpeg reads 32 KB at a time.
        return path.open("rb", buffering=0)
    except FileNotFoundError:
        raise AudioError(f"{name}: there is no such file") from None
    except OSError as error:
        if path.is_dir():
            raise AudioError(f"{name}: is a folder, not an audio file") from None
        raise AudioError(f"{name}: cannot be opened ({error.strerror or error})") from error
