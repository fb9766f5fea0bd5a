"""Tasks on processes. The module of the tasks is written to disk for the processes to import."""

import os
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import ModuleType

import pytest

from infer.workers import Failure, work_through

MODULE = """
import errno, os, time
from pathlib import Path
from codec.errors import AudioError
from infer.partial import OutputError, writing

def start():
    return work

def work(task, report):
    kind, _, value = task.partition(" ")
    if kind == "double":
        report(0.5)
        return int(value) * 2
    if kind == "bad":
        raise AudioError(f"{value}: no audio")
    if kind == "missing":
        raise FileNotFoundError(errno.ENOENT, "No such file", value)
    if kind == "bug":
        raise ZeroDivisionError("one\\ntwo")
    if kind == "after":
        while not Path(value).exists():
            time.sleep(0.01)
        time.sleep(0.1)
        return 0
    if kind == "full":
        Path(value).touch()
        raise OutputError("disk: full", disk_full=True)
    if kind == "die":
        os._exit(7)
    if kind == "write":
        with writing(Path(value)) as file:
            file.write(b"half")
            file.flush()
            for _ in range(600):
                time.sleep(0.05)
                report(0.5)
"""


@pytest.fixture
def tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    folder = tmp_path / "module"
    folder.mkdir()
    (folder / "tasks_of_a_test.py").write_text(MODULE)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "tasks_of_a_test", raising=False)
    import tasks_of_a_test  # type: ignore[import-not-found]

    return tasks_of_a_test


def ignore(number: int, share: float) -> None:
    pass


@pytest.mark.parametrize("jobs", [1, 2])
def test_what_fails_does_not_stop_the_others(tasks: ModuleType, jobs: int) -> None:
    todo = ["double 1", "bad x.mp3", "missing y.mp3", "double 2", "bug", "double 3"]
    found = dict(work_through(tasks.start, todo, jobs=jobs, report=ignore))
    assert found == {
        0: 2,
        1: Failure("x.mp3: no audio"),
        2: Failure("y.mp3: No such file"),
        3: 4,
        4: Failure("unexpected ZeroDivisionError: one\ntwo"),
        5: 6,
    }


@pytest.mark.parametrize("jobs", [1, 2])
def test_nothing_is_begun_after_a_full_disk(tasks: ModuleType, tmp_path: Path, jobs: int) -> None:
    began = tmp_path / "began"
    todo = [f"full {began}", *[f"after {began}"] * 50]
    found = list(work_through(tasks.start, todo, jobs=jobs, report=ignore))
    assert (0, Failure("disk: full", final=True)) in found and len(found) < 51


def test_a_process_that_dies_costs_its_task_alone(tasks: ModuleType) -> None:
    todo = ["die", "double 1", "die", "double 2", "double 3"]
    found = dict(work_through(tasks.start, todo, jobs=2, report=ignore))
    died = Failure("the process that was at it died (exit code 7)")
    assert found == {0: died, 1: 2, 2: died, 3: 4, 4: 6}


def test_progress_is_told_in_this_process(tasks: ModuleType) -> None:
    told: list[tuple[int, float]] = []
    list(work_through(tasks.start, ["double 1"], jobs=1, report=lambda *at: told.append(at)))
    assert told == [(0, 0.5)]


@pytest.mark.skipif(os.name != "posix", reason="there a process ends without cleaning up")
def test_closing_ends_the_workers_and_they_leave_nothing(tasks: ModuleType, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    todo = [f"write {out}/a.sc", f"write {out}/b.sc", "double 1"]
    told: list[int] = []

    def report(number: int, share: float) -> None:
        told.append(number)
        if {0, 1} <= set(told):
            raise KeyboardInterrupt

    results = work_through(tasks.start, todo, jobs=2, report=report)
    with pytest.raises(KeyboardInterrupt), closing(results):
        list(results)
    assert list(out.iterdir()) == []


@pytest.mark.skipif(os.name != "posix", reason="sends a signal")
def test_workers_end_when_their_parent_is_killed(tasks: ModuleType, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    program = (
        "import sys, tasks_of_a_test\n"
        "from infer.workers import work_through\n"
        "if __name__ == '__main__':\n"
        "    todo = [f'write {sys.argv[1]}/{name}.sc' for name in 'ab']\n"
        "    list(work_through(tasks_of_a_test.start, todo, jobs=2, report=lambda *at: None))\n"
    )
    (tmp_path / "module" / "main.py").write_text(program)
    import subprocess

    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(
        [sys.executable, tmp_path / "module" / "main.py", out], env=environment
    )
    try:
        wait_for(lambda: len(list(out.iterdir())) == 2)
    finally:
        process.kill()
        process.wait()
    wait_for(lambda: not list(out.iterdir()))


def wait_for(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
