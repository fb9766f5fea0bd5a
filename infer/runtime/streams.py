"""Coding speech as it comes, by ONNX Runtime: `codec.streaming` without PyTorch.

What a stream remembers is data, NumPy arrays: `state` and `restore` copy them.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from codec.errors import AudioError, BitstreamError, SottoError
from infer.runtime.card import Card
from infer.runtime.concealment import Concealment
from infer.runtime.session import Session, Steps

Array = NDArray[Any]

# Frames that pass the network at once, however many are pushed: bounds the memory of a push.
_FRAMES_AT_ONCE = 64


class _Stream:
    """What both directions share: a network with its state, and the state as plain data."""

    _remembered: ClassVar[tuple[str, ...]]
    """Arrays kept beside the network's own, by attribute, less the leading underscore."""
    _free: ClassVar[tuple[str, ...]]
    """Those of them whose length may vary."""

    def __init__(self, session: Session, card: Card, batch: int) -> None:
        """`session` is of the network's step.

        Raises:
            ValueError: the batch is empty.
        """
        if batch < 1:
            raise ValueError(f"batch = {batch}: give 1 or more")
        self.batch = batch
        self.hop_length = card.hop_length
        self._card = card
        self._batched = batch > 1  # whether the last push had a batch axis
        self._closed = False
        self._network = Steps(session, batch, card.hop_length, card.n_quantizers)
        self._reset()

    def reset(self) -> None:
        """Forgets everything: the next push begins a new signal."""
        self._reset()

    def state(self) -> dict[str, Array]:
        """All that the stream remembers, as copies, by name: `np.savez` saves it as it is.

        It belongs to this model, precision, direction and batch; `restore` goes on from it, in
        this stream or any other of the same.
        """
        return {name: array.copy() for name, array in self._arrays().items()}

    def restore(self, state: Mapping[str, Array]) -> None:
        """Goes on from a `state` (copied) as if what was pushed since then had not been.

        Raises:
            SottoError: it is of another model, direction or batch, or no state; nothing changes.
        """
        expected = self._arrays()
        if set(state.keys()) != set(expected):
            raise SottoError(f"this is not the state of a {type(self).__name__} of this model")
        if not np.array_equal(state["model"], expected["model"]):
            raise SottoError("this is the state of a stream of another model")
        for name, own in expected.items():
            given = state[name]
            free = name in self._free and given.shape[:-1] == own.shape[:-1]
            if given.dtype != own.dtype or (given.shape != own.shape and not free):
                raise SottoError(
                    f"the state's {name} is {given.shape}, {given.dtype}; this stream, of batch "
                    f"{self.batch}, has {own.shape}, {own.dtype}"
                )
        copies = {name: np.array(state[name]) for name in expected}
        for name in self._remembered:
            setattr(self, f"_{name}", copies[name])
        self._network.restore([copies[f"layers.{i}"] for i in range(len(self._network.state))])

    def copy(self) -> Self:
        """A second stream that goes on from here by itself: a conversation that forks."""
        twin = object.__new__(type(self))
        twin.__dict__.update(self.__dict__)  # these arrays are replaced by new ones, not written to
        twin._network = self._network.copy()
        return twin

    def close(self) -> None:
        """Ends the stream; what it remembers is let go."""
        self._reset()
        self._closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _reset(self) -> None:
        self._network.reset()

    def _arrays(self) -> dict[str, Array]:
        model = np.frombuffer(bytes.fromhex(self._card.fingerprint), np.uint8)
        own = {name: getattr(self, f"_{name}") for name in self._remembered}
        return (
            {"model": model} | own | {f"layers.{i}": x for i, x in enumerate(self._network.state)}
        )

    def _run(self, x: Array, frame: int) -> list[Array]:
        """What the next frames, of `frame` items each, give, in parts."""
        at_once = _FRAMES_AT_ONCE * frame
        return [
            self._network.step(x[..., start : start + at_once])
            for start in range(0, x.shape[-1], at_once)
        ]

    def _require_open(self) -> None:
        if self._closed:
            raise ValueError("this stream is closed: open a new one")


