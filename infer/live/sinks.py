"""Sinks of live speech: files, pipes and speakers."""

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Protocol, cast

import numpy as np

from codec.audio_writing import AudioWriter
from codec.resampling import Resampler
from codec.wav_writing import pcm
from infer.live.ends import PATIENCE, Sink, Wave
from infer.partial import Output
from infer.planning import PIPE
from infer.streams import open_output

_DRAIN_SECONDS = 2.0  # a device that does not play what it has by then never will


class OutputDevice(Protocol):
    """A speaker as its driver has it, on a clock of its own.

    Attributes:
        name: for people.
        sample_rate: Hz, nominal.
        underruns: times that it ran out of samples after it had begun.
    """

    name: str
    sample_rate: int

    @property
    def underruns(self) -> int:
        """Times that it ran dry."""
        ...

    def write(self, wave: Wave) -> None:
        """Appends samples, mono, to what is to be played."""
        ...

    def queued(self) -> int:
        """Samples that are still to be played."""
        ...

    def ending(self) -> None:
        """Says that nothing more comes: to run out is no fault from here on."""
        ...


class FileSink:
    """A file or a pipe: it takes everything at once."""

    underruns = 0

    def __init__(self, name: str, write: Callable[[Wave], None]) -> None:
        """`write` takes the samples."""
        self.name = name
        self._write = write

    def write(self, wave: Wave) -> None:
        """Appends samples."""
        self._write(wave)

    def rest(self, samples: int) -> None:
        """Leaves it out."""

    def ahead(self) -> float:
        """Nothing waits."""
        return 0.0

    def drain(self) -> None:
        """Nothing waits."""


class Clocked:
    """A sink without a clock that is given one: it hears a second in a second."""

    underruns = 0

    def __init__(
        self, sink: Sink, sample_rate: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.name = sink.name
        self._sink, self._rate, self._clock = sink, sample_rate, clock
        self._began = clock()
        self._given = 0

    def write(self, wave: Wave) -> None:
        """Hands samples on, whose time begins when that of those before them ends."""
        self._sink.write(wave)
        self._given += wave.size

    def rest(self, samples: int) -> None:
        """Lets their time pass."""
        self._given += samples

    def ahead(self) -> float:
        """Seconds until what was given has been heard; below 0: since then."""
        return self._given / self._rate - (self._clock() - self._began)

    def drain(self) -> None:
        """It is written already."""


class Speaker:
    """An output device, resampled."""

    def __init__(
        self,
        device: OutputDevice,
        sample_rate: int,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.name = device.name
        self._device = device
        self._clock, self._sleep = clock, sleep
        self._resampler = Resampler(sample_rate, device.sample_rate, 1)

    @property
    def underruns(self) -> int:
        """Times that it ran dry."""
        return self._device.underruns

    def write(self, wave: Wave) -> None:
        """Appends samples to what is to be played."""
        self._device.write(self._resampler.push(wave[None])[0])

    def rest(self, samples: int) -> None:
        """Is silent."""
        self.write(np.zeros(samples, np.float32))

    def ahead(self) -> float:
        """Seconds that are still to be played."""
        return self._device.queued() / self._device.sample_rate

    def drain(self) -> None:
        """Waits until all is played, but not for ever."""
        self._device.ending()
        end = self._clock() + self.ahead() + _DRAIN_SECONDS
        while self.ahead() > 0 and self._clock() < end:
            self._sleep(min(self.ahead(), PATIENCE))


@contextlib.contextmanager
def open_file(path: Path, sample_rate: int, raw: int | None) -> Iterator[FileSink]:
    """A file that appears when the block ends well, or stdout, as WAV or, to `raw` Hz, 16 bits.

    Raises:
        AudioError: a format that cannot be written.
        OutputError: the file cannot be written.
    """
    name = "standard output" if path == PIPE else str(path)
    with open_output(path) as output:
        if path == PIPE and raw is not None:
            resampler = Resampler(sample_rate, raw, 1)
            yield FileSink(name, lambda wave: _put(output, resampler.push(wave[None])[0]))
            _put(output, resampler.finish()[0])
            return
        format = "wav" if path == PIPE else path.suffix
        with AudioWriter(
            cast(BinaryIO, output), sample_rate=sample_rate, channels=1, format=format
        ) as writer:

            def write(wave: Wave) -> None:
                writer.write(wave[None])
                if path == PIPE:
                    output.flush()  # whoever reads is listening

            yield FileSink(name, write)


def _put(output: Output, wave: Wave) -> None:
    output.write(pcm(wave, 16).astype("<i2").tobytes())
    output.flush()
