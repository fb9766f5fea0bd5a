"""Codec: the one door through which everything but training uses a model."""

import math
import os
from typing import Self

import numpy as np
import torch
from torch import Tensor

from codec.building import build_autoencoder, inference_tensors
from codec.config_model import ModelConfig
from codec.errors import AudioError, BitstreamError, ModelFileError, SottoError
from codec.model_file import fingerprint, read_model_file, write_model_file
from codec.nn.convolution import fold_weight_norm


class Codec:
    """Turns speech into codes and back.

    Attributes:
        config: the model's architecture.
        fingerprint: 32 hex digits that name these very weights.
    """

    def __init__(
        self,
        config: ModelConfig,
        tensors: dict[str, Tensor],
        device: str | torch.device = "cpu",
        known_fingerprint: str | None = None,
    ) -> None:
        """Makes a codec of an architecture and its weights (copied), as `inference_tensors` gives.

        `known_fingerprint` is that of the file both came from, if they did: it must not change
        when a later Sotto adds a key to the config.

        Raises:
            ModelFileError: the weights do not fit the architecture.
        """
        with torch.random.fork_rng(devices=()):  # the random start is overwritten at once
            autoencoder = build_autoencoder(config)
        fold_weight_norm(autoencoder)
        expected = inference_tensors(autoencoder)
        for name in sorted(expected.keys() | tensors.keys()):
            shapes = [tuple(t[name].shape) if name in t else None for t in (expected, tensors)]
            if shapes[0] != shapes[1]:
                raise ModelFileError(
                    f"weights do not fit the config: {name} is {shapes[1]}, expected {shapes[0]}; "
                    "another version of Sotto may have made them"
                )
        autoencoder.load_state_dict(tensors, strict=False)
        self._autoencoder = autoencoder.to(device).eval().requires_grad_(False)
        self.config = config
        self.fingerprint = known_fingerprint or fingerprint(config, tensors)

    @classmethod
    def load(cls, path: str | os.PathLike[str], device: str | torch.device = "cpu") -> Self:
        """Loads a model file that `save` or training wrote.

        Raises:
            ModelFileError: no such file, not a Sotto model, damaged, or of a newer Sotto.
        """
        file = read_model_file(path)
        try:
            return cls(file.config, file.tensors, device, file.fingerprint)
        except ModelFileError as error:
            raise ModelFileError(f"{path}: {error}") from None

    def save(self, path: str | os.PathLike[str]) -> str:
        """Writes a model file, whole or not at all; returns its fingerprint.

        Raises:
            ModelFileError: the folder cannot be made or written, or the disk is full.
        """
        return write_model_file(path, self.config, inference_tensors(self._autoencoder))

    @property
    def sample_rate(self) -> int:
        """Hz."""
        return self.config.sample_rate

    @property
    def hop_length(self) -> int:
        """Samples a frame."""
        return self.config.hop_length

    @property
    def frame_rate(self) -> float:
        """Frames a second."""
        return self.sample_rate / self.hop_length

    @property
    def n_quantizers(self) -> int:
        """Codebooks, the most that `encode` can use."""
        return self.config.quantizer.n_quantizers

    @property
    def codebook_size(self) -> int:
        """Rows a codebook."""
        return self.config.quantizer.codebook_size

    @property
    def bits_per_code(self) -> int:
        """log2 of the codebook size."""
        return self.config.bits_per_code

    @property
    def n_parameters(self) -> int:
        """Numbers that a model file carries."""
        return sum(tensor.numel() for tensor in inference_tensors(self._autoencoder).values())

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self._autoencoder.parameters()).device

    @property
    def default_kbps(self) -> float:
        """Rate in kbit/s that is used when none is named."""
        return self.config.default_kbps

    def possible_kbps(self) -> list[float]:
        """Rates in kbit/s, one a number of codebooks from 1 up."""
        return self.config.possible_kbps()

    def kbps(self, n_quantizers: int) -> float:
        """Rate in kbit/s of `n_quantizers` codebooks (1 ... self.n_quantizers)."""
        return self.possible_kbps()[self._checked_n(n_quantizers) - 1]

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

    def encode(self, wave: Tensor | np.ndarray, n_quantizers: int | None = None) -> Tensor:
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
        n_quantizers = self._checked_n(self.n_quantizers if n_quantizers is None else n_quantizers)
        wave = torch.as_tensor(wave)
        batched = self._checked_wave(wave).to(self.device, torch.float32)
        cudnn = torch.backends.cudnn.flags(enabled=True, allow_tf32=False)
        with torch.inference_mode(), cudnn:  # TF32 would flip codes
            latent = self._autoencoder.encoder(batched)
            codes = self._autoencoder.quantizer.encode(latent, n_quantizers)
        return codes if wave.ndim == 3 else codes[0]

    def decode(self, codes: Tensor | np.ndarray, length: int | None = None) -> Tensor:
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
        codes = torch.as_tensor(codes)
        batched = self._checked_codes(codes).to(self.device, torch.int64)
        samples = batched.shape[-1] * self.hop_length
        if length is not None and not 0 <= length <= samples:
            raise BitstreamError(f"length {length} is not within the {samples} decoded samples")
        with torch.inference_mode():
            latent = self._autoencoder.quantizer.decode(batched)
            wave = self._autoencoder.decoder(latent)[..., :length]
        return wave if codes.ndim == 3 else wave[0, 0]

    def _checked_n(self, n_quantizers: int) -> int:
        if not 1 <= n_quantizers <= self.n_quantizers:
            raise SottoError(f"{n_quantizers} codebooks: this model has 1 to {self.n_quantizers}")
        return n_quantizers

    def _checked_wave(self, wave: Tensor) -> Tensor:
        if wave.ndim == 1:
            wave = wave[None, None]
        if wave.ndim != 3 or wave.shape[1] != 1 or not wave.is_floating_point():
            raise AudioError(
                f"a wave of shape {tuple(wave.shape)}, {wave.dtype}: expected floats of shape "
                "(samples,) or (batch, 1, samples)"
            )
        if wave.shape[-1] == 0:
            raise AudioError("the signal is empty")
        if not torch.isfinite(wave).all():
            raise AudioError("the signal has NaN or infinite samples")
        return wave

    def _checked_codes(self, codes: Tensor) -> Tensor:
        if codes.ndim == 2:
            codes = codes[None]
        integer = not codes.is_floating_point() and not codes.is_complex()
        if codes.ndim != 3 or not 1 <= codes.shape[1] <= self.n_quantizers or not integer:
            raise BitstreamError(
                f"codes of shape {tuple(codes.shape)}, {codes.dtype}: expected integers of shape "
                f"(n, frames) or (batch, n, frames) with n from 1 to {self.n_quantizers}"
            )
        codes = codes.to(torch.int64)
        if codes.numel() and not 0 <= int(codes.min()) <= int(codes.max()) < self.codebook_size:
            raise BitstreamError(
                f"codes from {int(codes.min())} to {int(codes.max())}: this model's lie in 0 to "
                f"{self.codebook_size - 1}"
            )
        return codes