class StreamEncoder(_Stream):
    """Codes speech as it comes; `Codec.stream_encoder` makes it.

    A context manager, though nothing but memory is freed at its end. Answers have a batch axis if
    the last push had one; before the first, if batch > 1.

    Attributes:
        batch: signals side by side, pushed together.
        n_quantizers: codebooks in use.
        hop_length: samples a frame.
    """

    _remembered = ("pending",)
    _free = ("pending",)
    _pending: NDArray[np.float32]  # samples of a frame that is not whole yet, (batch, 1, samples)

    def __init__(self, session: Session, card: Card, batch: int, n_quantizers: int) -> None:
        self.n_quantizers = n_quantizers
        super().__init__(session, card, batch)

    def push(self, wave: ArrayLike) -> NDArray[np.int64]:
        """Takes the next samples, any number of them, and codes every frame they complete.

        Args:
            wave: float in [-1, 1] at the model's sample rate, (batch, 1, samples), or (samples,)
                where batch is 1.

        Returns:
            int64 (batch, n_quantizers, frames), or (n_quantizers, frames) for (samples,).

        Raises:
            AudioError: NaN or infinite samples, or another shape or type; nothing was taken.
            ValueError: the stream is closed.
        """
        self._require_open()
        piece = np.asarray(wave)
        samples = finite_wave(piece, self.batch)
        self._batched = piece.ndim == 3
        if self._pending.shape[-1]:
            samples = np.concatenate((self._pending, samples), axis=-1)
        whole = samples.shape[-1] - samples.shape[-1] % self.hop_length
        codes = self._code(samples[..., :whole])
        self._pending = samples[..., whole:].copy()
        return codes if self._batched else codes[0]

    def flush(self) -> NDArray[np.int64]:
        """Ends the signal: codes the frame that has begun, if one has, with zeros after it.

        There are ceil(samples / hop_length) frames then. The next push begins a new signal.

        Returns:
            int64 (batch, n_quantizers, 0 or 1), or without the batch axis.

        Raises:
            ValueError: the stream is closed.
        """
        self._require_open()
        missing = -self._pending.shape[-1] % self.hop_length
        codes = self._code(np.pad(self._pending, ((0, 0), (0, 0), (0, missing))))
        self._reset()
        return codes if self._batched else codes[0]

    def _reset(self) -> None:
        super()._reset()
        self._pending = np.zeros((self.batch, 1, 0), np.float32)

    def _code(self, wave: Array) -> NDArray[np.int64]:
        parts = self._run(wave, self.hop_length)
        if not parts:
            return np.zeros((self.batch, self.n_quantizers, 0), np.int64)
        codes = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1)
        return codes[:, : self.n_quantizers]


