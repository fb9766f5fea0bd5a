"""Which model a command uses: the one named, that of SOTTO_MODEL, or the one that is shipped."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from codec import shipped
from codec.errors import SottoError

if TYPE_CHECKING:
    from codec.codec import Codec

VARIABLE = "SOTTO_MODEL"


def find_model(named: Path | None = None) -> Path:
    """The model file to use; whether it is one shows when it is loaded.

    Args:
        named: what the user said, which comes before everything else.

    Raises:
        SottoError: none is named and none is shipped.
    """
    if named is not None:
        return named
    if variable := os.environ.get(VARIABLE):
        return Path(variable)
    try:
        return shipped.shipped_model()
    except SottoError:
        raise SottoError(f"no model: name one with --model FILE, or in {VARIABLE}") from None


def load_model(named: Path | None = None, device: str = "cpu") -> "Codec":
    """Loads the model that `find_model` finds on a device: auto, cpu, cuda or mps.

    Raises:
        SottoError: no model, or not that device.
        ModelFileError: the file is no model, or is damaged.
    """
    path = find_model(named)
    from codec.codec import Codec

    return Codec.load(path, device)
