"""Files that are either whole or not there."""

import contextlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A hidden temporary file beside ``path`` that takes its place if the block ends well.

    Makes the parent folders. After an exception (Ctrl-C too) the temporary file is gone and
    ``path`` is as it was.

    Raises:
        OSError: the folder cannot be made or written, or the disk is full.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
