"""Sources of live speech: files, pipes and microphones, at the model's rate."""

import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np

from codec.audio import AudioReader
from codec.resampling import Resampler
from infer.live.ends import PATIENCE, Source, Wave
from infer.live.pcm import Pcm, samples_of

_EMPTY = np.zeros(0, np.float32)
_PIECES_AHEAD = 8  # of a pipe, 16 KB each at most: what is not taken stays in the pipe


class InputDevice(Protocol):
    """A microphone as its driver has it, on a clock of its own.

    Attributes:
        name: for people.
        sample_rate: Hz, nominal.
        overruns: times that samples were lost, because they were not taken in time.
    """

    name: str
    sample_rate: int

    @property
    def overruns(self) -> int:
        """Times that samples were lost."""
        ...

    def read(self, seconds: float) -> Wave:
        """All samples since the last call, mono; waits for the first, but only so long."""
        ...


class FileSource:
    """A file of any format, from beginning to end, a frame at a time."""

    overruns = 0

    def __init__(self, path: Path, sample_rate: int, hop_length: int) -> None:
        """Raises AudioError: there is no such file, or it has no audio."""
        self.name = str(path)
        self._reader = AudioReader(path)
        self._blocks = self._reader.blocks(
            sample_rate=sample_rate, block_samples=hop_length, channels=1
        )

    def read(self) -> Wave | None:
        """The next frame; none at the end."""
        block = next(self._blocks, None)
        if block is None:
            self._reader.close()
            return None
        return block[0]


class PipeSource:
    """Standard input: WAV, or raw samples, as they come."""

    overruns = 0

    def __init__(self, file: BinaryIO, sample_rate: int, raw: Pcm | None) -> None:
        """`raw` says what the samples are where they are not a WAV file."""
        self.name = "standard input"
        self._rate = sample_rate
        self._ready: queue.Queue[Wave | BaseException | None] = queue.Queue(_PIECES_AHEAD)
        self._ended = False
        # A thread, since a pipe cannot be asked on every system whether something is in it.
        pieces = self._resampled(samples_of(_taker(file), raw))
        threading.Thread(target=self._fill, args=(pieces,), daemon=True).start()

    def read(self) -> Wave | None:
        """The next samples; none at the end.

        Raises:
            AudioError: it is no WAV file, or holds NaN samples.
        """
        if self._ended:
            return None
        try:
            item = self._ready.get(timeout=PATIENCE)
        except queue.Empty:
            return _EMPTY
        self._ended = not isinstance(item, np.ndarray)
        if isinstance(item, BaseException):
            raise item
        return item

    def _fill(self, pieces: Iterator[Wave]) -> None:
        try:
            for piece in pieces:
                self._ready.put(piece)
            self._ready.put(None)
        except BaseException as error:  # it belongs to the thread that reads
            self._ready.put(error)

    def _resampled(self, pieces: Iterator[tuple[int, Wave]]) -> Iterator[Wave]:
        resampler: Resampler | None = None
        for rate, piece in pieces:
            resampler = resampler or Resampler(rate, self._rate, 1)
            yield resampler.push(piece[None])[0]
        if resampler is not None:
            yield resampler.finish()[0]


class Microphone:
    """An input device, resampled."""

    def __init__(self, device: InputDevice, sample_rate: int) -> None:
        self.name = device.name
        self._device = device
        self._resampler = Resampler(device.sample_rate, sample_rate, 1)

    @property
    def overruns(self) -> int:
        """Times that samples were lost."""
        return self._device.overruns

    def read(self) -> Wave | None:
        """What was said since the last call; it has no end."""
        wave = self._device.read(PATIENCE)
        return self._resampler.push(wave[None])[0] if wave.size else _EMPTY


class Paced:
    """A source that gives its samples no sooner than they would be spoken."""

    def __init__(
        self,
        source: Source,
        sample_rate: int,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.name = source.name
        self._source, self._rate = source, sample_rate
        self._clock, self._sleep = clock, sleep
        self._began: float | None = None
        self._given = 0
        self._held: Wave | None = None

    @property
    def overruns(self) -> int:
        """Of the source."""
        return self._source.overruns

    def read(self) -> Wave | None:
        """The next samples, when their time has come."""
        if self._held is None:
            self._held = self._source.read()
            if self._held is None:
                return None
        now = self._clock()
        self._began = now if self._began is None else self._began
        wait = self._began + (self._given + self._held.size) / self._rate - now
        if wait > 0:
            self._sleep(min(wait, PATIENCE))
            if wait > PATIENCE:
                return _EMPTY
        wave, self._held = self._held, None
        self._given += wave.size
        return wave


class Amplified:
    """A source, louder or softer by so many dB, clipped at full scale."""

    def __init__(self, source: Source, gain_db: float) -> None:
        self.name = source.name
        self._source, self._gain = source, np.float32(10 ** (gain_db / 20))

    @property
    def overruns(self) -> int:
        """Of the source."""
        return self._source.overruns

    def read(self) -> Wave | None:
        """The next samples."""
        wave = self._source.read()
        return None if wave is None else np.clip(wave * self._gain, -1, 1)


def standard_input(sample_rate: int, raw: Pcm | None) -> PipeSource:
    """Standard input, at a rate in Hz; `raw` says what the samples are if they are no WAV file."""
    return PipeSource(sys.stdin.buffer, sample_rate, raw)


def _taker(file: BinaryIO) -> Callable[[int], bytes]:
    """Reads what is there without waiting for more."""
    try:
        number = file.fileno()
    except (AttributeError, OSError):  # in memory
        return file.read
    # Not through the buffer, whose lock a thread that waits would hold when the program ends.
    return lambda most: os.read(number, most)
