"""Many tasks, one after the other or on several processes; what fails does not stop the others.

A process is a worker that is given one task at a time. One that dies (out of memory, a crash in a
decoder) costs the task it was at, and another takes its place. Workers end with the process that
started them, however that ends, and clean up behind themselves where the system lets them.
"""

import contextlib
import multiprocessing
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Any, Generic, TypeVar

from codec.errors import SottoError
from infer.partial import NoReaderError, OutputError

Task = TypeVar("Task")
Result = TypeVar("Result")
Report = Callable[[float], None]  # told the share that is done, 0 to 1, now and then
Work = Callable[[Task, Report], Result]

_REPORT_SECONDS = 0.1
_STOP_SECONDS = 10.0


class Terminated(BaseException):
    """SIGTERM, or its like: end now, and leave nothing behind."""


class _ParentGone(BaseException):
    """Nobody waits for this worker's results any more."""


@dataclass(frozen=True)
class Failure:
    """Why a task came to nothing.

    Attributes:
        reason: one line.
        final: nothing else can succeed either (the disk is full).
    """

    reason: str
    final: bool = False


def raise_on_signals() -> None:
    """Makes SIGTERM, and SIGHUP where there is one, end the block they come in, as Ctrl-C does."""

    def end(number: int, _: FrameType | None) -> None:
        raise Terminated(signal.Signals(number).name)

    if threading.current_thread() is threading.main_thread():
        for name in ("SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)
            # One that was ignored from outside (nohup) stays so.
            if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, end)


def work_through(
    start: Callable[[], Work[Task, Result]],
    tasks: Sequence[Task],
    *,
    jobs: int,
    report: Callable[[int, float], None],
) -> Generator[tuple[int, Result | Failure]]:
    """Does every task; yields its number and what came of it, in the order in which they end.

    After a final failure nothing more is begun. Closing the iterator ends the workers.

    Args:
        start: called once a process, before its first task; gives what each task is called with.
            With more than one job it must pickle, as tasks and results must.
        tasks: in the order to begin them.
        jobs: processes; 1 does everything in this one.
        report: told a task's number and the share of it that is done.

    Raises:
        NoReaderError: what the tasks write to stdout.
    """
    if jobs > 1 and len(tasks) > 1:
        yield from _Pool(start, tasks, min(jobs, len(tasks)), report).run()
    elif tasks:
        work = start()
        for number, task in enumerate(tasks):
            outcome = attempt(work, task, partial(report, number))
            yield number, outcome
            if isinstance(outcome, Failure) and outcome.final:
                return


def attempt(work: Work[Task, Result], task: Task, report: Report) -> Result | Failure:
    """What a task gives, or why it fails; whatever is wrong with it ends here."""
    try:
        return work(task, report)
    except NoReaderError:
        raise
    except OutputError as error:
        return Failure(str(error), final=error.disk_full)
    except SottoError as error:
        return Failure(str(error))
    except OSError as error:
        return Failure(system_error(error))
    except MemoryError:
        return Failure("there is not enough memory for it")
    except Exception as error:  # a bug: the other files should not suffer from it
        return Failure(f"unexpected {type(error).__name__}: {error}")


def system_error(error: OSError) -> str:
    """What the system says, the file first: `out.sc: No space left on device`."""
    reason = error.strerror or str(error) or type(error).__name__
    return reason if error.filename is None else f"{error.filename}: {reason}"


@dataclass
class _Worker(Generic[Task]):
    process: BaseProcess
    connection: Connection
    task: int | None = None


@dataclass
class _Pool(Generic[Task, Result]):
    start: Callable[[], Work[Task, Result]]
    tasks: Sequence[Task]
    jobs: int
    report: Callable[[int, float], None]
    _workers: list[_Worker[Task]] = field(default_factory=list)
    _leaving: list[BaseProcess] = field(default_factory=list)

    def run(self) -> Generator[tuple[int, Result | Failure]]:
        waiting = deque(range(len(self.tasks)))
        try:
            for _ in range(self.jobs):
                self._give(self._new_worker(), waiting)
            while self._workers:
                ready = wait([worker.connection for worker in self._workers])
                for worker in [w for w in self._workers if w.connection in ready]:
                    number = worker.task
                    outcome = self._receive(worker)
                    if outcome is None or number is None:
                        continue
                    yield number, outcome
                    if isinstance(outcome, Failure) and outcome.final:
                        return
                    if worker not in self._workers and waiting:
                        worker = self._new_worker()
                    if worker in self._workers:
                        self._give(worker, waiting)
        finally:
            self._stop()

    def _new_worker(self) -> _Worker[Task]:
        context = multiprocessing.get_context("spawn")  # forks and threads do not mix
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs, self.start), daemon=True)
        process.start()
        theirs.close()  # so that ours ends when the process does
        worker = _Worker[Task](process, ours)
        self._workers.append(worker)
        return worker

    def _give(self, worker: _Worker[Task], waiting: deque[int]) -> None:
        """Hands over the next task, or lets the worker go when there is none."""
        worker.task = waiting.popleft() if waiting else None
        task = None if worker.task is None else self.tasks[worker.task]
        with contextlib.suppress(OSError):  # it died: what is received next says so
            worker.connection.send(task)
        if worker.task is None:
            self._workers.remove(worker)
            self._leaving.append(worker.process)
            worker.connection.close()

    def _receive(self, worker: _Worker[Task]) -> Result | Failure | None:
        """What a worker says: the end of its task, or None for news on the way."""
        try:
            message: Any = worker.connection.recv()
        except (EOFError, OSError):
            self._workers.remove(worker)
            worker.process.join(_STOP_SECONDS)
            worker.connection.close()
            code = worker.process.exitcode
            return Failure(f"the process that was at it died (exit code {code})")
        if isinstance(message, float):
            if worker.task is not None:
                self.report(worker.task, message)
            return None
        return message[0]

    def _stop(self) -> None:
        for worker in self._workers:
            worker.process.terminate()
            worker.connection.close()
        for process in [*self._leaving, *(worker.process for worker in self._workers)]:
            process.join(_STOP_SECONDS)
            if process.is_alive():
                process.kill()
                process.join()
        self._workers.clear()


def _serve(connection: Connection, start: Callable[[], Work[Any, Any]]) -> None:
    """The life of a worker: tasks come in, shares (floats) and results (in tuples) go out."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; ours is told
    raise_on_signals()
    reported = 0.0

    def report(share: float) -> None:
        nonlocal reported
        if time.monotonic() - reported >= _REPORT_SECONDS:
            reported = time.monotonic()
            send(float(share))

    def send(message: object) -> None:
        try:
            connection.send(message)
        except OSError:
            raise _ParentGone from None

    work: Work[Any, Any] | None = None
    with contextlib.suppress(Terminated, _ParentGone, EOFError, ConnectionError):
        while (task := connection.recv()) is not None:
            outcome: Any
            try:
                work = work or start()
            except SottoError as error:
                outcome = Failure(str(error), final=True)
            else:
                outcome = attempt(work, task, report)
            send((outcome,))
