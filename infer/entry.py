"""Where `sotto` begins: with NumPy alone it still says what is missing."""

import sys

from codec.errors import SottoError
from codec.extras import needing


def main() -> None:
    """Entry of the console script."""
    try:
        with needing("torch"):
            from infer import cli
    except SottoError as error:
        sys.exit(f"error: {error}")
    cli.main()
