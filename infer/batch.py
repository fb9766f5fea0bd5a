"""Runs a plan: progress on a terminal, what is there already skipped, errors gathered."""

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from infer.conversion import Conversion
from infer.partial import remove_stale
from infer.planning import PIPE, Item, Plan
from infer.workers import Failure, Work, work_through

_FILES_PER_JOB = 32  # a process takes seconds to start: not worth it for less


@dataclass
class Outcome:
    """What came of a plan.

    Attributes:
        done: files that were converted.
        skipped: whose outputs were there.
        failed: files and reasons.
        undone: files that were not begun, after something that nothing could go on after.
        elapsed: seconds that all took.
    """

    done: list[tuple[Item, Conversion]] = field(default_factory=list)
    skipped: list[Item] = field(default_factory=list)
    failed: list[tuple[Path, str]] = field(default_factory=list)
    undone: int = 0
    elapsed: float = 0.0

    @property
    def seconds(self) -> float:
        """Of audio."""
        return sum(conversion.seconds for _, conversion in self.done)

    @property
    def speed(self) -> float:
        """Seconds of audio per second: the real-time factor of all processes together."""
        return self.seconds / max(self.elapsed, 1e-9)


@dataclass(frozen=True)
class Threads:
    """Starts work on a share of the cores: picklable, so that workers can be given it."""

    start: Callable[[], Work[Item, Conversion]]
    count: int

    def __call__(self) -> Work[Item, Conversion]:
        """Gives the work, in a process whose networks use `count` threads."""
        os.environ["OMP_NUM_THREADS"] = str(self.count)  # read when torch is first imported
        return self.start()


def run(
    plan: Plan,
    start: Callable[[], Work[Item, Conversion]],
    *,
    doing: str,
    jobs: int | None = None,
    force: bool = False,
) -> Outcome:
    """Converts the files of a plan.

    Args:
        plan: what to read and write.
        start: gives what converts a file; called in each process. Must pickle for jobs > 1.
        doing: shown beside the progress bar, as "encoding".
        jobs: processes; none: one a core, as far as there are enough files to be worth it.
        force: do again what is there.

    Raises:
        Exception: what is wrong with a file, where the plan is that file alone.
    """
    outcome = Outcome(failed=list(plan.refused))
    targets = [item.target for item in plan.items if item.target != PIPE]
    remove_stale(targets)
    items: list[Item] = []
    for item in plan.items:
        kept = plan.many and not force and item.target.exists()
        (outcome.skipped if kept else items).append(item)
    began = time.perf_counter()
    with progress_bar(doing, items) as report:
        if not plan.many:
            work = start()
            outcome.done += [(item, work(item, _first(report))) for item in items]
        elif items:
            _run_many(
                outcome, items, start, default_jobs(len(items)) if jobs is None else jobs, report
            )
    outcome.elapsed = time.perf_counter() - began
    return outcome


def default_jobs(files: int) -> int:
    """Processes for so many files."""
    return max(1, min(os.cpu_count() or 1, files // _FILES_PER_JOB))


def _run_many(
    outcome: Outcome,
    items: Sequence[Item],
    start: Callable[[], Work[Item, Conversion]],
    jobs: int,
    report: Callable[[int, float], None],
) -> None:
    if jobs > 1 and len(items) > 1:
        start = Threads(start, max(1, (os.cpu_count() or 1) // min(jobs, len(items))))
    waiting = set(range(len(items)))
    try:
        with closing(work_through(start, items, jobs=jobs, report=report)) as results:
            for number, result in results:
                waiting.discard(number)
                report(number, 1.0)
                if isinstance(result, Failure):
                    outcome.failed.append((items[number].source, result.reason))
                else:
                    outcome.done.append((items[number], result))
    finally:
        # A process that could not clean up behind itself.
        remove_stale(items[number].target for number in waiting)
    outcome.undone = len(waiting)


def _first(report: Callable[[int, float], None]) -> Callable[[float], None]:
    return lambda share: report(0, share)


@contextmanager
def progress_bar(doing: str, items: Sequence[Item]) -> Iterator[Callable[[int, float], None]]:
    """Shows how far the items are and how long it will take, on stderr if it is a terminal.

    Yields:
        what to call with the number of an item and the share of it that is done.
    """
    if not items or not sys.stderr.isatty():
        yield lambda number, share: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    sizes = [max(1, item.source_bytes) for item in items]
    shares = [0.0] * len(items)
    ended = 0
    with ExitStack() as stack:
        progress = stack.enter_context(
            Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                TaskProgressColumn(),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                console=Console(stderr=True),
                transient=True,
            )
        )
        known = items[0].source != PIPE
        task = progress.add_task(doing, total=float(sum(sizes)) if known else None)

        def report(number: int, share: float) -> None:
            nonlocal ended
            ended += share >= 1
            step = sizes[number] * (share - shares[number])
            shares[number] = share
            files = f" {ended}/{len(items)}" if len(items) > 1 else ""
            progress.update(task, advance=step, description=doing + files)

        yield report
