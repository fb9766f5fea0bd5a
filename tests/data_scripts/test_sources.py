"""Archives, folders and hub rows."""

import builtins
import io
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from codec.errors import AudioError, DataError
from data_scripts.sources import hub_rows, members, row_audio

FILES = {"c/a.txt": b"first" * 100, "c/d/b.bin": bytes(range(256)) * 400, "c/e.txt": b"last"}


def pack(path: Path, mode: str) -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, data in FILES.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_archives_are_streamed(mode: str, tmp_path: Path) -> None:
    problems: list[str] = []
    path = pack(tmp_path / "a.tar", mode)
    found = {str(member.name): member.load() for member in members([path], problems)}
    assert found == FILES and problems == []


def test_folders_are_walked_in_order(tmp_path: Path) -> None:
    with tarfile.open(pack(tmp_path / "a.tar", "w")) as archive:
        archive.extractall(tmp_path / "x", filter="data")
    found = list(members([tmp_path / "x"], []))
    assert [member.name.name for member in found] == ["a.txt", "b.bin", "e.txt"]
    assert all(isinstance(member.load(), Path) for member in found)
    assert [member.bytes() for member in found] == list(FILES.values())


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_a_cut_archive_gives_what_comes_before(mode: str, tmp_path: Path) -> None:
    path = pack(tmp_path / "a.tar", mode)
    size = 60000 if mode == "w" else path.stat().st_size // 2
    path.write_bytes(path.read_bytes()[:size])
    problems: list[str] = []
    read: list[bytes] = []
    for member in members([path, pack(tmp_path / "b.tar", "w")], problems):
        try:
            read.append(member.bytes())
        except AudioError:
            read.append(b"cut")
    # The first, the one that is cut, and then all of the next archive.
    assert read[-3:] == list(FILES.values())
    assert len(problems) + read.count(b"cut") >= 1
    if problems:
        assert "a.tar: damaged or cut after" in problems[0]


def test_what_is_no_archive_ends_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(b"nothing of the kind" * 100)
    with pytest.raises(DataError, match=r"a\.tar: not a tar archive that can be read"):
        list(members([tmp_path / "a.tar"], []))
    with pytest.raises(DataError, match=r"b\.tar: there is no such archive"):
        list(members([tmp_path / "b.tar"], []))


class Rows(list[dict[str, Any]]):
    def cast_column(self, name: str, kind: object) -> "Rows":
        assert (name, kind) == ("audio", "decode=False")
        return self


def fake_datasets(load: object) -> SimpleNamespace:
    return SimpleNamespace(load_dataset=load, Audio=lambda decode: f"decode={decode}")


def test_hub_rows_stream_undecoded(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    def load(*names: str, **options: object) -> Rows:
        asked.extend((names, options))
        return Rows([{"audio": {"bytes": b"x", "path": "a.flac"}}])

    monkeypatch.setitem(sys.modules, "datasets", fake_datasets(load))
    rows = list(hub_rows("who/what", "clean:train.100"))
    assert rows[0]["audio"]["bytes"] == b"x"
    assert asked == [("who/what", "clean"), {"split": "train.100", "streaming": True}]


def test_hub_errors_end_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: str, **__: object) -> Rows:
        raise ConnectionError("no network\nand a long tale")

    monkeypatch.setitem(sys.modules, "datasets", fake_datasets(load))
    with pytest.raises(DataError) as error:
        list(hub_rows("who/what", "clean:train"))
    assert str(error.value) == "who/what clean:train: cannot be read from the hub (no network)"
    with pytest.raises(DataError, match="'clean' is not CONFIG:SPLIT"):
        list(hub_rows("who/what", "clean"))


def test_without_datasets_the_way_to_install_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    importing = builtins.__import__

    def refuse(name: str, *rest: Any) -> Any:
        if name == "datasets":
            raise ImportError(name)
        return importing(name, *rest)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(DataError, match=r"pip install 'sotto\[data\]'"):
        next(hub_rows("a/b", "c:d"))


def test_a_breaking_connection_ends_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    class Breaking(Rows):
        def __iter__(self) -> Iterator[dict[str, Any]]:
            yield {"audio": {}}
            raise TimeoutError

    monkeypatch.setitem(sys.modules, "datasets", fake_datasets(lambda *_, **__: Breaking()))
    rows = hub_rows("a/b", "c:d")
    next(rows)
    with pytest.raises(DataError, match=r"cannot be read from the hub \(TimeoutError\)"):
        next(rows)


def test_rows_give_bytes_or_a_path() -> None:
    assert row_audio({"audio": {"bytes": b"x", "path": None}}) == b"x"
    assert row_audio({"audio": {"bytes": None, "path": "a.mp3"}}) == Path("a.mp3")
    for row in ({}, {"audio": None}, {"audio": {"bytes": None, "path": None}}):
        with pytest.raises(AudioError):
            row_audio(row)
