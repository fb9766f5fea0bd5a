"""The model that comes with the package, so that a codec works right after it is installed."""

from pathlib import Path

from codec.errors import SottoError

SHIPPED = Path(__file__).parent / "models" / "default.safetensors"


def shipped_model() -> Path:
    """The file of the model that is shipped.

    Raises:
        SottoError: this Sotto was put together without one.
    """
    if not SHIPPED.is_file():
        raise SottoError("this Sotto was put together without a model: name a model file")
    return SHIPPED
