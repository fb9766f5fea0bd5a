"""What is scored side by side: anything that makes recordings small at some rates, and back."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from codec.errors import SottoError
from codec.evaluation.pairs import Wave

MODEL_NAME = "Sotto"
"""What a model is called; in tandem "Sotto ×2", for two passes."""


class SpeechCodec(Protocol):
    """What scoring asks of a codec; `codec.codec.Codec` is one."""

    @property
    def sample_rate(self) -> int:
        """Hz, of the waves it takes and gives."""

    @property
    def hop_length(self) -> int:
        """Samples a frame."""

    @property
    def bits_per_code(self) -> int:
        """Bits one code takes in a file."""

    def kbps(self, n_quantizers: int) -> float:
        """Bit rate with this many codebooks."""

    def n_quantizers_for(self, kbps: float) -> int:
        """Codebooks for a bit rate; SottoError naming the possible ones."""

    def encode(self, wave: Tensor, n_quantizers: int | None = None) -> Tensor:
        """(samples,) -> codes (n_quantizers, frames)."""

    def decode(self, codes: Tensor, length: int | None = None) -> Tensor:
        """(n_quantizers, frames) -> (samples,), cut to `length`."""


@dataclass(frozen=True, slots=True)
class Decoding:
    """What one recording became at one rate.

    Attributes:
        kbps: The rate that was asked for.
        n_quantizers: Codebooks used; none where the codec has no such thing.
        bits: Of the codes or packets, without what a file adds around them.
        wave: float32 (samples,), as many as the recording has and in their places.
    """

    kbps: float
    n_quantizers: int | None
    bits: int
    wave: Wave


class Contender(Protocol):
    """A codec at some rates."""

    @property
    def name(self) -> str:
        """What tables and plots call it."""

    @property
    def kbps(self) -> Sequence[float]:
        """The rates, lowest first."""

    def decodings(self, wave: Wave) -> Iterator[Decoding]:
        """What a recording, float32 (samples,), becomes at each rate, lowest first."""


class ModelAtRates:
    """A model, encoding each recording once: its first codebooks are the lower rates.

    Args:
        codec: Its first n codebooks must be the codes at the lower rate, as an RVQ's are.
        kbps: Bit rates, each one the codec has.

    Raises:
        SottoError: An impossible rate, or none.
    """

    name = MODEL_NAME

    def __init__(self, codec: SpeechCodec, kbps: Sequence[float]) -> None:
        self._codec = codec
        self._sizes = sorted({codec.n_quantizers_for(rate) for rate in kbps})
        if not self._sizes:
            raise SottoError("no bit rate to evaluate: name at least one")

    @property
    def kbps(self) -> list[float]:
        """The rates, lowest first."""
        return [self._codec.kbps(size) for size in self._sizes]

    def decodings(self, wave: Wave) -> Iterator[Decoding]:
        """See `Contender`."""
        codec = self._codec
        codes = codec.encode(torch.from_numpy(wave), n_quantizers=self._sizes[-1])
        for size in self._sizes:
            decoded = codec.decode(codes[:size], length=len(wave)).cpu().numpy()
            bits = size * codes.shape[-1] * codec.bits_per_code
            yield Decoding(codec.kbps(size), size, bits, decoded)


class InTandem:
    """A model that encodes and decodes what it decoded, as a call that is sent on does.

    Args:
        codec: The model.
        kbps: Bit rates, each one the codec has.
        passes: How often a recording is encoded and decoded in all.

    Raises:
        SottoError: An impossible rate, or fewer than two passes.
    """

    def __init__(self, codec: SpeechCodec, kbps: Sequence[float], passes: int) -> None:
        if passes < 2:
            raise SottoError(f"{passes} is no number of passes in tandem: 2 or more are")
        self._codec = codec
        self._first = ModelAtRates(codec, kbps)
        self._passes = passes
        self.name = f"{MODEL_NAME} ×{passes}"

    @property
    def kbps(self) -> list[float]:
        """The rates, lowest first."""
        return self._first.kbps

    def decodings(self, wave: Wave) -> Iterator[Decoding]:
        """See `Contender`; bits are those of one pass."""
        for once in self._first.decodings(wave):
            heard = once.wave
            for _ in range(self._passes - 1):
                codes = self._codec.encode(torch.from_numpy(heard), once.n_quantizers)
                heard = self._codec.decode(codes, length=len(wave)).cpu().numpy()
            yield Decoding(once.kbps, once.n_quantizers, once.bits, heard)
