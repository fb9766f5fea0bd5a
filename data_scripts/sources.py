"""Where a corpus comes from: tar archives or unpacked folders, or the Hugging Face hub."""

import lzma
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from codec.errors import AudioError, DataError

_ARCHIVE_ERRORS = (tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError)


@dataclass(frozen=True, slots=True)
class Member:
    """A file of an archive or folder.

    Attributes:
        name: its path in the archive, or its whole path; used for names only, never opened.
        file: the path of a file in a folder; None in an archive.
        archive: the open archive; read from before the next member is taken.
        info: its place in the archive.
    """

    name: PurePosixPath
    file: Path | None = None
    archive: tarfile.TarFile | None = None
    info: tarfile.TarInfo | None = None

    def load(self) -> bytes | Path:
        """The file's path, or its bytes if it is in an archive."""
        return self.file if self.file is not None else self.bytes()

    def bytes(self) -> bytes:
        """The file's content.

        Raises:
            AudioError: it is cut off in the archive or cannot be read.
        """
        try:
            if self.file is not None:
                return self.file.read_bytes()
            assert self.archive is not None and self.info is not None
            file = self.archive.extractfile(self.info)
            data = b"" if file is None else file.read()
        except _ARCHIVE_ERRORS as error:
            raise AudioError(f"cannot be read ({error})") from error
        if len(data) != self.info.size:
            raise AudioError("cut off in the archive")
        return data


def members(paths: Sequence[Path], problems: list[str]) -> Iterator[Member]:
    """The regular files of archives (tar, plain or compressed) and folders, one by one.

    An archive is read as a stream, from beginning to end. One that is damaged gives what comes
    before the damage and a line in ``problems``.

    Raises:
        DataError: a path is neither a folder nor a tar archive.
    """
    for path in paths:
        if not path.exists():
            raise DataError(f"{path}: there is no such archive or folder")
    for path in paths:
        if path.is_dir():
            for file in sorted(path.absolute().rglob("*")):
                if file.is_file():
                    yield Member(PurePosixPath(file.as_posix()), file=file)
        else:
            yield from _archive_members(path, problems)


def _archive_members(path: Path, problems: list[str]) -> Iterator[Member]:
    try:
        archive = tarfile.open(path, "r|*")  # noqa: SIM115 - closed below
    except _ARCHIVE_ERRORS as error:
        raise DataError(f"{path}: not a tar archive that can be read ({error})") from error
    count = 0
    with archive:
        while True:
            try:
                info = archive.next()
            except _ARCHIVE_ERRORS as error:
                problems.append(f"{path}: damaged or cut after {count} files ({error})")
                return
            if info is None:
                return
            archive.members = []  # type: ignore[attr-defined]  # tarfile keeps them all otherwise
            if info.isfile():
                count += 1
                yield Member(PurePosixPath(info.name), archive=archive, info=info)


def hub_rows(repository: str, subset: str) -> Iterator[dict[str, Any]]:
    """Rows of a hub dataset as they stream in, their audio not decoded.

    Args:
        repository: such as ``openslr/librispeech_asr``.
        subset: ``CONFIG:SPLIT``, such as ``clean:train.100``.

    Yields:
        The columns, with ``audio`` as {"bytes": ..., "path": ...}.

    Raises:
        DataError: ``datasets`` is not installed, or the hub does not give the dataset.
    """
    try:
        import datasets
    except ImportError as error:
        raise DataError(
            "the hub is read through Hugging Face datasets; install it with: "
            "pip install 'sotto[data]'"
        ) from error
    config, _, split = subset.partition(":")
    if not config or not split:
        raise DataError(f"{subset!r} is not CONFIG:SPLIT, such as clean:train.100")
    try:
        rows = datasets.load_dataset(repository, config, split=split, streaming=True)
        # PyAV decodes: datasets would need torchcodec.
        yield from rows.cast_column("audio", datasets.Audio(decode=False))
    except Exception as error:  # whatever the network, the hub or a parquet reader raises
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise DataError(f"{repository} {subset}: cannot be read from the hub ({reason})") from error


def row_audio(row: dict[str, Any]) -> bytes | Path:
    """The audio file of a row: its bytes or its path.

    Raises:
        AudioError: the row has neither.
    """
    audio = row.get("audio") or {}
    if audio.get("bytes"):
        return bytes(audio["bytes"])
    if audio.get("path"):
        return Path(audio["path"])
    raise AudioError("the row has no audio")
