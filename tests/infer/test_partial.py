import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from codec.errors import SottoError
from infer import partial
from infer.partial import NoReaderError, OutputError, remove_stale, writing
from infer.streams import open_output

POSIX = pytest.mark.skipif(os.name != "posix", reason="Windows keeps open files by itself")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_is_written_appears_when_the_block_ends(tmp_path: Path) -> None:
    target = tmp_path / "a.sc"
    with writing(target) as file:
        file.write(b"whole")
        assert not target.exists() and len(names(tmp_path)) == 1
    assert target.read_bytes() == b"whole" and names(tmp_path) == ["a.sc"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_leaves_what_was_there(tmp_path: Path, error: type[BaseException]) -> None:
    target = tmp_path / "a.sc"
    target.write_bytes(b"old")
    with pytest.raises(error), writing(target) as file:
        file.write(b"half")
        raise error
    assert target.read_bytes() == b"old" and names(tmp_path) == ["a.sc"]


def test_a_folder_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    wrong = writing(tmp_path / "file" / "a.sc")
    with pytest.raises(OutputError, match=r"a\.sc cannot be written"), wrong:
        pass


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_device_is_not_replaced_by_a_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.sc")
    with pytest.raises(SottoError, match="not a plain file"), writing(tmp_path / "pipe.sc"):
        pass
    assert (tmp_path / "pipe.sc").is_fifo()


@pytest.mark.skipif(sys.platform != "linux", reason="sets a limit that only some systems have")
def test_a_file_that_outgrows_its_limit_is_an_error_and_no_file(tmp_path: Path) -> None:
    import resource

    target = tmp_path / "a.sc"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        message = r"a\.sc cannot be written: File too large"
        with pytest.raises(OutputError, match=message) as caught, writing(target) as file:
            for _ in range(30):
                file.write(bytes(10_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not caught.value.disk_full and names(tmp_path) == []


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no full device")
def test_a_full_disk_is_told_from_other_faults() -> None:
    message = "No space left on device"
    with (
        open("/dev/full", "wb", buffering=0) as full,
        pytest.raises(OutputError, match=message) as caught,
    ):
        partial.Output(full, "x.sc").write(b"something")
    assert caught.value.disk_full


def test_a_reader_that_goes_away_is_no_fault_of_the_output() -> None:
    class Gone:
        def write(self, data: bytes) -> int:
            raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    with pytest.raises(NoReaderError):
        partial.Output(Gone(), "standard output").write(b"something")  # type: ignore[arg-type]


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    program = (
        "import os, pathlib, sys\n"
        "from infer.partial import writing\n"
        "with writing(pathlib.Path(sys.argv[1])) as file:\n"
        "    file.write(b'half')\n"
        "    file.flush()\n"
        "    os._exit(9)\n"
    )
    target = tmp_path / "a.sc"
    subprocess.run([sys.executable, "-c", program, target], check=False)
    [part] = names(tmp_path)
    assert part.startswith(".a.sc.") and part.endswith(".part")
    assert remove_stale([tmp_path / "b.sc"]) == []  # not of this output
    assert [path.name for path in remove_stale([target])] == [part]
    assert names(tmp_path) == []


def test_what_another_is_writing_stays(tmp_path: Path) -> None:
    target = tmp_path / "a.sc"
    with writing(target) as file:
        file.write(b"whole")
        assert remove_stale([target]) == []
    assert target.read_bytes() == b"whole"


@pytest.mark.parametrize(
    "name",
    ["a.sc", ".a.sc", ".a.sc.part", ".a.sc.0123456g.part", ".a.sc.01234567.part.x", "a.sc.part"],
)
def test_files_of_other_names_stay(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    assert remove_stale([tmp_path / "a.sc", tmp_path / "gone" / "a.sc"]) == []
    assert names(tmp_path) == [name]


@POSIX
def test_a_part_deleted_before_it_was_locked_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, removed = partial._lock, []

    def late(file: object, *, wait: bool) -> bool:
        if wait and not removed:
            removed.extend(remove_stale([tmp_path / "a.sc"]))
        return lock(file, wait=wait)  # type: ignore[arg-type]

    monkeypatch.setattr(partial, "_lock", late)
    with writing(tmp_path / "a.sc") as file:
        file.write(b"whole")
    assert removed and (tmp_path / "a.sc").read_bytes() == b"whole"


def test_stdout_never_seeks() -> None:
    with open_output(Path("-")) as file:
        assert not hasattr(file, "seek")
