"""What stands between FFmpeg and Python's files."""

import errno
import io
import os
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from codec.audio_files import InputFile, OutputFile, source_name
from codec.errors import AudioError


class Pipe:
    name = "pipe"

    def __init__(self, *answers: bytes | BaseException | None) -> None:
        self.answers = list(answers)

    def read(self, size: int) -> bytes | None:
        answer = self.answers.pop(0) if self.answers else b""
        if isinstance(answer, BaseException):
            raise answer
        return answer


def test_names() -> None:
    assert source_name(Path("a.wav")) == "a.wav"
    assert source_name(Pipe()) == "pipe"
    assert source_name(io.BytesIO()) == "audio data"
    with tempfile.TemporaryFile() as nameless:  # its name is a number where it has one
        assert source_name(nameless) in ("audio data", nameless.name)


def test_standard_streams_are_called_that_in_messages() -> None:
    assert sys.__stdin__ is not None and sys.__stdout__ is not None
    assert source_name(sys.__stdin__.buffer) == "standard input"
    assert source_name(sys.__stdout__.buffer) == "standard output"


def test_a_pipe_is_read_once_and_whole() -> None:
    file = InputFile(Pipe(b"abcd", b"efgh", b"ijkl", b"mnop"))  # type: ignore[arg-type]
    assert not file.seekable()
    assert [file.read(3), file.read(30), file.read(30), file.read(30)] == [
        b"abc",
        b"defghijkl",
        b"mnop",
        b"",
    ]
    file.check()


def test_an_mp4_file_on_a_pipe_can_seek() -> None:
    data = b"\0\0\0 ftypM4A " + bytes(range(100))
    file = InputFile(Pipe(data[:7], data[7:12], data[12:]))  # type: ignore[arg-type]
    assert file.seekable()
    assert file.read(1000) == data
    file.seek(-3, os.SEEK_END)
    assert file.read(1000) == data[-3:]
    file.close()


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (OSError(errno.EIO, "Input/output error"), "Input/output error"),
        (b"x" * 50, "it gave 50 bytes where 10 were asked for"),
        (None, "it has no data yet and does not wait for any"),
    ],
    ids=["error", "too much", "would block"],
)
def test_what_goes_wrong_while_reading_is_kept(answer: object, reason: str) -> None:
    file = InputFile(Pipe(b"some header.", answer))  # type: ignore[arg-type]
    assert [file.read(12), file.read(10), file.read(10)] == [b"some header.", b"", b""]
    with pytest.raises(AudioError, match=f"^pipe: cannot be read \\({reason}\\)$"):
        file.check()


def test_other_errors_stay_what_they_are() -> None:
    file = InputFile(Pipe(b"some header.", KeyboardInterrupt()))  # type: ignore[arg-type]
    file.read(12)
    file.read(10)
    with pytest.raises(KeyboardInterrupt):
        file.check()


def test_a_place_before_the_beginning_is_no_error() -> None:
    file = InputFile(io.BytesIO(b"12345"))
    assert file.seek(-9) == -1
    file.check()
    assert file.read(9) == b"12345"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes are POSIX's")
def test_a_named_pipe_is_a_pipe(tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_bytes, args=(b"0123456789abcdef",))
    writer.start()
    file = InputFile(path)
    assert not file.seekable()
    assert file.read(12) + file.read(12) == b"0123456789abcdef"
    file.close()
    writer.join()


def test_writing_goes_on_until_all_is_written() -> None:
    class Slow(io.BytesIO):
        def write(self, data: memoryview) -> int:  # type: ignore[override]
            return super().write(data[:3])

    slow = Slow()
    file = OutputFile(slow, "slow")
    assert file.write(b"0123456789") == 10
    file.check()
    assert slow.getvalue() == b"0123456789"


def test_after_an_error_nothing_more_is_written() -> None:
    class Full(io.BytesIO):
        def write(self, data: memoryview) -> int:  # type: ignore[override]
            if len(data) > 5:
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().write(data)

    full = Full()
    file = OutputFile(full, "full")
    for data in (b"12345", b"678901", b"2"):
        assert file.write(data) == len(data)
    assert full.getvalue() == b"12345"
    with pytest.raises(AudioError, match=r"^full: cannot be written \(No space left on device\)$"):
        file.check()
