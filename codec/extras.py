"""Parts of Sotto whose packages are installed by name: `pip install 'sotto[EXTRA]'`."""

import contextlib
from collections.abc import Iterator

from codec.errors import SottoError

_OURS = frozenset({"codec", "infer", "data_scripts"})


class MissingPackageError(SottoError):
    """A package that a part of Sotto needs is not installed."""


@contextlib.contextmanager
def needing(extra: str) -> Iterator[None]:
    """A block of imports, or what does them, of packages that an extra brings.

    Raises:
        MissingPackageError: one is not installed; the message says what to type.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if not package or package in _OURS:
            raise  # a bug
        raise MissingPackageError(
            f"{package} is not installed: pip install 'sotto[{extra}]'"
        ) from error
