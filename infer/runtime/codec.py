"""Codec: an exported model with the interface of `codec.codec.Codec`."""

import math
import os
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from codec.entropy import EntropyTables
from codec.errors import AudioError, BitstreamError, SottoError
from infer.runtime.card import Card, checked_bytes, read_card, read_tables
from infer.runtime.session import Session, State
from infer.runtime.streams import StreamDecoder, StreamEncoder, checked_codes, finite_wave

# Seconds that pass a causal network at once: bounds memory and costs no speed.
_SECONDS_AT_ONCE = 1.0


class Codec:
    """Turns speech into codes and back by ONNX Runtime, whole signals or pieces of them.

    Codes are those of the model in PyTorch but where two rows are as good as equally near (int8
    rounds more, and its encoder chooses other rows); any model of the fingerprint decodes them.

    Attributes:
        card: what the export says of itself.
        precision: "fp32" or "int8".
    """

    def __init__(
        self,
        card: Card,
        folder: str | os.PathLike[str],
        *,
        threads: int = 1,
        precision: str = "fp32",
    ) -> None:
        """For the arguments, see `load`; a network is read when it is first needed."""
        self.card = card
        self.precision = precision
        self._folder = Path(folder)
        self._threads = threads
        self._sessions: dict[str, Session] = {}
        for part in ("encoder", "decoder"):
            card.file(part, streaming=card.causal, precision=precision)

    @classmethod
    def load(
        cls, folder: str | os.PathLike[str], *, threads: int = 1, precision: str = "fp32"
    ) -> Self:
        """Loads what `sotto export` wrote.

        Args:
            folder: with `card.json` in it.
            threads: of ONNX Runtime; more than one may help with whole signals.
            precision: "fp32", or "int8" if it was exported.

        Raises:
            ModelFileError: no export, damaged, of a newer Sotto, or not of that precision.
            ValueError: no threads.
        """
        if threads < 1:
            raise ValueError(f"threads = {threads}: give 1 or more")
        return cls(read_card(folder), folder, threads=threads, precision=precision)

    @property
    def fingerprint(self) -> str:
        """32 hex digits that name the model's weights."""
        return self.card.fingerprint

    @property
    def sample_rate(self) -> int:
        """Hz."""
        return self.card.sample_rate

    @property
    def hop_length(self) -> int:
        """Samples a frame."""
        return self.card.hop_length

    @property
    def frame_rate(self) -> float:
        """Frames a second."""
        return self.sample_rate / self.hop_length

    @property
    def n_quantizers(self) -> int:
        """Codebooks, the most that `encode` can use."""
        return self.card.n_quantizers

    @property
    def codebook_size(self) -> int:
        """Rows a codebook."""
        return self.card.codebook_size

    @property
    def bits_per_code(self) -> int:
        """log2 of the codebook size."""
        return self.codebook_size.bit_length() - 1

    @property
    def default_kbps(self) -> float:
        """Rate in kbit/s that is used when none is named."""
        return self.card.default_kbps

    @cached_property
    def tables(self) -> EntropyTables | None:
        """Probabilities by which compact `.sc` files of this model are read; none: it has none.

        Raises:
            ModelFileError: they are damaged.
        """
        return read_tables(self._folder, self.card)

    def possible_kbps(self) -> list[float]:
        """Rates in kbit/s, one a number of codebooks from 1 up."""
        one = self.bits_per_code * self.frame_rate / 1000
        return [n * one for n in range(1, self.n_quantizers + 1)]

    def kbps(self, n_quantizers: int) -> float:
        """Rate in kbit/s of `n_quantizers` codebooks (1 ... self.n_quantizers)."""
        return self.possible_kbps()[self._n_or_all(n_quantizers) - 1]

    def n_quantizers_for(self, kbps: float) -> int:
        """Number of codebooks that makes `kbps` kbit/s.

        Raises:
            SottoError: no number of codebooks does; the message names the possible rates.
        """
        for n_quantizers, possible in enumerate(self.possible_kbps(), start=1):
            if math.isclose(possible, kbps, rel_tol=1e-3):
                return n_quantizers
        rates = ", ".join(f"{possible:g}" for possible in self.possible_kbps())
        raise SottoError(f"{kbps:g} kbps is not a rate of this model; possible: {rates}")

    def encode(self, wave: ArrayLike, n_quantizers: int | None = None) -> NDArray[np.int64]:
        """Codes a whole signal.

        Args:
            wave: float in [-1, 1] at `sample_rate`: (batch, 1, samples), or (samples,) for one.
            n_quantizers: codebooks to use, 1 ... self.n_quantizers; none: all.

        Returns:
            int64 (batch, n_quantizers, frames), or (n_quantizers, frames) for one;
            frames = ceil(samples / hop_length).

        Raises:
            AudioError: no samples, NaN or infinite samples, or another shape.
            SottoError: impossible `n_quantizers`.
        """
        n_quantizers = self._n_or_all(n_quantizers)
        wave = np.asarray(wave)
        batch = wave.shape[0] if wave.ndim == 3 else 1
        whole = finite_wave(wave, batch)
        if not whole.size:
            raise AudioError("the signal is empty")
        whole = np.pad(whole, ((0, 0), (0, 0), (0, -whole.shape[-1] % self.hop_length)))
        codes: NDArray[np.int64] = self._run("encoder", whole, self.hop_length)
        codes = codes[:, :n_quantizers]
        return codes if wave.ndim == 3 else codes[0]

    def decode(self, codes: ArrayLike, length: int | None = None) -> NDArray[np.float32]:
        """Turns codes back into speech.

        Args:
            codes: integers in [0, codebook_size): (batch, n, frames) or, for one, (n, frames),
                with any n from 1 to self.n_quantizers.
            length: samples to keep of frames * hop_length; none: all.

        Returns:
            float32 (batch, 1, samples), or (samples,) for one.

        Raises:
            BitstreamError: codes of another shape or out of range, or an impossible length.
        """
        codes = np.asarray(codes)
        batch = codes.shape[0] if codes.ndim == 3 else 1
        whole = checked_codes(codes, self.card, batch)
        samples = whole.shape[-1] * self.hop_length
        if length is not None and not 0 <= length <= samples:
            raise BitstreamError(f"length {length} is not within the {samples} decoded samples")
        wave: NDArray[np.float32] = np.zeros((batch, 1, 0), np.float32)
        if samples:
            wave = self._decode(whole)[..., :length]
        return wave if codes.ndim == 3 else wave[0, 0]

    def stream_encoder(self, batch: int = 1, n_quantizers: int | None = None) -> StreamEncoder:
        """Codes speech as it comes, each frame as soon as its last sample is there.

        Args:
            batch: signals side by side, pushed together.
            n_quantizers: codebooks to use, 1 ... self.n_quantizers; none: all.

        Raises:
            SottoError: the model is not causal, or impossible `n_quantizers`.
            ValueError: an empty batch.
        """
        n_quantizers = self._n_or_all(n_quantizers)
        return StreamEncoder(self._step("encoder"), self.card, batch, n_quantizers)

    def stream_decoder(self, batch: int = 1, n_quantizers: int | None = None) -> StreamDecoder:
        """Turns codes into speech as they come, and fills in for lost ones.

        A frame's samples come with its codes, or, if the model looks ahead, `card.lookahead` frames
        later.

        Args:
            batch: signals side by side, pushed together.
            n_quantizers: codebooks that every push has; none: any number, each push its own.

        Raises:
            SottoError: the model is not causal, or impossible `n_quantizers`.
            ValueError: an empty batch.
        """
        if n_quantizers is not None:
            self._n_or_all(n_quantizers)
        return StreamDecoder(self._step("decoder"), self.card, batch, n_quantizers)

    def _decode(self, codes: NDArray[np.int64]) -> NDArray[np.float32]:
        """The wave of whole codes; for what looks ahead in steps, the last ones are held."""
        late = self.card.lookahead if self.card.causal else 0
        held = np.concatenate((codes, np.repeat(codes[..., -1:], late, axis=-1)), axis=-1)
        wave: NDArray[np.float32] = self._run("decoder", held, 1)
        return wave[..., late * self.hop_length :]

    def _run(self, part: str, x: NDArray, frame: int) -> NDArray:
        """A whole signal: a causal one in pieces, so that memory does not grow."""
        session = self._session(part)
        state: State = session.initial_state(x.shape[0])
        if not self.card.causal:
            return session.step(x, state)[0]
        at_once = max(1, round(_SECONDS_AT_ONCE * self.frame_rate)) * frame
        parts = []
        for start in range(0, x.shape[-1], at_once):
            piece = np.ascontiguousarray(x[..., start : start + at_once])
            y, state = session.step(piece, state)
            parts.append(y)
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1)

    def _step(self, part: str) -> Session:
        if not self.card.causal:
            raise SottoError(
                "this model looks ahead (causal: false) and cannot answer frame by frame"
            )
        return self._session(part)

    def _session(self, part: str) -> Session:
        if part not in self._sessions:
            file = self.card.file(part, streaming=self.card.causal, precision=self.precision)
            content = checked_bytes(self._folder, file)
            self._sessions[part] = Session(file, content, self._threads)
        return self._sessions[part]

    def _n_or_all(self, n_quantizers: int | None) -> int:
        if n_quantizers is None:
            return self.n_quantizers
        if not 1 <= n_quantizers <= self.n_quantizers:
            raise SottoError(f"{n_quantizers} codebooks: this model has 1 to {self.n_quantizers}")
        return n_quantizers
