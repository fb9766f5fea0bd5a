"""Files and pipes by their paths: `-` is stdin or stdout."""

import contextlib
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from infer.bytesource import is_seekable
from infer.partial import Output, writing
from infer.planning import PIPE


@contextlib.contextmanager
def open_input(path: Path) -> Iterator[BinaryIO]:
    """A file to read, or stdin."""
    if path == PIPE:
        yield sys.stdin.buffer
    else:
        with open(path, "rb") as file:
            yield file


@contextlib.contextmanager
def open_seekable_input(path: Path) -> Iterator[BinaryIO]:
    """A file to read; what stdin, or another pipe, gives until its end is put on disk."""
    with open_input(path) as file:
        if path != PIPE and is_seekable(file):
            yield file
            return
        with tempfile.TemporaryFile() as whole:
            shutil.copyfileobj(file, whole)
            whole.seek(0)
            yield whole


@contextlib.contextmanager
def open_output(path: Path) -> Iterator[Output]:
    """A file that appears when the block ends well, or stdout.

    What goes to stdout never seeks, even where stdout is a file: it may be one to append to.

    Raises:
        OutputError: it cannot be written.
    """
    if path == PIPE:
        output = Output(sys.stdout.buffer, "standard output")
        yield output
        output.flush()
    else:
        with writing(path) as output:
            yield output


def input_name(path: Path) -> str:
    """What messages call an input."""
    return "standard input" if path == PIPE else str(path)


def size_of(path: Path, otherwise: int = 0) -> int:
    """Bytes of a file; of a pipe, what is known otherwise."""
    return otherwise if path == PIPE else path.stat().st_size
