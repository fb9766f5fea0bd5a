"""What drives live speech: a source's samples become codes, and a taker is handed each frame."""

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from codec.errors import AudioError
from infer.live.ends import PATIENCE, Sink, Source, Wave
from infer.live.meter import Level, Load
from infer.live.models import Decoder, Encoder

Codes = NDArray[np.int64]
Clock = Callable[[], float]


class Taker(Protocol):
    """What becomes of frames.

    Attributes:
        waited: seconds of the last `put` in which nothing was done.
    """

    @property
    def waited(self) -> float:
        """Seconds."""
        ...

    def put(self, codes: Codes) -> None:
        """Takes the (n_quantizers,) codes of the next frame."""
        ...

    def finish(self) -> None:
        """There are no more."""
        ...


class Pump:
    """Codes a source until it ends, or until it is stopped.

    Attributes:
        source: that is coded.
        level: of its samples.
        load: of coding, and of what becomes of a frame.
        frames: coded so far.
    """

    def __init__(
        self,
        source: Source,
        encoder: Encoder,
        sample_rate: int,
        clock: Clock = time.perf_counter,
    ) -> None:
        self.source = source
        self.level = Level(sample_rate)
        self.load = Load(encoder.hop_length / sample_rate)
        self.frames = 0
        self._encoder, self._clock = encoder, clock
        self._frame_seconds = encoder.hop_length / sample_rate

    @property
    def seconds(self) -> float:
        """Of speech that was coded."""
        return self.frames * self._frame_seconds

    def run(self, taker: Taker, stop: Callable[[], bool], tick: Callable[[], None]) -> None:
        """Codes all of it; `tick` is called often, at the least every 0.1 s.

        Raises:
            AudioError: the source cannot be read, or has no samples at all.
        """
        samples = 0
        while not stop():
            wave = self.source.read()
            if wave is None:
                if not samples:
                    raise AudioError(f"{self.source.name}: holds no audio")
                break
            samples += wave.size
            for piece in _hops(wave, self._encoder.hop_length):
                self.level.push(piece)
                self._give(taker, partial(self._encoder.push, piece))
            tick()
        self._give(taker, self._encoder.flush)
        taker.finish()

    def _give(self, taker: Taker, code: Callable[[], Codes]) -> None:
        began = self._clock()
        codes = code()
        busy = self._clock() - began
        for frame in codes.T:
            began = self._clock()
            taker.put(frame)
            self.load.push(busy + self._clock() - began - taker.waited)
            busy = 0.0
            self.frames += 1


class Following:
    """Decodes frames as fast as a sink takes them: what comes is waited with.

    Attributes:
        level: of what is played.
    """

    def __init__(
        self,
        decoder: Decoder,
        sink: Sink,
        *,
        latency: float,
        stop: Callable[[], bool],
        tick: Callable[[], None],
        clock: Clock = time.perf_counter,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`latency` is what the sink is kept ahead by, in seconds."""
        self.level = Level(decoder.sample_rate)
        self.waited = 0.0
        self._decoder, self._sink, self._latency = decoder, sink, latency
        self._stop, self._tick, self._clock, self._sleep = stop, tick, clock, sleep

    def put(self, codes: Codes) -> None:
        """Plays a frame, once there is room for it."""
        self.waited = 0.0
        while (excess := self._sink.ahead() - self._latency) > 0 and not self._stop():
            began = self._clock()
            self._sleep(min(excess, PATIENCE))
            self._tick()
            self.waited += self._clock() - began
        _say(self._decoder.push(codes), self.level, self._sink)

    def finish(self) -> None:
        """Plays what the decoder has held back, and waits until all is played."""
        _say(self._decoder.flush(), self.level, self._sink)
        if not self._stop():
            self._sink.drain()


class Between:
    """Decodes frames of one clock for a sink on another: neither can be made to wait.

    No two sound cards agree on what a second is: 100 millionths apart, they are 20 ms apart after
    200 s. Frames that come too fast are left out now and then, and where they come too slowly one
    is filled in as if it had got lost, both in codes, where the decoder blends them.

    Attributes:
        level: of what is played.
        left_out: frames.
        filled_in: frames.
    """

    waited = 0.0

    def __init__(self, decoder: Decoder, sink: Sink, *, latency: float) -> None:
        """`latency` is what the sink is kept ahead by, in seconds: at least one frame."""
        self.level = Level(decoder.sample_rate)
        self.left_out = self.filled_in = 0
        self._decoder, self._sink = decoder, sink
        self._least = decoder.frame_seconds
        self._start = max(latency, 2 * decoder.frame_seconds)
        self._most = self._start + 2 * decoder.frame_seconds
        self._begun = False

    def put(self, codes: Codes) -> None:
        """Plays a frame, with one more or without it where the clocks have come apart."""
        before = self._sink.ahead()
        if before > self._most:
            self.left_out += 1
            return
        if before <= 0:  # at the beginning, or after a pause: what keeps it ahead comes first
            while self._sink.ahead() < self._start - self._least:
                self._fill_in()
        self._say(codes)
        self._begun = True
        if self._sink.ahead() < self._least:
            self._fill_in()

    def finish(self) -> None:
        """Plays what the decoder has held back, and waits until all is played."""
        _say(self._decoder.flush(), self.level, self._sink)
        self._sink.drain()

    def _fill_in(self) -> None:
        self.filled_in += self._begun
        self._say(None)

    def _say(self, codes: Codes | None) -> None:
        _say(self._decoder.push(codes), self.level, self._sink)


def _say(wave: Wave, level: Level, sink: Sink) -> None:
    """Plays what has been decoded; look-ahead gives nothing at first."""
    if wave.size:
        level.push(wave)
        sink.write(wave)


def _hops(wave: Wave, hop_length: int) -> Iterator[Wave]:
    return (wave[i : i + hop_length] for i in range(0, wave.size, hop_length))
