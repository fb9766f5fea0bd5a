"""A fuzz run: spoiled `.sc` and model files by the million, to be refused or read, never worse.

    nice python -m benchmarks.fuzz --cases 1000000 --state /tmp/fuzz

What a case may end in is a result or one of Sotto's errors. Any other exception, a case that takes
too long, and one that takes too much memory are findings: the file and what happened are kept in
the folder of the state. The run is seeded, so a case can be repeated (`--only`), and goes on where
it was stopped when started again with the same folder.
"""

import argparse
import contextlib
import functools
import hashlib
import io
import json
import random
import signal
import sys
import tempfile
import time
import traceback
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from benchmarks import fuzz_cases
from codec.atomic import replacing
from codec.codec import Codec
from codec.entropy import EntropyTables
from codec.errors import SottoError
from codec.model_file import read_model_file
from infer import edit
from infer.bitstream import Reader

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

# The largest block that a header may announce takes a few times 8 MiB, whatever the file's size.
MOST_PEAK = 192 << 20
# What a case may add to the address space before it is stopped.
MOST_SPACE = 3 << 30
# Model files are written for each case: in memory, where there is such a folder.
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
TRACED = 200  # Python's allocations are followed exactly in one case of so many: that is slow.
LOADED = 20  # A codec is built from one model file of so many.


class TooLong(BaseException):
    """Not an Exception: nothing should handle it on the way."""


