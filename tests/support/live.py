"""Sound cards and a codec that only pretend, and a clock that is moved by waiting for it."""

import numpy as np
from numpy.typing import NDArray

Wave = NDArray[np.float32]


class Clock:
    """Seconds that pass when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += max(seconds, 1e-6)


class SimulatedMicrophone:
    """Gives `signal` block by block on a clock that is `ppm` fast, up to `jitter` s late each."""

    def __init__(
        self,
        clock: Clock,
        signal: Wave,
        *,
        sample_rate: int = 8000,
        ppm: float = 0.0,
        block: int = 80,
        jitter: float = 0.0,
        capacity: int = 8000,
    ) -> None:
        self.name, self.sample_rate, self.overruns = "a microphone", sample_rate, 0
        self._clock, self._signal, self._block = clock, signal, block
        self._capacity = capacity
        blocks = len(signal) // block
        late = np.random.default_rng(0).uniform(0, jitter, blocks) if jitter else np.zeros(blocks)
        period = block / (sample_rate * (1 + ppm * 1e-6))
        # A block is there when its last sample is, or later; never before the one ahead of it.
        self._times = np.maximum.accumulate((np.arange(blocks) + 1) * period + late)
        self._taken = 0

    @property
    def ended(self) -> bool:
        return self._taken >= len(self._times)

    def read(self, seconds: float) -> Wave:
        if not self.ended and self._clock.now < self._times[self._taken]:
            self._clock.now = min(self._times[self._taken], self._clock.now + seconds)
        there = int(np.searchsorted(self._times, self._clock.now, side="right"))
        first = self._taken
        if (there - first) * self._block > self._capacity:
            self.overruns += 1
            first = there - self._capacity // self._block
        self._taken = there
        return self._signal[first * self._block : there * self._block]


class SimulatedSpeaker:
    """Takes a block a period from its queue, on a clock that is `ppm` fast, and keeps them."""

    def __init__(
        self, clock: Clock, *, sample_rate: int = 8000, ppm: float = 0.0, block: int = 80
    ) -> None:
        self.name, self.sample_rate = "a speaker", sample_rate
        self._clock, self._block = clock, block
        self._period = block / (sample_rate * (1 + ppm * 1e-6))
        self._periods = 0
        self._underruns = 0
        self._playing = self._ending = False
        self._queue = np.zeros(0, np.float32)
        self.played: list[Wave] = []

    @property
    def underruns(self) -> int:
        self._advance()
        return self._underruns

    def write(self, wave: Wave) -> None:
        self._advance()
        self._queue = np.concatenate((self._queue, wave))

    def queued(self) -> int:
        self._advance()
        return self._queue.size

    def ending(self) -> None:
        self._advance()
        self._ending = True

    def _advance(self) -> None:
        while (self._periods + 1) * self._period <= self._clock.now:
            self._periods += 1
            wave, self._queue = self._queue[: self._block], self._queue[self._block :]
            if wave.size:
                self.played.append(wave)
            dry = wave.size < self._block
            self._underruns += dry and self._playing and not self._ending
            self._playing = not dry and (self._playing or wave.size > 0)


class _Coding:
    """Codes are the frame's mean, coarsely; a lost frame is the last one once more."""

    def __init__(self, codec: "PretendedCodec", n: int, lookahead: int = 0) -> None:
        self._hop, self._n, self.lookahead = codec.hop_length, n, lookahead
        self._pending = np.zeros(0, np.float32)
        self._last = np.zeros(1, np.int64)
        self._held: list[Wave] = []
        self.signals = 0  # that ended with something in them

    def push(self, piece):  # type: ignore[no-untyped-def]
        if isinstance(piece, np.ndarray) and piece.dtype == np.float32:
            return self._encode(piece)
        self._last = self._last if piece is None else piece
        self._begun = True
        self._held.append(np.full(self._hop, (self._last[0] - 32) / 32, np.float32))
        return self._held.pop(0) if len(self._held) > self.lookahead else np.zeros(0, np.float32)

    _begun = False

    def flush(self):  # type: ignore[no-untyped-def]
        if self._begun:
            wave = np.concatenate([np.zeros(0, np.float32), *self._held])
            self._last, self._held, self._begun = np.zeros(1, np.int64), [], False
            self.signals += 1
            return wave
        missing = -self._pending.size % self._hop
        return self._encode(np.zeros(missing, np.float32))

    def _encode(self, wave: Wave) -> NDArray[np.int64]:
        wave = np.concatenate((self._pending, wave))
        whole = wave.size - wave.size % self._hop
        self._pending = wave[whole:]
        means = wave[:whole].reshape(-1, self._hop).mean(axis=1)
        codes = np.clip(np.rint(means * 32) + 32, 0, 63).astype(np.int64)
        return np.tile(codes, (self._n, 1))


class PretendedCodec:
    """20 ms frames at 8 kHz, 4 codebooks of 64: `infer.live.models.LiveCodec` without a network."""

    fingerprint = "0123456789abcdef" * 2
    sample_rate, hop_length, n_quantizers, bits_per_code = 8000, 160, 4, 6
    default_kbps = 1.2

    def __init__(self, lookahead: int = 0) -> None:
        self.lookahead = lookahead

    def kbps(self, n_quantizers: int) -> float:
        return n_quantizers * 0.3

    def n_quantizers_for(self, kbps: float) -> int:
        return round(kbps / 0.3)

    def stream_encoder(self, batch: int = 1, n_quantizers: int | None = None) -> _Coding:
        return _Coding(self, n_quantizers or self.n_quantizers)

    def stream_decoder(self, batch: int = 1, n_quantizers: int | None = None) -> _Coding:
        return _Coding(self, self.n_quantizers, self.lookahead)
