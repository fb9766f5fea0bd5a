"""Parameters of a corpus's files, made once and kept in files of their own beside it.

A file of parameters is a header of 64 bytes, little-endian (the eight letters "SottoPar", uint32
version of the analysis, uint32 sample rate in Hz, uint64 size in bytes and int64 time of change in
nanoseconds of the audio file, uint32 frames, zeros), then float16 (frames, 66): frames first, so
that those of a crop lie together.
"""

import hashlib
import logging
import multiprocessing
import os
import signal
import struct
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress

from codec.atomic import replacing
from codec.audio import AudioReader, to_mono
from codec.data import analysis
from codec.data.analysis import Parameters, hop_samples
from codec.data.manifest import Entry
from codec.errors import AudioError, DataError
from codec.nn.parameters import ENVELOPE, PARAMETERS
from codec.resampling import resample

log = logging.getLogger(__name__)

FOLDER = ".sotto-parameters"

_MAGIC = b"SottoPar"
_HEADER = struct.Struct("<8sIIQqI28x")
_FRAME_BYTES = 2 * PARAMETERS
_SILENCE = ".silence"  # hidden: no audio file of a corpus is called so


@dataclass(frozen=True)
class _Key:
    """What parameters were made from; others are stale."""

    version: int
    sample_rate: int
    size: int = 0
    changed_ns: int = 0

    @classmethod
    def of(cls, path: Path, sample_rate: int) -> Self:
        """Of an audio file as it is now.

        Raises:
            OSError: it is not there.
        """
        status = path.stat()
        return cls(analysis.ANALYSIS_VERSION, sample_rate, status.st_size, status.st_mtime_ns)


class Targets:
    """The parameters of many audio files, read piece by piece; travels to other processes.

    Attributes:
        sample_rate: that the audio was analysed at, in Hz.
        silence: parameters of a frame of digital silence, (66,) float32.

    Args:
        files: where the parameters of an audio file are, and how many frames, by its path.
    """

    def __init__(
        self, files: dict[str, tuple[str, int]], *, sample_rate: int, silence: Parameters
    ) -> None:
        self.sample_rate = sample_rate
        self.silence = silence
        self._files = files

    def __len__(self) -> int:
        return len(self._files)

    def __contains__(self, path: object) -> bool:
        return str(path) in self._files

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def frames(self, path: str | os.PathLike[str]) -> int:
        """How many frames of an audio file there are."""
        return self._files[str(path)][1]

    def read(
        self, path: str | os.PathLike[str], first: int, frames: int, gain: float = 1.0
    ) -> Parameters:
        """Frames ``first`` to ``first + frames - 1`` of an audio file, after a gain.

        Returns:
            float32 (66, frames); those after the file's end are silence.

        Raises:
            DataError: the file of parameters cannot be read any more.
        """
        file, there = self._files[str(path)]
        count = max(0, min(frames, there - first))
        found = np.empty((PARAMETERS, frames), np.float32)
        found[:, :count] = _frames(file, first, count).T
        found[:ENVELOPE, :count] += 2 * np.log(gain)
        found[:, count:] = self.silence[:, None]
        return found


def make_targets(
    entries: Sequence[Entry],
    *,
    sample_rate: int,
    out: str | os.PathLike[str] | None = None,
    jobs: int | None = None,
    progress: Progress | None = None,
) -> Targets:
    """Parameters of all entries: those that an earlier run made, the rest made now.

    A file's parameters are made anew when its size, its time of change or the analysis is another.
    May be stopped at any time (Ctrl-C too): the next run goes on with the file that was being
    analysed. A file that cannot be decoded is warned of and left out.

    Args:
        entries: audio files; each has its parameters beside its corpus, in ``.sotto-parameters``.
        sample_rate: to analyse at, in Hz; each has parameters of its own.
        out: another folder for the parameters of all corpora, which is made.
        jobs: processes; none: one for each CPU.
        progress: shows how much of the audio is analysed.

    Raises:
        DataError: no file can be decoded, or the parameters cannot be written.
        MissingPackageError: PyWorld is not installed, and there is something to analyse.
        ValueError: a sample rate that cannot be had.
    """
    hop_samples(sample_rate)
    places = {str(entry.path): _place(entry, sample_rate, out) for entry in entries}
    if not places:
        raise DataError("no audio files to analyse")
    silence = _silence(_folder(entries[0], sample_rate, out), sample_rate)
    found: dict[str, int] = {}
    stale: dict[str, float] = {}
    for entry in entries:
        frames = _count(places[str(entry.path)], _key(entry.path, sample_rate))
        if frames is None:
            stale[str(entry.path)] = entry.seconds
        else:
            found[str(entry.path)] = frames
    problems: list[str] = []
    task = None
    if stale and progress is not None:
        task = progress.add_task("analysing speech", total=sum(stale.values()))
    todo = [(path, places[path], sample_rate) for path in stale]
    for path, made in _made(todo, jobs):
        if isinstance(made, str):
            problems.append(made)
        else:
            found[path] = made
        if progress is not None and task is not None:
            progress.advance(task, stale[path])
    for problem in problems:
        log.warning("passed over: %s", problem)
    if not found:
        raise DataError(f"none of the {len(places)} audio files can be analysed: {problems[0]}")
    files = {path: (str(place), found[path]) for path, place in places.items() if path in found}
    return Targets(files, sample_rate=sample_rate, silence=silence)


