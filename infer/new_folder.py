"""A folder of outputs that is either whole or not there."""

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

from codec.errors import SottoError


def check_new_folder(target: Path, *, mark: str, what: str, replace: bool) -> None:
    """What `new_folder` refuses, before any work; arguments and errors are its."""
    if target.exists() and not (replace and (target / mark).is_file()):
        hint = f"--force replaces {what}" if (target / mark).is_file() else "name another"
        raise SottoError(f"{target} is there already: {hint}")


@contextlib.contextmanager
def new_folder(target: Path, *, mark: str, what: str, replace: bool) -> Iterator[Path]:
    """A hidden folder beside `target` that takes its place if the block ends well.

    Args:
        target: the folder to make.
        mark: a file by which an earlier folder of the kind is known; no other is replaced.
        what: such as "an export", for messages.
        replace: a folder of the kind that is there.

    Raises:
        SottoError: the target is there, and is not to be replaced or of another kind.
        OSError: the folder cannot be made or written.
    """
    check_new_folder(target, mark=mark, what=what, replace=replace)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.part")
    temporary.mkdir()
    try:
        yield temporary
        if target.exists():
            shutil.rmtree(target)
        os.replace(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