class Pipe(io.RawIOBase):
    """Bytes that come in order, some at a time."""

    def __init__(self, data: bytes, most: int) -> None:
        self._file, self._most = io.BytesIO(data), most

    def readable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Gives `most` bytes at most."""
        piece = self._file.read(min(self._most, len(buffer)))
        buffer[: len(piece)] = piece
        return len(piece)


class Sink(io.RawIOBase):
    """Takes bytes and keeps none, up to what no spoiled small file should come to."""

    taken = 0

    def writable(self) -> bool:
        """Yes."""
        return True

    def write(self, data: Any) -> int:
        """Counts."""
        self.taken += len(data)
        return len(data)


@dataclass
class State:
    """How far a run is, and what came of it."""

    seed: int
    done: int = 0
    seconds: float = 0.0
    outcomes: Counter[str] = field(default_factory=Counter)
    findings: dict[str, dict[str, Any]] = field(default_factory=dict)
    slowest: float = 0.0
    slowest_case: int = 0
    largest_traced: int = 0
    largest_rise: int = 0

    @classmethod
    def load(cls, path: Path, seed: int) -> "State":
        """The state of a run that was stopped, or a new one."""
        if not path.exists():
            return cls(seed)
        values = json.loads(path.read_text(encoding="utf-8"))
        if values["seed"] != seed:
            sys.exit(f"{path} is of a run with seed {values['seed']}: choose another folder")
        return cls(**{**values, "outcomes": Counter(values["outcomes"])})

    def save(self, path: Path) -> None:
        """Writes it, whole or not at all."""
        with replacing(path) as part:
            part.write_text(json.dumps(vars(self), indent=1), encoding="utf-8")


class Fuzzer:
    """Makes and runs cases by their number."""

    def __init__(self, seed: int, scratch: Path, limit: float) -> None:
        self._seed = seed
        self._limit = limit
        self._scratch = scratch / "model.safetensors"
        self._tables: EntropyTables = fuzz_cases.tables()
        self._good = fuzz_cases.good_sc_files(self._tables)
        self._good["model"] = fuzz_cases.good_models(self._tables)
        self._all_sc = [
            data for kind, files in self._good.items() for data in files if kind != "model"
        ]

    def case(self, number: int) -> tuple[str, bytes, random.Random]:
        """Kind, file and further chance of a case."""
        chance = random.Random(f"{self._seed}/{number}")
        kind = chance.choices(list(self._good), weights=(2, 4, 3, 2))[0]
        data = chance.choice(self._good[kind])
        if kind == "model":
            return (
                kind,
                fuzz_cases.spoil_model(data, chance.choice(self._good[kind]), chance),
                chance,
            )
        if chance.random() < 0.02:
            return (
                kind,
                data[: chance.randrange(30)] + chance.randbytes(chance.randrange(200)),
                chance,
            )
        return kind, fuzz_cases.spoil_sc(data, chance.choice(self._all_sc), chance), chance

    def run(self, number: int, kind: str, data: bytes, chance: random.Random) -> str:
        """What came of a case, a word or two; raises what it should not have."""
        if kind == "model":
            self._scratch.write_bytes(data)
            task: Callable[[], object] = functools.partial(self._read_model, number)
        else:
            task = self._task(data, chance)
        with self._time_limit():
            try:
                task()
            except SottoError as error:
                _check_message(error)
                return type(error).__name__
        return "read"

    def _read_model(self, number: int) -> object:
        if number % LOADED == 0:
            return Codec.load(self._scratch)
        return read_model_file(self._scratch)

    def _task(self, data: bytes, chance: random.Random) -> Callable[[], object]:
        file: BinaryIO = io.BytesIO(data)
        if chance.random() < 0.3:
            file = Pipe(data, chance.choice((1, 3, 100, 1 << 16)))  # type: ignore[assignment]
        tables = self._tables if chance.random() < 0.9 else None
        sink: BinaryIO = Sink()  # type: ignore[assignment]
        start, stop = chance.randrange(60), chance.choice((None, 61, 2**32))
        what = chance.random()
        if what < 0.5:
            return lambda: _read(Reader(file, tables=tables), 0, None)
        if what < 0.6:
            return lambda: _read(Reader(file, strict=True, tables=tables), 0, None)
        if what < 0.75:
            return lambda: _read(
                Reader(file, tables=tables), start, chance.choice((None, 1, 2**40))
            )
        if what < 0.85:
            return lambda: edit.verify(file)
        if what < 0.93:
            return lambda: edit.trim(file, sink, chance.choice((1, 2, 255)), tables=tables)
        return lambda: edit.cut(file, sink, start, stop, tables=tables)

    @contextlib.contextmanager
    def _time_limit(self) -> Iterator[None]:
        if not hasattr(signal, "setitimer"):
            yield
            return
        signal.signal(signal.SIGALRM, _too_long)
        signal.setitimer(signal.ITIMER_REAL, self._limit)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)


def _read(reader: Reader, start: int, frames: int | None) -> None:
    """Reads and checks what is promised of blocks whatever the file."""
    expected = start
    for block in reader.blocks(start, frames):
        if block.first_frame < expected or block.frames < 1:
            raise AssertionError(f"block {block.first_frame} + {block.frames}, not {expected}")
        expected = block.first_frame + block.frames
        if block.codes is not None:
            shape = (reader.header.channels, reader.header.n_quantizers, block.frames)
            if block.codes.shape != shape or int(block.codes.max()) >> reader.header.bits:
                raise AssertionError(f"codes of shape {block.codes.shape} or out of range")
    for damage in reader.damage:
        damage.describe(reader.header.frame_rate)


def _check_message(error: SottoError) -> None:
    if not str(error):
        raise AssertionError("an error without a message") from error


def _too_long(*_: object) -> None:
    raise TooLong


def _space() -> int:
    """Most memory that the process has had, bytes; 0 where that is not known."""
    if resource is None:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak) * (1 if sys.platform == "darwin" else 1024)


def _limit_space() -> None:
    if resource is not None and sys.platform == "linux":
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MOST_SPACE, resource.RLIM_INFINITY))


def one_case(fuzzer: Fuzzer, state: State, number: int) -> tuple[str, bytes, str | None]:
    """Runs a case: its kind, its file, and what was found, if anything."""
    kind, data, chance = fuzzer.case(number)
    traced = number % TRACED == 0
    before, started, found = _space(), time.perf_counter(), None
    if traced:
        tracemalloc.start()
    try:
        outcome = fuzzer.run(number, kind, data, chance)
    except (Exception, TooLong) as error:
        outcome = type(error).__name__
        place = traceback.extract_tb(error.__traceback__)[-1]
        found = f"{kind}: {outcome} at {Path(place.filename).name}:{place.lineno} ({place.name})"
    peak = 0
    if traced:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    rise = _space() - before
    took = time.perf_counter() - started
    if took > state.slowest:
        state.slowest, state.slowest_case = took, number
    state.largest_traced = max(state.largest_traced, peak)
    if number:  # the first case loads what all need
        state.largest_rise = max(state.largest_rise, rise)
    if found is None and max(peak, rise) > MOST_PEAK:
        found = f"{kind}: {max(peak, rise) >> 20} MiB"
    state.outcomes[f"{kind}: {outcome}"] += 1
    return kind, data, found


def keep(state: State, folder: Path, number: int, data: bytes, found: str) -> None:
    """Keeps the first file of each finding."""
    entry = state.findings.setdefault(found, {"times": 0, "case": number})
    entry["times"] += 1
    if entry["case"] == number:
        name = f"{number}-{hashlib.sha256(found.encode()).hexdigest()[:8]}.bin"
        entry["file"] = name
        (folder / name).write_bytes(data)


def run(cases: int, seed: int, folder: Path, limit: float) -> State:
    """Runs the cases that are left."""
    path = folder / "state.json"
    state = State.load(path, seed)
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[found]} findings"))
    with (
        tempfile.TemporaryDirectory(dir=MEMORY) as scratch,
        Progress(*columns, TimeRemainingColumn()) as bar,
    ):
        fuzzer = Fuzzer(seed, Path(scratch), limit)
        _limit_space()
        task = bar.add_task("", total=cases, completed=state.done, found=len(state.findings))
        saved = started = time.perf_counter()
        try:
            while state.done < cases:
                _, data, found = one_case(fuzzer, state, state.done)
                if found is not None:
                    keep(state, folder, state.done, data, found)
                state.done += 1
                now = time.perf_counter()
                if now - saved > 2 or state.done == cases:
                    state.seconds += now - started
                    started = saved = now
                    state.save(path)
                    bar.update(task, completed=state.done, found=len(state.findings))
        finally:
            state.save(path)
    return state


def report(state: State) -> Table:
    """What came of it."""
    table = Table(
        title=f"{state.done:,} cases, {state.done / max(state.seconds, 1e-9):,.0f} a second"
    )
    table.add_column("outcome")
    table.add_column("cases", justify="right")
    for outcome, times in sorted(state.outcomes.items()):
        table.add_row(outcome, f"{times:,}")
    table.add_section()
    table.add_row(f"slowest case, {state.slowest_case}", f"{state.slowest:.2f} s")
    table.add_row("largest peak traced", f"{state.largest_traced / 2**20:.1f} MiB")
    table.add_row("largest rise of the process", f"{state.largest_rise / 2**20:.1f} MiB")
    table.add_section()
    for found, entry in state.findings.items():
        table.add_row(f"FOUND {found}, first case {entry['case']}", f"{entry['times']:,}")
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0] if __doc__ else None)
    parser.add_argument("--cases", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--state", type=Path, required=True, help="folder of state and findings")
    parser.add_argument("--limit", type=float, default=20.0, help="seconds a case may take")
    parser.add_argument("--only", type=int, help="run this case alone, with its traceback")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.state.mkdir(parents=True, exist_ok=True)
    if arguments.only is not None:
        with tempfile.TemporaryDirectory() as scratch:
            fuzzer = Fuzzer(arguments.seed, Path(scratch), arguments.limit)
            case = fuzzer.case(arguments.only)
            print(case[0], fuzzer.run(arguments.only, *case))
        return
    state = run(arguments.cases, arguments.seed, arguments.state, arguments.limit)
    Console().print(report(state))
    sys.exit(1 if state.findings else 0)


if __name__ == "__main__":
    main()
