"""What live speech comes from and goes to: two small interfaces that everything else is built on.

Waves are float32 (samples,) in [-1, 1] at the model's rate.
"""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Wave = NDArray[np.float32]

PATIENCE = 0.1
"""Seconds that a `read` waits at most, so that Ctrl-C is noticed."""


class Source(Protocol):
    """Where speech comes from.

    Attributes:
        name: for people.
        overruns: times that samples were lost, because they were not taken in time.
    """

    name: str

    @property
    def overruns(self) -> int:
        """Times that samples were lost."""
        ...

    def read(self) -> Wave | None:
        """The next samples, as many as there are; none at the end.

        Waits, but not for longer than `PATIENCE`: an empty wave says that nothing came.

        Raises:
            AudioError: it cannot be read.
        """
        ...


class Sink(Protocol):
    """Where speech goes to.

    Attributes:
        name: for people.
        underruns: times that it had nothing left to play in the middle of a stream.
    """

    name: str

    @property
    def underruns(self) -> int:
        """Times that it ran dry."""
        ...

    def write(self, wave: Wave) -> None:
        """Takes the next samples, at once.

        Raises:
            SottoError: it cannot be written.
        """
        ...

    def rest(self, samples: int) -> None:
        """There is nothing to say for so long: a speaker is silent, a file leaves it out."""
        ...

    def ahead(self) -> float:
        """Seconds of what was given that are still to be heard; 0 where nothing is timed."""
        ...

    def drain(self) -> None:
        """Waits until all is heard."""
        ...
