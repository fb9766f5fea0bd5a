"""Figures to files."""

from pathlib import Path

from matplotlib.figure import Figure

from codec.atomic import replacing
from codec.errors import SottoError


def save_figure(figure: Figure, path: Path) -> None:
    """Writes a figure as a PNG, whole or not at all.

    Raises:
        SottoError: The file cannot be written.
    """
    try:
        with replacing(path) as temporary:
            figure.savefig(temporary, format="png", dpi=120)
    except OSError as error:
        raise SottoError(f"{path}: cannot be written: {error.strerror or error}") from error
