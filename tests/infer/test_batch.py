import io
import sys
from pathlib import Path

import pytest

from infer.batch import default_jobs, progress_bar, run
from infer.conversion import Conversion
from infer.planning import PIPE, Item, Plan


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def conversion(seconds: float) -> Conversion:
    return Conversion(seconds, 1, 1, 1, 1, 0.1)


def test_the_bar_is_for_terminals_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a").write_bytes(bytes(30))
    (tmp_path / "b").write_bytes(bytes(10))
    items = [Item(tmp_path / name, tmp_path / f"{name}.sc") for name in "ab"]
    with progress_bar("encoding", items) as report:
        report(0, 1.0)
    assert capsys.readouterr() == ("", "")
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    with progress_bar("encoding", items) as report:
        report(0, 0.5)
        report(0, 1.0)
        report(1, 0.2)
    assert "encoding 1/2" in screen.getvalue() and "80%" in screen.getvalue()
    with progress_bar("encoding", [Item(PIPE, tmp_path / "x.sc")]) as report:
        report(0, 0.0)


@pytest.mark.parametrize(("n_files", "most"), [(0, 1), (1, 1), (63, 1), (64, 2), (10_000, 312)])
def test_processes_are_started_for_many_files_only(n_files: int, most: int) -> None:
    assert 1 <= default_jobs(n_files) <= most


def test_an_error_of_the_only_file_is_raised(tmp_path: Path) -> None:
    def start():  # type: ignore[no-untyped-def]
        def work(item: Item, report: object) -> Conversion:
            raise ZeroDivisionError

        return work

    plan = Plan([Item(tmp_path / "a", tmp_path / "a.sc")])
    with pytest.raises(ZeroDivisionError):
        run(plan, start, doing="encoding")


def test_the_speed_is_that_of_all_together(tmp_path: Path) -> None:
    items = [Item(tmp_path / f"{number}", tmp_path / f"{number}.sc") for number in range(3)]
    items[1].target.touch()
    plan = Plan(items, refused=[(tmp_path / "x", "because")], many=True)
    outcome = run(plan, lambda: lambda item, report: conversion(2.0), doing="encoding", jobs=1)
    assert len(outcome.done) == 2 and outcome.skipped == [items[1]]
    assert outcome.failed == [(tmp_path / "x", "because")] and outcome.undone == 0
    assert outcome.seconds == 4.0
    assert outcome.speed == pytest.approx(4.0 / outcome.elapsed)
