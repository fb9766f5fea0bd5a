"""The two halves of an autoencoder, as everything outside `codec.nn` knows them."""

from collections.abc import Iterable

import torch.nn.functional as F
from torch import Tensor, nn

from codec.nn.convolution import Chain, State, StreamingLayer


class WaveEncoder(Chain):
    """wave (batch, 1, samples) -> latent (batch, dimension, frames), frames = ceil(samples / hop).

    The wave is taken with zeros after it up to a whole hop, as the last piece of a stream is.

    Attributes:
        hop_length: samples a frame.
        dimension: channels of the latent.
        receptive_field: samples one frame depends on; `input_span` says which.
    """

    def __init__(self, layers: Iterable[nn.Module], *, hop_length: int, dimension: int) -> None:
        super().__init__(layers)
        self.hop_length = hop_length
        self.dimension = dimension

    def forward(self, x: Tensor) -> Tensor:
        """Encode a whole wave."""
        missing = -x.shape[-1] % self.hop_length
        return super().forward(F.pad(x, (0, missing)) if missing else x)

    @property
    def receptive_field(self) -> int:
        """Samples that one frame depends on."""
        first, last = self.input_span(0, 0)
        return last - first + 1

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Encode the next k * hop_length samples of a wave into k frames, k = 0 too.

        Raises:
            ValueError: the samples are not whole hops, or the encoder is not causal.
        """
        if x.shape[-1] % self.hop_length:
            raise ValueError(
                f"a step takes whole hops of {self.hop_length} samples, got {x.shape[-1]} samples"
            )
        return super().step(x, state)


class WaveDecoder(Chain):
    """latent (batch, dimension, frames) -> wave (batch, 1, frames * hop_length).

    Nothing bounds the wave to [-1, 1].

    Attributes:
        hop_length: samples a frame.
        dimension: channels of the latent.
        lookahead: frames after its own that a frame of the wave waits for. `forward` holds the last
            frame of the latent so long; `step` answers so many frames late, from before the wave.
        receptive_field: frames that the hop_length samples of one frame depend on, `memory` apart;
            `input_span` says which.
    """

    def __init__(self, layers: Iterable[nn.Module], *, hop_length: int, dimension: int) -> None:
        super().__init__(layers)
        self.hop_length = hop_length
        self.dimension = dimension
        self.lookahead = 0

    @property
    def memory(self) -> StreamingLayer | None:
        """A layer at the end that depends on all that came before it; None: there is none."""
        return None

    def windowed(self, latent: Tensor) -> Tensor:
        """What can be computed in windows: (batch, channels, n) for `memory`, or the wave."""
        y: Tensor = self(latent)
        return y

    @property
    def receptive_field(self) -> int:
        """Frames that the samples of one frame depend on."""
        first, last = self.input_span(0, self.hop_length - 1)
        return last - first + 1