class StreamDecoder(_Stream):
    """Turns codes into speech as they come; `Codec.stream_decoder` makes it.

    With `lookahead` a frame's samples come with the codes of the frame so much later, the last ones
    with `flush`. A frame that got lost is pushed as None and filled in, see `Concealment`; the fade
    counts frames that come out. A context manager, though nothing but memory is freed at its end.
    Answers have a batch axis if the last push of codes had one; before the first, if batch > 1.

    Attributes:
        batch: signals side by side, pushed together.
        n_quantizers: codebooks that every push has; none: any number, each push its own.
        hop_length: samples a frame.
        lookahead: frames that are held back.
    """

    _remembered = ("codes", "heard", "limit", "lost", "early", "before")
    _free = ("heard",)
    _codes: NDArray[np.int64]  # the last, (batch, n_quantizers, 1), with -1 where none was given
    _heard: NDArray[np.float32]  # the last samples of frames that came, (batch, 1, samples)
    _limit: NDArray[np.float32]  # see `Concealment`
    _lost: NDArray[np.int64]  # (1,): frames missing in a row, up to now
    _early: NDArray[np.int64]  # (1,): frames of this stream that look-ahead has still to hold back
    _before: NDArray[np.int64]  # (1,): of the network's next frames, those before its signal

    def __init__(self, session: Session, card: Card, batch: int, n_quantizers: int | None) -> None:
        self.n_quantizers = n_quantizers
        self.lookahead = card.lookahead
        self._concealment = Concealment(card.sample_rate, card.hop_length)
        super().__init__(session, card, batch)

    def push(self, codes: ArrayLike | None, frames: int = 1) -> NDArray[np.float32]:
        """Takes the next frames, any number of them, and returns the samples they complete.

        Args:
            codes: integers in [0, codebook_size), (batch, n, frames), or (n,) or (n, frames) where
                batch is 1; none for frames that got lost.
            frames: how many got lost; of no consequence for codes.

        Returns:
            float32 (batch, 1, frames * hop_length), or (samples,) for codes without a batch axis;
            the first `lookahead` frames of a signal give nothing yet.

        Raises:
            BitstreamError: codes of another shape or out of range; nothing was taken.
            ValueError: the stream is closed, or `frames` is negative.
        """
        self._require_open()
        if codes is None:
            wave = self._conceal(frames)
        else:
            given = np.asarray(codes)
            checked = checked_codes(
                given[:, None] if given.ndim == 1 else given,
                self._card,
                self.batch,
                self.n_quantizers,
            )
            self._batched = given.ndim == 3
            wave = self._decode(checked)
        return wave if self._batched else wave[0, 0]

    def flush(self) -> NDArray[np.float32]:
        """Ends the signal, its last frame held for the look-ahead; the next push begins a new one.

        Returns:
            float32 (batch, 1, samples) or (samples,): what look-ahead has held back, nothing
            without.

        Raises:
            ValueError: the stream is closed.
        """
        self._require_open()
        if self._lost[0] or not self._begun():
            wave = self._conceal(self.lookahead)
        else:
            wave = self._decode(np.repeat(self._codes, self.lookahead, axis=-1))
        self._reset()
        return wave if self._batched else wave[0, 0]

    def _reset(self) -> None:
        super()._reset()
        self._codes = np.full((self.batch, self._card.n_quantizers, 1), -1, np.int64)
        self._heard = np.zeros((self.batch, 1, 0), np.float32)
        self._limit = np.ones((self.batch, 1, 1), np.float32)
        self._lost = np.zeros(1, np.int64)
        self._early = np.full(1, self.lookahead, np.int64)
        self._before = np.full(1, self.lookahead, np.int64)

    def _begun(self) -> bool:
        """Whether the network has heard anything."""
        return bool(self._heard.shape[-1]) or int(self._before[0]) < self.lookahead

    def _decode(self, codes: NDArray[np.int64]) -> NDArray[np.float32]:
        parts = self._run(codes, 1)
        if not parts:
            return np.zeros((self.batch, 1, 0), np.float32)
        wave = self._silent_before(parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1))
        lost = int(self._lost[0])
        if lost:
            wave = self._concealment.recover(wave, self._limit, lost)
            self._lost, self._limit = np.zeros_like(self._lost), np.ones_like(self._limit)
        wave = self._without_early(wave)
        samples = self._concealment.heard_samples
        heard = wave
        if wave.shape[-1] < samples:
            heard = np.concatenate((self._heard, wave), axis=-1)
        # Copies: what was returned is the caller's, and long waves shall not be kept alive.
        self._heard, self._codes = heard[..., -samples:].copy(), codes[..., -1:].copy()
        return wave

    def _silent_before(self, wave: NDArray[np.float32]) -> NDArray[np.float32]:
        """The network's next frames, silent where they lie before its signal; changed in place."""
        before = min(int(self._before[0]), wave.shape[-1] // self.hop_length)
        if before:
            wave[..., : before * self.hop_length] = 0
            self._before = self._before - before
        return wave

    def _without_early(self, wave: NDArray[np.float32]) -> NDArray[np.float32]:
        """What of the next frames is to be given out."""
        early = min(int(self._early[0]), wave.shape[-1] // self.hop_length)
        if not early:
            return wave
        self._early = self._early - early
        return wave[..., early * self.hop_length :]

    def _conceal(self, frames: int) -> NDArray[np.float32]:
        """(batch, 1, samples) in place of frames that are missing."""
        if frames < 0:
            raise ValueError(f"{frames} lost frames: give 0 or more")
        wave = np.zeros((self.batch, 1, frames * self.hop_length), np.float32)
        if not self._begun():
            return self._without_early(wave)  # nothing was said yet
        lost, faded = int(self._lost[0]), self._concealment.faded_frames
        for frame in range(min(frames, faded - lost)):
            sound = self._silent_before(self._network.step(self._codes))
            heard = self._heard if self._heard.shape[-1] else sound
            start = frame * self.hop_length
            wave[..., start : start + self.hop_length], self._limit = self._concealment.shape(
                sound, heard, self._limit, lost + frame
            )
        self._lost = np.full_like(self._lost, min(lost + frames, faded))
        if int(self._lost[0]) == faded:
            self._network.reset()
            self._before = np.full_like(self._before, self.lookahead)
        return self._without_early(wave)


def finite_wave(wave: Array, batch: int) -> NDArray[np.float32]:
    """(batch, 1, samples) float32 of such a wave, or of (samples,) where batch is 1.

    Raises:
        AudioError: NaN or infinite samples, or another shape or type.
    """
    fits = wave.shape[:2] == (batch, 1) if wave.ndim == 3 else wave.ndim == batch == 1
    if not fits or wave.dtype.kind != "f":
        also = " or (samples,)" if batch == 1 else ""
        raise AudioError(
            f"a wave of shape {wave.shape}, {wave.dtype}: expected floats of shape "
            f"({batch}, 1, samples){also}"
        )
    if not np.isfinite(wave).all():
        raise AudioError("the signal has NaN or infinite samples")
    return np.asarray(wave if wave.ndim == 3 else wave[None, None], np.float32)


def checked_codes(
    codes: Array, card: Card, batch: int, n_quantizers: int | None = None
) -> NDArray[np.int64]:
    """(batch, all codebooks, frames) of codes (batch, n, frames), or (n, frames) where batch is 1.

    Codebooks that are not used are filled with -1.

    Raises:
        BitstreamError: codes of another shape or out of range.
    """
    batched = codes[None] if codes.ndim == 2 and batch == 1 else codes
    fits = batched.ndim == 3 and batched.shape[0] == batch > 0
    fits = fits and (
        1 <= batched.shape[1] <= card.n_quantizers
        if n_quantizers is None
        else batched.shape[1] == n_quantizers
    )
    if not fits or codes.dtype.kind not in "iu":
        count = "n" if n_quantizers is None else str(n_quantizers)
        known = f" with n from 1 to {card.n_quantizers}" if n_quantizers is None else ""
        raise BitstreamError(
            f"codes of shape {codes.shape}, {codes.dtype}: expected integers of shape "
            f"({batch}, {count}, frames) or, for one, ({count}, frames){known}"
        )
    n = batched.shape[1]
    filled = np.full((batch, card.n_quantizers, batched.shape[2]), -1, np.int64)
    filled[:, :n] = batched
    # One look for both ends: as unsigned numbers, negative ones are the largest.
    if batched.size and filled[:, :n].view(np.uint64).max() >= card.codebook_size:
        raise BitstreamError(
            f"codes from {batched.min()} to {batched.max()}: this model has 0 to "
            f"{card.codebook_size - 1}"
        )
    return filled
