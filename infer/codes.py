"""Codes of many `.sc` files as one array for training language models, and back.

`NAME.npy` is an array (total frames, n_quantizers) of uint16, time first, that `numpy.load` can map
into memory. `NAME.json` beside it is the index: which rows are which file's.

    {"version": 1, "model": fingerprint, "sample_rate": Hz, "hop_length": samples a frame,
     "frame_rate": frames a second, "bits": of a code, "n_quantizers": columns, "frames": rows,
     "files": [{"name": path, "channel": 0, "channels": 1, "offset": first row, "length": rows,
                "source_rate", "source_channels", "source_samples", "gain_db"}, ...]}

Each channel of a file has rows of its own, one channel after the other. The last four are what a
`.sc` file says of its source, null where it does not.
"""

import contextlib
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from codec.errors import BitstreamError, SottoError
from infer.bitstream import Header, Reader, Writer
from infer.partial import Output, writing
from infer.streams import open_seekable_input

if TYPE_CHECKING:
    from infer.bitstream import Tables

Codes = NDArray[np.uint16]

VERSION = 1
_COPIED_ROWS = 1 << 16


@dataclass(frozen=True)
class Entry:
    """One channel of one file: where its rows are, and what its `.sc` file says of the source."""

    name: str
    channel: int
    channels: int
    offset: int
    length: int
    source_rate: int | None
    source_channels: int | None
    source_samples: int | None
    gain_db: float


@dataclass(frozen=True)
class Index:
    """What the rows of an array are."""

    model: str
    sample_rate: int
    hop_length: int
    bits: int
    n_quantizers: int
    frames: int
    files: tuple[Entry, ...]

    def to_json(self) -> str:
        """The text of the index file."""
        about = {"version": VERSION, **asdict(self)}
        del about["files"]
        about["frame_rate"] = self.sample_rate / self.hop_length
        head = json.dumps(about, indent=1).removesuffix("\n}")
        lines = ",\n  ".join(json.dumps(asdict(entry)) for entry in self.files)
        return f'{head},\n "files": [\n  {lines}\n ]\n}}\n'


def index_path(array: Path) -> Path:
    """Where the index of an array lies."""
    return array.with_suffix(".json")


def export_codes(
    sources: Sequence[tuple[Path, str]],
    target: Path,
    *,
    n_quantizers: int | None = None,
    tables_for: Callable[[Header], "Tables | None"] = lambda header: None,
    report: Callable[[int], None] = lambda number: None,
) -> tuple[Index, list[tuple[Path, str]]]:
    """Writes the codes of many `.sc` files to an array and its index.

    Args:
        sources: files, and the names they get in the index.
        target: the array, ending in `.npy`.
        n_quantizers: codebooks to keep; none: those of the files, which must be equally many.
        tables_for: gives the probability tables of a compact file.
        report: told the number of each file that is done.

    Returns:
        the index, and the files that could not be read with the reasons; these are left out.

    Raises:
        SottoError: no file can be read, two have one name, or the target cannot be written.
    """
    _check_different(sources)
    failed: list[tuple[Path, str]] = []
    with contextlib.ExitStack() as stack:
        # The index is written first and appears last.
        text = stack.enter_context(writing(index_path(target)))
        array = _ArrayFile(stack.enter_context(writing(target)))
        collected = _Collected(array, n_quantizers)
        for number, (source, name) in enumerate(sources):
            try:
                with open_seekable_input(source) as file:
                    tables = _tables_of(file, tables_for)
                    collected.add(Reader(file, strict=True, tables=tables), name)
            except BitstreamError as error:
                failed.append((source, str(error)))
            except OSError as error:
                failed.append((source, error.strerror or str(error)))
            report(number)
        index = collected.index()
        if index is None:
            reasons = "; ".join(reason for _, reason in failed[:1])
            raise SottoError(f"none of {len(sources)} files can be read: {reasons}")
        array.finish()
        text.write(index.to_json().encode())
    return index, failed