_Job = tuple[str, Path, int]
_Made = int | str  # frames, or why there are none


def _made(todo: Sequence[_Job], jobs: int | None) -> Iterator[tuple[str, _Made]]:
    """Analyses files, as they get ready: path, and frames or what is wrong with the file."""
    jobs = min(jobs or os.cpu_count() or 1, len(todo))
    if jobs <= 1:
        for job in todo:
            yield job[0], _make(job)
        return
    # Spawned: safe beside torch's threads, and the same on every platform.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(jobs, mp_context=context, initializer=_leave_ctrl_c)
    try:
        running = {pool.submit(_make, job): job[0] for job in todo}
        for future in as_completed(running):
            yield running[future], future.result()
    except BrokenProcessPool as error:
        raise DataError(
            "a process that analyses speech has died, mostly because no memory is left; "
            "what is made stays: begin again, perhaps with fewer jobs"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _leave_ctrl_c() -> None:
    """Leave Ctrl-C to the parent process, which waits for the files in hand."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _make(job: _Job) -> _Made:
    """Analyse one file and keep its parameters.

    Raises:
        DataError: they cannot be written.
    """
    source, place, sample_rate = Path(job[0]), job[1], job[2]
    try:
        key = _Key.of(source, sample_rate)  # before it is read: if it changes now, it is stale
        with AudioReader(source) as reader:
            wave = resample(to_mono(reader.read()), reader.info.sample_rate, sample_rate)
    except (AudioError, OSError) as error:
        return str(error)
    parameters = analysis.analyse(wave[0], sample_rate)
    _write(place, key, parameters)
    return parameters.shape[1]


def _silence(folder: Path, sample_rate: int) -> Parameters:
    """Parameters of silence, (66,), kept like a file's: reading them needs no analysis."""
    place = folder / _SILENCE
    key = _Key(analysis.ANALYSIS_VERSION, sample_rate)
    if _count(place, key) is None:
        _write(place, key, analysis.silence(sample_rate)[:, None])
    return _frames(str(place), 0, 1)[0].astype(np.float32)


def _folder(entry: Entry, sample_rate: int, out: str | os.PathLike[str] | None) -> Path:
    """Where the parameters of a corpus lie."""
    root = entry.root or entry.path.parent
    if out is None:
        return root / FOLDER / str(sample_rate)
    root = root.absolute()
    name = hashlib.sha256(os.fsencode(root)).hexdigest()[:8]
    return Path(out).expanduser() / f"{root.name}-{name}" / str(sample_rate)


def _place(entry: Entry, sample_rate: int, out: str | os.PathLike[str] | None) -> Path:
    """Where the parameters of a file lie."""
    root, folder = entry.root or entry.path.parent, _folder(entry, sample_rate, out)
    if entry.path.is_relative_to(root) and ".." not in entry.path.parts:
        inside = entry.path.relative_to(root)
    else:  # a manifest may name files anywhere
        path = Path(os.path.abspath(entry.path))
        inside = Path("elsewhere", *path.parts[1:])
    return folder / inside.with_name(inside.name + ".parameters")


def _key(path: Path, sample_rate: int) -> _Key | None:
    try:
        return _Key.of(path, sample_rate)
    except OSError:
        return None


def _count(place: Path, key: _Key | None) -> int | None:
    """Frames of a file of parameters; None if it is not there, not whole, or stale."""
    try:
        with open(place, "rb") as file:
            header = file.read(_HEADER.size)
            size = os.fstat(file.fileno()).st_size
    except OSError:
        return None
    if len(header) < _HEADER.size or key is None:
        return None
    magic, version, sample_rate, audio_size, changed_ns, frames = _HEADER.unpack(header)
    made_from = _Key(version, sample_rate, audio_size, changed_ns)
    whole = size == _HEADER.size + frames * _FRAME_BYTES and frames > 0
    return int(frames) if magic == _MAGIC and made_from == key and whole else None


def _frames(file: str, first: int, count: int) -> NDArray[np.float16]:
    """Frames of a file of parameters, float16 (count, 66)."""
    offset = _HEADER.size + first * _FRAME_BYTES
    try:
        found = np.fromfile(file, "<f2", count * PARAMETERS, offset=offset)
        return found.reshape(count, PARAMETERS)
    except (OSError, ValueError) as error:
        raise DataError(f"{file}: was changed or removed while in use ({error})") from error


def _write(place: Path, key: _Key, parameters: Parameters) -> None:
    frames = parameters.shape[1]
    header = _HEADER.pack(_MAGIC, key.version, key.sample_rate, key.size, key.changed_ns, frames)
    try:
        with replacing(place) as temporary, open(temporary, "wb") as file:
            file.write(header)
            file.write(np.ascontiguousarray(parameters.T.astype("<f2")).tobytes())
    except OSError as error:
        raise DataError(
            f"{place.parent}: parameters of speech cannot be kept there ({error.strerror}); name "
            "a folder for them in data.parameters (--out of data_scripts.parameters)"
        ) from error
