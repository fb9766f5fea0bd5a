"""A model to speak through: a model file in PyTorch, or a folder of `sotto export`."""

from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from codec.extras import needing
from infer.models import find_model, load_model


class Stream(Protocol):
    """One direction of a codec, frame by frame: tensors or arrays come out."""

    def push(self, piece: Any, /) -> ArrayLike:
        """Takes the next piece, None for a frame that was lost, and gives what follows from it."""
        ...

    def flush(self) -> ArrayLike:
        """Ends the signal and gives the rest."""
        ...


class Saying(Stream, Protocol):
    """A direction that answers late: so many frames, the last of which come with `flush`."""

    @property
    def lookahead(self) -> int:
        """Frames."""
        ...


class LiveCodec(Protocol):
    """What is needed here of what `codec.codec.Codec` and `infer.runtime.Codec` have in common."""

    @property
    def fingerprint(self) -> str:
        """32 hex digits."""
        ...

    @property
    def sample_rate(self) -> int:
        """Hz."""
        ...

    @property
    def hop_length(self) -> int:
        """Samples a frame."""
        ...

    @property
    def n_quantizers(self) -> int:
        """Codebooks."""
        ...

    @property
    def bits_per_code(self) -> int:
        """log2 of the codebook size."""
        ...

    @property
    def default_kbps(self) -> float:
        """Rate in kbit/s when none is named."""
        ...

    def kbps(self, n_quantizers: int) -> float:
        """Rate in kbit/s of so many codebooks."""
        ...

    def n_quantizers_for(self, kbps: float) -> int:
        """Codebooks that make a rate; SottoError where none do."""
        ...

    def stream_encoder(self, batch: int = 1, n_quantizers: int | None = None) -> Any:
        """Codes speech as it comes."""
        ...

    def stream_decoder(self, batch: int = 1, n_quantizers: int | None = None) -> Any:
        """Turns codes into speech as they come."""
        ...


class Encoder:
    """Waves (samples,) to codes (n_quantizers, frames) as NumPy arrays, whichever the codec is."""

    def __init__(self, codec: LiveCodec, n_quantizers: int) -> None:
        """Raises SottoError: the model looks ahead, or lacks so many codebooks."""
        self._stream: Stream = codec.stream_encoder(1, n_quantizers)
        self.hop_length = codec.hop_length

    def push(self, wave: NDArray[np.float32]) -> NDArray[np.int64]:
        """Codes every frame that these samples complete."""
        return np.asarray(self._stream.push(wave), np.int64)

    def flush(self) -> NDArray[np.int64]:
        """Codes the frame that has begun, if one has."""
        return np.asarray(self._stream.flush(), np.int64)


class Decoder:
    """Codes of a frame to its samples as NumPy arrays, whichever the codec is.

    Attributes:
        sample_rate: Hz.
        hop_length: samples a frame.
        frame_seconds: a frame's duration.
        late: seconds of look-ahead: a frame's samples come with the codes of one so much later.
    """

    def __init__(self, codec: LiveCodec) -> None:
        """Raises SottoError: the model looks ahead."""
        self._stream: Saying = codec.stream_decoder(1)
        self.sample_rate = codec.sample_rate
        self.hop_length = codec.hop_length
        self.frame_seconds = codec.hop_length / codec.sample_rate
        self.late = self._stream.lookahead * self.frame_seconds

    def push(self, codes: NDArray[np.integer] | None) -> NDArray[np.float32]:
        """Decodes the (n_quantizers,) codes of a frame; None: one that is missing is filled in.

        Gives the hop_length samples of the frame that is complete now, none at first if `late`.
        """
        wave = self._stream.push(None if codes is None else codes.astype(np.int64))
        return np.asarray(wave, np.float32).reshape(-1)

    def flush(self) -> NDArray[np.float32]:
        """Ends the signal and gives what was held back; what is pushed next begins a new one."""
        return np.asarray(self._stream.flush(), np.float32).reshape(-1)


def load_live(named: Path | None) -> LiveCodec:
    """Loads a model file by PyTorch, or an exported folder by ONNX Runtime.

    Raises:
        SottoError: there is no such model, or what runs it is not installed.
    """
    path = find_model(named)
    if path.is_dir():
        with needing("runtime"):
            from infer.runtime import Codec
        return Codec.load(path)
    codec = load_model(path)
    import torch

    torch.set_num_threads(1)  # a frame is too little to share, and threads that wait cost the rest
    return codec


def codebooks(codec: LiveCodec, kbps: float | None) -> int:
    """Codebooks that make a rate, the model's own if none is named.

    Raises:
        SottoError: no number of codebooks does.
    """
    return codec.n_quantizers_for(codec.default_kbps if kbps is None else kbps)