def read_index(array: Path) -> Index:
    """Reads and checks the index of an array.

    Raises:
        SottoError: it is not there, or not what `export_codes` writes.
    """
    path = index_path(array)
    try:
        content = json.loads(path.read_text("utf-8"))
        if content["version"] != VERSION:
            raise SottoError(f"{path} is of version {content['version']}; {VERSION} can be read")
        entries = tuple(_entry(item) for item in content["files"])
        names = [field.name for field in fields(Index) if field.name not in ("files", "model")]
        numbers = {name: _number(content[name]) for name in names}
        return Index(model=str(content["model"]), files=entries, **numbers)
    except OSError as error:
        raise SottoError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise SottoError(f"{path} is no index of codes: {type(error).__name__} {error}") from None


def open_codes(array: Path, index: Index) -> Codes:
    """Maps an array into memory and checks that it is the index's.

    Raises:
        SottoError: it is not there, or not of that shape.
    """
    try:
        codes = np.load(array, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise SottoError(f"{array} is no array that can be read: {error}") from None
    shape = (index.frames, index.n_quantizers)
    if not isinstance(codes, np.ndarray) or codes.dtype != np.uint16 or codes.shape != shape:
        kind = f"{getattr(codes, 'dtype', '?')} {getattr(codes, 'shape', '')}"
        raise SottoError(f"{array} is {kind}; its index says uint16 {shape}")
    return codes


def files_of(index: Index) -> dict[str, list[Entry]]:
    """The entries of each file, in the order of the channels.

    Raises:
        SottoError: rows or channels that cannot be, or a name that leads elsewhere.
    """
    found: dict[str, list[Entry]] = {}
    for entry in index.files:
        _check_name(entry.name)
        if not 0 <= entry.offset <= entry.offset + entry.length <= index.frames:
            raise SottoError(f"the index gives {entry.name} rows that are not there")
        found.setdefault(entry.name, []).append(entry)
    for name, entries in found.items():
        channels = [entry.channel for entry in entries]
        if channels != list(range(entries[0].channels)) or len({e.length for e in entries}) > 1:
            raise SottoError(f"the index gives {name} channels {channels}, which do not fit")
    return found


def write_sc(file: BinaryIO, codes: Codes, index: Index, entries: Sequence[Entry]) -> Header:
    """Writes one file of an array as `.sc`, version 1.

    Raises:
        BitstreamError: the index says what no file can hold, or codes do not fit.
    """
    first = entries[0]
    header = Header(
        version=1,
        frames=first.length,
        n_quantizers=index.n_quantizers,
        bits=index.bits,
        fingerprint=index.model,
        sample_rate=index.sample_rate,
        hop_length=index.hop_length,
        channels=first.channels,
        source_rate=first.source_rate,
        source_channels=first.source_channels,
        source_samples=first.source_samples,
        gain_db=first.gain_db,
    )
    writer = Writer(file, header)
    for start in range(0, first.length, _COPIED_ROWS):
        stop = min(start + _COPIED_ROWS, first.length)
        rows = [codes[entry.offset + start : entry.offset + stop].T for entry in entries]
        writer.write(np.stack(rows))
    return writer.finish()


def sc_in_memory(codes: Codes, index: Index, entries: Sequence[Entry]) -> BinaryIO:
    """One file of an array as a `.sc` file that is read from memory: a few kbit a second."""
    file = io.BytesIO()
    write_sc(file, codes, index, entries)
    file.seek(0)
    return file


class _ArrayFile:
    """A .npy file that grows by rows."""

    def __init__(self, file: Output) -> None:
        self._file = cast(BinaryIO, file)
        self._columns: int | None = None
        self._data = 0
        self.rows = 0

    def start(self, columns: int) -> None:
        self._columns = columns
        self._file.seek(0)
        self._header()
        self._data = self._file.tell()

    def append(self, rows: Codes) -> None:
        self._file.write(np.ascontiguousarray(rows, "<u2").tobytes())
        self.rows += len(rows)

    def back_to(self, rows: int) -> None:
        """Forgets the rows from there on."""
        if self._columns is not None:
            self._file.seek(self._data + rows * self._columns * 2)
            self.rows = rows

    def finish(self) -> None:
        """Writes the number of rows into the header, for which NumPy leaves room."""
        self._file.truncate()
        self._file.seek(0)
        self._header()

    def _header(self) -> None:
        shape = (self.rows, self._columns)
        about = {"descr": "<u2", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self._file, about)


class _Collected:
    """The files that have been added so far: all of one model."""

    def __init__(self, array: _ArrayFile, n_quantizers: int | None) -> None:
        self._array = array
        self._wanted = n_quantizers
        self._first: Header | None = None
        self._entries: list[Entry] = []

    def add(self, reader: Reader, name: str) -> None:
        """Adds all channels of a file, or nothing of it if that fails.

        A file of several channels is read once for each, so that memory stays constant.
        """
        header = reader.header
        n_quantizers = self._checked(header)
        if self._first is None:
            self._array.start(n_quantizers)
        offset = self._array.rows
        entries = []
        try:
            for channel in range(header.channels):
                start = self._array.rows
                for block in reader.blocks():
                    if block.codes is not None:
                        self._array.append(block.codes[channel, :n_quantizers].T)
                length = self._array.rows - start
                entries.append(_entry_of(reader.header, name, channel, start, length))
            if not reader.complete:
                raise BitstreamError(f"{name} is cut short")
        except BaseException:
            self._array.back_to(offset)
            raise
        self._first = self._first or header
        self._entries += entries

    def index(self) -> Index | None:
        """What has been collected; none: nothing."""
        first = self._first
        if first is None:
            return None
        return Index(
            model=first.fingerprint,
            sample_rate=first.sample_rate or 0,
            hop_length=first.hop_length or 0,
            bits=first.bits,
            n_quantizers=self._wanted or first.n_quantizers,
            frames=self._array.rows,
            files=tuple(self._entries),
        )

    def _checked(self, header: Header) -> int:
        if header.sample_rate is None:
            raise BitstreamError("version 0 does not say its rate: encode it anew")
        first = self._first or header
        if header.fingerprint != first.fingerprint:
            raise BitstreamError(
                f"is of model {header.fingerprint}, and those before of {first.fingerprint}"
            )
        wanted = self._wanted or first.n_quantizers
        if header.n_quantizers < wanted or (not self._wanted and header.n_quantizers != wanted):
            raise BitstreamError(
                f"has {header.n_quantizers} codebooks, not {wanted}: --codebooks N keeps the "
                "first N of each file"
            )
        return wanted


def _check_different(sources: Sequence[tuple[Path, str]]) -> None:
    """Refuses names that could not be told apart on the way back."""
    taken: dict[PurePosixPath, Path] = {}
    for source, name in sources:
        first = taken.setdefault(PurePosixPath(name).with_suffix(""), source)
        if first is not source:
            raise SottoError(
                f"{first} and {source} would both be {name} in the index: name a folder that "
                "holds both"
            )


def _tables_of(file: BinaryIO, tables_for: Callable[[Header], "Tables | None"]) -> "Tables | None":
    header = Reader(file).header
    file.seek(0)
    return tables_for(header) if header.compact else None


def _entry_of(header: Header, name: str, channel: int, offset: int, length: int) -> Entry:
    return Entry(
        name=name,
        channel=channel,
        channels=header.channels,
        offset=offset,
        length=length,
        source_rate=header.source_rate,
        source_channels=header.source_channels,
        source_samples=header.source_samples,
        gain_db=header.gain_db,
    )


def _entry(item: dict[str, Any]) -> Entry:
    def count(name: str) -> int | None:
        return None if item[name] is None else _number(item[name])

    return Entry(
        name=str(item["name"]),
        channel=_number(item["channel"]),
        channels=_number(item["channels"]),
        offset=_number(item["offset"]),
        length=_number(item["length"]),
        source_rate=count("source_rate"),
        source_channels=count("source_channels"),
        source_samples=count("source_samples"),
        gain_db=float(item["gain_db"]),
    )


def _number(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"{value!r} is no count")
    return value


def _check_name(name: str) -> None:
    """Refuses a path that leads out of the folder it is put in, on any system."""
    windows, posix = PureWindowsPath(name), PurePosixPath(name)
    parts = {*windows.parts, *posix.parts}
    if not name or ".." in parts or windows.anchor or posix.anchor or "\0" in name:
        raise SottoError(f"the index names {name!r}, which is no path below a folder")
