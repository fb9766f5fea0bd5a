"""Codes of another project's codec in, its wave out, piece by piece."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from codec.errors import BitstreamError
from codec.foreign.chunked import Stage

# A window that is further from the stream's start than any stage sees.
_FAR = 10**9


class ForeignDecoder:
    """Decodes one signal that comes frame by frame; the adapters make it.

    All pieces' waves one after the other are the wave of the whole up to float rounding, of the
    same length: however the codes were cut, the last samples included.

    Attributes:
        sample_rate: Hz.
        channels: of the wave.
        hop_length: samples a frame.
        window_frames: frames whose samples come out at a time.
        delay: frames that have to come in, counted from a window's first one, before the window's
            samples come out.
        start: the same at the stream's beginning, where some codecs need more.
        stages: what frames pass one after the other.
    """

    def __init__(
        self,
        embed: Callable[[Tensor], Tensor],
        stages: Sequence[Stage],
        *,
        window: int,
        sample_rate: int,
        channels: int,
        n_quantizers: int,
        codebook_size: int,
    ) -> None:
        """`embed` maps codes (batch, n, frames) to latents (batch, dimension, frames).

        `window` is in frames; `n_quantizers` the most codebooks that codes may have.
        """
        self.window_frames = window
        self.sample_rate, self.channels = sample_rate, channels
        self.hop_length = 1
        for stage in stages:
            self.hop_length *= stage.hop
        self.stages = tuple(stages)
        self._embed = embed
        self._n_quantizers, self._codebook_size = n_quantizers, codebook_size
        self.start = self._needed(1)
        self.delay = self._needed(_FAR * window * self.hop_length + 1) - _FAR * window
        self._nothing = torch.zeros(1, channels, 0)
        self._begun = self._finished = False

    @property
    def delay_seconds(self) -> float:
        """Longest time from a sample's place in the signal to its coming out, save at the start."""
        return self.delay * self.hop_length / self.sample_rate

    def length(self, frames: int) -> int:
        """Samples of so many frames in all; not always frames * hop_length."""
        for stage in self.stages:
            frames = stage.length(frames)
        return frames

    def push(self, codes: Tensor | np.ndarray) -> Tensor:
        """Takes the next frames, any number of them, and returns the samples that are ready.

        Args:
            codes: integers in [0, codebook_size), (batch, n, frames) with any n from 1 to the
                codec's number of codebooks.

        Returns:
            (batch, channels, samples), often of 0 samples.

        Raises:
            BitstreamError: codes of another shape or out of range; nothing was taken.
            ValueError: the stream is finished.
        """
        codes = self._checked(torch.as_tensor(codes))
        if codes.shape[-1] == 0 and not self._finished:  # many an operator refuses to take nothing
            self._nothing = torch.zeros(codes.shape[0], self.channels, 0)
            return self._nothing
        with torch.inference_mode():
            latent = self._embed(codes)
        return self.push_latent(latent.clone())

    def push_latent(self, latent: Tensor) -> Tensor:
        """Takes the next frames as vectors, float (batch, dimension, frames), 1 or more of them.

        For latents that no codes are made of; otherwise as `push`.
        """
        if self._finished:
            raise ValueError("this stream is finished: make a new one for the next signal")
        self._begun = True
        for stage in self.stages:
            latent = stage.push(latent)
        return latent

    def finish(self) -> Tensor:
        """Ends the signal and returns all samples that are left, (batch, channels, samples).

        Raises:
            ValueError: the stream is finished already.
        """
        if self._finished:
            raise ValueError("this stream is finished already")
        self._finished = True
        if not self._begun:
            return self._nothing
        rest: Tensor | None = None
        for stage in self.stages:
            pieces = [] if rest is None else [stage.push(rest)]
            rest = torch.cat([*pieces, stage.finish()], dim=-1)
        assert rest is not None
        return rest

    def _needed(self, samples: int) -> int:
        for stage in reversed(self.stages):
            samples = stage.needed(samples)
        return samples

    def _checked(self, codes: Tensor) -> Tensor:
        most, size = self._n_quantizers, self._codebook_size
        if codes.ndim != 3 or not 1 <= codes.shape[1] <= most or codes.is_floating_point():
            raise BitstreamError(
                f"codes of shape {tuple(codes.shape)}, {codes.dtype}: expected integers of shape "
                f"(batch, n, frames) with n from 1 to {most}"
            )
        codes = codes.to(torch.int64)
        if codes.numel() and not 0 <= int(codes.min()) <= int(codes.max()) < size:
            raise BitstreamError(
                f"codes from {int(codes.min())} to {int(codes.max())}: this codec's lie in 0 to "
                f"{size - 1}"
            )
        return codes
