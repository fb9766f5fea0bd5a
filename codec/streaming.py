"""Coding speech as it comes: every frame at once, from a state that is data.

A stream holds what the layers' `step` returned last and no more: some tens of kilobytes. A frame's
codes are there with its last sample, and its hop_length samples with its codes, or, if the decoder
looks ahead, with those of the frame so much later. However a signal is cut, what comes out equals
`Codec.encode` and `Codec.decode` of the whole up to float rounding: about 1e-6 of the largest
value, which changes a code only where two rows are as good as equally near. (`Codec.encoder` and
`Codec.decoder` are equal to the bit and faster, but wait for two seconds at a time.)
"""

import math

import numpy as np
import torch
from torch import Tensor

from codec.concealment import Concealment
from codec.errors import AudioError, BitstreamError
from codec.nn.autoencoder import Autoencoder
from codec.nn.convolution import State
from codec.stream_state import Stream


class StreamEncoder(Stream):
    """Codes speech as it comes; `Codec.stream_encoder` makes it.

    A context manager, though nothing but memory is freed at its end. Answers have a batch axis if
    the last push had one; before the first, if batch > 1.

    Attributes:
        batch: signals side by side, pushed together.
        n_quantizers: codebooks in use.
        hop_length: samples a frame.
    """

    _remembered = ("pending",)
    _pending: Tensor  # samples of a frame that is not whole yet, (batch, 1, samples)

    def __init__(
        self,
        autoencoder: Autoencoder,
        *,
        sample_rate: int,
        fingerprint: str,
        batch: int,
        n_quantizers: int,
    ) -> None:
        """`fingerprint`, 32 hex digits, marks states as this model's.

        Raises:
            SottoError: the model is not causal.
            ValueError: the batch is empty.
        """
        self.n_quantizers = n_quantizers
        self._quantizer = autoencoder.quantizer
        self._norms = autoencoder.quantizer.squared_norms()
        encoder = autoencoder.encoder
        super().__init__(encoder, encoder.hop_length, batch, fingerprint, sample_rate)

    def push(self, wave: Tensor | np.ndarray) -> Tensor:
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
        with torch.inference_mode(), self._exact():
            wave = self._checked(torch.as_tensor(wave))
            if self._pending.shape[-1]:
                wave = torch.cat((self._pending, wave), dim=-1)
            whole = wave.shape[-1] - wave.shape[-1] % self.hop_length
            codes, layers = self._code(wave[..., :whole])
            self._pending, self._layers = wave[..., whole:].clone(), layers
        return self._answer(codes)

    def flush(self) -> Tensor:
        """Ends the signal: codes the frame that has begun, if one has, with zeros after it.

        There are ceil(samples / hop_length) frames then. The next push begins a new signal.

        Returns:
            int64 (batch, n_quantizers, 0 or 1), or without the batch axis.

        Raises:
            ValueError: the stream is closed.
        """
        self._require_open()
        with torch.inference_mode(), self._exact():
            missing = -self._pending.shape[-1] % self.hop_length
            codes, _ = self._code(torch.nn.functional.pad(self._pending, (0, missing)))
        self._reset()
        return self._answer(codes)

    def _reset(self) -> None:
        super()._reset()
        self._pending = torch.zeros(self.batch, 1, 0, device=self._device)

    def _code(self, wave: Tensor) -> tuple[Tensor, State]:
        """Whole hops (batch, 1, samples) -> codes (batch, n_quantizers, frames) and the state."""
        layers = self._layers
        samples = self._frames_at_once * self.hop_length
        codes = []
        for start in range(0, wave.shape[-1], samples):
            latent, layers = self._chain.step(wave[..., start : start + samples], layers)
            codes.append(self._quantizer.encode(latent, self.n_quantizers, self._norms))
        if len(codes) == 1:
            return codes[0], layers
        shape = (self.batch, self.n_quantizers, 0)
        return torch.cat([wave.new_zeros(shape, dtype=torch.int64), *codes], dim=-1), layers

    def _checked(self, wave: Tensor) -> Tensor:
        """(batch, 1, samples) float32 on the model's device."""
        batched = wave.ndim == 3
        fits = wave.shape[:2] == (self.batch, 1) if batched else wave.ndim == self.batch == 1
        if not fits or not wave.is_floating_point():
            also = " or (samples,)" if self.batch == 1 else ""
            raise AudioError(
                f"a piece of shape {tuple(wave.shape)}, {wave.dtype}: expected floats of shape "
                f"({self.batch}, 1, samples){also}"
            )
        # One sum tells in most cases, at a third of what asking every sample takes.
        if not math.isfinite(wave.sum()) and not torch.isfinite(wave).all():
            raise AudioError("the signal has NaN or infinite samples")
        self._batched = batched
        return (wave if batched else wave[None, None]).to(self._device, torch.float32)


class StreamDecoder(Stream):
    """Turns codes into speech as they come; `Codec.stream_decoder` makes it.

    With `lookahead` a frame's samples come with the codes of the frame so much later, the last ones
    with `flush`. A frame that got lost is pushed as None and filled in, see `codec.concealment`;
    the fade counts frames that come out. A context manager, though nothing but memory is freed at
    its end. Answers have a batch axis if the last push of codes had one; before the first, if
    batch > 1.

    Attributes:
        batch: signals side by side, pushed together.
        n_quantizers: codebooks that every push has; none: any number, each push its own.
        hop_length: samples a frame.
        lookahead: frames that are held back.
    """

    _remembered = ("latent", "heard", "limit", "lost", "early", "before")
    _latent: Tensor  # the last, (batch, dimension, 1)
    _heard: Tensor  # the last samples of frames that came, (batch, 1, samples); none at first
    _limit: Tensor  # see `Concealment`
    _lost: Tensor  # (1,) int64 on the CPU: frames missing in a row, up to now
    _early: Tensor  # likewise: frames of this stream that look-ahead still has to hold back
    _before: Tensor  # likewise: of the decoder's next frames, those before its signal's first

    def __init__(
        self,
        autoencoder: Autoencoder,
        *,
        sample_rate: int,
        fingerprint: str,
        batch: int,
        n_quantizers: int | None,
    ) -> None:
        """`fingerprint`, 32 hex digits, marks states as this model's.

        Raises:
            SottoError: the model is not causal.
            ValueError: the batch is empty.
        """
        self.n_quantizers = n_quantizers
        self._quantizer = autoencoder.quantizer
        decoder = autoencoder.decoder
        self.lookahead = decoder.lookahead
        device = next(decoder.parameters()).device
        self._concealment = Concealment(sample_rate, decoder.hop_length, device)
        super().__init__(decoder, decoder.hop_length, batch, fingerprint, sample_rate)

    def push(self, codes: Tensor | np.ndarray | None, frames: int = 1) -> Tensor:
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
        with torch.inference_mode(), self._exact():
            if codes is None:
                wave = self._conceal(frames)
            else:
                wave = self._decode(self._latents(torch.as_tensor(codes)))
        return self._answer(wave if self._batched else wave[:, 0])

    def _begun(self) -> bool:
        """Whether the decoder has heard anything."""
        return bool(self._heard.shape[-1]) or int(self._before) < self.lookahead

    def flush(self) -> Tensor:
        """Ends the signal, its last frame held for the look-ahead; the next push begins a new one.

        Returns:
            float32 (batch, 1, samples) or (samples,): what look-ahead has held back, nothing
            without.

        Raises:
            ValueError: the stream is closed.
        """
        self._require_open()
        with torch.inference_mode(), self._exact():
            if int(self._lost) or not self._begun():
                wave = self._conceal(self.lookahead)
            else:
                wave = self._decode(self._latent.expand(-1, -1, self.lookahead))
        self._reset()
        return self._answer(wave if self._batched else wave[:, 0])

    def _reset(self) -> None:
        super()._reset()
        self._latent = torch.zeros(self.batch, self._quantizer.dimension, 1, device=self._device)
        self._heard = torch.zeros(self.batch, 1, 0, device=self._device)
        self._limit = torch.ones(self.batch, 1, 1, device=self._device)
        self._lost = torch.zeros(1, dtype=torch.int64)
        self._early = torch.full((1,), self.lookahead)
        self._before = torch.full((1,), self.lookahead)

    def _decode(self, latent: Tensor) -> Tensor:
        """(batch, dimension, frames) -> (batch, 1, samples)."""
        waves = [self._sound(piece) for piece in latent.split(self._frames_at_once, dim=-1)]
        wave = waves[0] if len(waves) == 1 else torch.cat(waves, dim=-1)
        if not wave.shape[-1]:
            return wave
        lost = int(self._lost)
        if lost:
            wave = self._concealment.recover(wave, self._limit, lost)
            self._lost, self._limit = torch.zeros_like(self._lost), torch.ones_like(self._limit)
        wave = self._without_early(wave)
        samples = self._concealment.heard_samples
        heard = wave if wave.shape[-1] >= samples else torch.cat((self._heard, wave), dim=-1)
        # Copies: what was returned is the caller's, and long waves shall not be kept alive.
        self._heard, self._latent = heard[..., -samples:].clone(), latent[..., -1:].clone()
        return wave

    def _sound(self, latent: Tensor) -> Tensor:
        """The decoder's next frames, silent where they lie before its signal."""
        wave, self._layers = self._chain.step(latent, self._layers)
        before = min(int(self._before), latent.shape[-1])
        if before:
            wave = torch.cat(
                (
                    torch.zeros_like(wave[..., : before * self.hop_length]),
                    wave[..., before * self.hop_length :],
                ),
                dim=-1,
            )
            self._before = self._before - before
        return wave

    def _without_early(self, wave: Tensor) -> Tensor:
        """What of the next frames is to be given out."""
        early = min(int(self._early), wave.shape[-1] // self.hop_length)
        self._early = self._early - early
        return wave[..., early * self.hop_length :]

    def _conceal(self, frames: int) -> Tensor:
        """(batch, 1, samples) in place of frames that are missing."""
        if frames < 0:
            raise ValueError(f"{frames} lost frames: give 0 or more")
        wave = torch.zeros(self.batch, 1, frames * self.hop_length, device=self._device)
        if not self._begun():
            return self._without_early(wave)  # nothing was said yet
        lost, faded = int(self._lost), self._concealment.faded_frames
        for frame in range(min(frames, faded - lost)):
            sound = self._sound(self._latent)
            start = frame * self.hop_length
            heard = self._heard if self._heard.shape[-1] else sound
            wave[..., start : start + self.hop_length], self._limit = self._concealment.shape(
                sound, heard, self._limit, lost + frame
            )
        self._lost = torch.full_like(self._lost, min(lost + frames, faded))
        if int(self._lost) == faded:
            self._layers = self._chain.initial_state(self.batch)
            self._before = torch.full_like(self._before, self.lookahead)
        return self._without_early(wave)

    def _latents(self, codes: Tensor) -> Tensor:
        """(batch, dimension, frames) of codes as they were pushed."""
        batched = codes.ndim == 3
        if not batched and self.batch == 1:
            codes = codes[None, :, None] if codes.ndim == 1 else codes[None]
        most, n = self._quantizer.n_quantizers, self.n_quantizers
        fits = codes.ndim == 3 and codes.shape[0] == self.batch
        fits = fits and (1 <= codes.shape[1] <= most if n is None else codes.shape[1] == n)
        if not fits or codes.is_floating_point() or codes.is_complex():
            count = "n" if n is None else str(n)
            also = f" or ({count},)" if self.batch == 1 else ""
            known = f" with n from 1 to {most}" if n is None else ""
            raise BitstreamError(
                f"codes of shape {tuple(codes.shape)}, {codes.dtype}: expected integers of shape "
                f"({self.batch}, {count}, frames){also}{known}"
            )
        try:
            latent = self._quantizer.decode(codes.to(self._device, torch.int64))
        except ValueError as error:
            raise BitstreamError(str(error)) from None
        self._batched = batched
        return latent
