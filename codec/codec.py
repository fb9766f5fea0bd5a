"""Codec: the one door through which everything but training uses a model."""

import math
import os
from typing import Self

import numpy as np
import torch
from torch import Tensor

from codec.building import build_autoencoder, inference_tensors
from codec.chunking import ChunkedDecoder, ChunkedEncoder, window_frames
from codec.config import CodebooksConfig
from codec.config_model import ModelConfig
from codec.entropy import EntropyTables
from codec.errors import AudioError, BitstreamError, ModelFileError, SottoError
from codec.model_file import fingerprint, read_model_file, write_model_file
from codec.nn.convolution import fold_weight_norm
from codec.shipped import shipped_model
from codec.streaming import StreamDecoder, StreamEncoder

_NOTHING_LEARNT = CodebooksConfig(cache_vectors=1)  # what training keeps takes no memory here

_WEIGHT_DTYPES = (torch.float32, torch.float16)


class Codec:
    """Turns speech into codes and back, whole signals or pieces of them.

    Attributes:
        config: the model's architecture.
        fingerprint: 32 hex digits that name these very weights.
        tables: probabilities by which codes of this model can be packed more tightly; none if
            they were not learned.
        losses: weights by name of the losses that it learnt from; none if its file does not tell.
    """

    def __init__(
        self,
        config: ModelConfig,
        tensors: dict[str, Tensor],
        device: str | torch.device = "cpu",
        known_fingerprint: str | None = None,
        tables: EntropyTables | None = None,
    ) -> None:
        """Makes a codec of an architecture and its weights (copied), as `inference_tensors` gives.

        Weights in half precision become float32 here, and half precision again when saved.
        `known_fingerprint` is that of the file both came from, if they did: it must not change
        when a later Sotto adds a key to the config. For `device`, see `load`.

        Raises:
            ModelFileError: the weights do not fit the architecture.
            SottoError: there is no such device.
        """
        device = _available(device)
        _check_fit(config, tensors)
        with torch.random.fork_rng(devices=()):  # the random start is overwritten at once
            autoencoder = build_autoencoder(config, _NOTHING_LEARNT)
        fold_weight_norm(autoencoder)
        autoencoder.load_state_dict(tensors, strict=False)
        self._autoencoder = autoencoder.to(device).eval().requires_grad_(False)
        self.config = config
        self.fingerprint = known_fingerprint or fingerprint(config, tensors)
        self.tables = tables
        self.losses: dict[str, float] | None = None
        self._config_text: str | None = None
        self._stored_as = {name: tensor.dtype for name, tensor in tensors.items()}
        self._window = window_frames(self._autoencoder, self.frame_rate)

    @classmethod
    def load(
        cls, path: str | os.PathLike[str] | None = None, device: str | torch.device = "cpu"
    ) -> Self:
        """Loads a model file that `save` or training wrote.

        Args:
            path: a .safetensors file; none: the model that is shipped.
            device: "cpu", "cuda" (or "cuda:1"), "mps", or "auto" for the fastest that is there.

        Raises:
            ModelFileError: no such file, not a Sotto model, damaged, or of a newer Sotto.
            SottoError: there is no such device, or no model is shipped.
        """
        path = shipped_model() if path is None else path
        file = read_model_file(path)
        try:
            codec = cls(file.config, file.tensors, device, file.fingerprint, file.tables)
        except ModelFileError as error:
            raise ModelFileError(f"{path}: {error}") from None
        codec._config_text = file.config_text
        codec.losses = file.losses
        return codec

    def save(self, path: str | os.PathLike[str]) -> str:
        """Writes a model file with its tables, whole or not at all; returns its fingerprint.

        Raises:
            ModelFileError: the folder cannot be made or written, or the disk is full.
        """
        tensors = inference_tensors(self._autoencoder)
        return write_model_file(
            path,
            self.config,
            {name: tensor.to(self._stored_as[name]) for name, tensor in tensors.items()},
            self.tables,
            config_text=self._config_text,
            losses=self.losses,
        )

    def halved(self) -> "Codec":
        """The same model with weights rounded to half precision: another, of half the size.

        Its fingerprint is its own; its tables are the same.

        Raises:
            ModelFileError: a weight is beyond what half precision can hold.
        """
        tensors = inference_tensors(self._autoencoder)
        halves = {name: tensor.to("cpu", torch.float16) for name, tensor in tensors.items()}
        for name, half in halves.items():
            if not half.isfinite().all():
                largest = float(tensors[name].abs().max())
                raise ModelFileError(f"{name} is up to {largest:g}, beyond half precision")
        codec = Codec(self.config, halves, self.device, tables=self.tables)
        codec.losses = self.losses
        return codec

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
        n_quantizers = self._n_or_all(n_quantizers)
        wave = torch.as_tensor(wave)
        codes = [self._encode_one(item, n_quantizers) for item in self._checked_wave(wave)]
        return torch.cat(codes) if wave.ndim == 3 else codes[0][0]

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
        batched = self._checked_codes(codes)
        samples = batched.shape[-1] * self.hop_length
        if length is not None and not 0 <= length <= samples:
            raise BitstreamError(f"length {length} is not within the {samples} decoded samples")
        waves = [self._decode_one(item[None])[..., :length] for item in batched]
        return torch.stack(waves) if codes.ndim == 3 else waves[0][0]

    def encoder(self, channels: int = 1, n_quantizers: int | None = None) -> ChunkedEncoder:
        """Codes a signal that comes in pieces, of any length, in constant memory.

        The codes are those of `encode` for the whole, bit for bit, whatever the pieces.

        Args:
            channels: signals side by side, each coded by itself.
            n_quantizers: codebooks to use, 1 ... self.n_quantizers; none: all.

        Raises:
            SottoError: impossible `n_quantizers`.
            ValueError: no channels.
        """
        return ChunkedEncoder(
            self._autoencoder,
            channels=channels,
            n_quantizers=self._n_or_all(n_quantizers),
            window=self._window,
        )

    def decoder(self, channels: int = 1) -> ChunkedDecoder:
        """Decodes codes that come in pieces, of any length, in constant memory.

        The samples are those of `decode` for the whole, bit for bit, whatever the pieces.

        Args:
            channels: signals side by side, each decoded by itself.

        Raises:
            ValueError: no channels.
        """
        return ChunkedDecoder(self._autoencoder, channels=channels, window=self._window)

    def stream_encoder(self, batch: int = 1, n_quantizers: int | None = None) -> StreamEncoder:
        """Codes speech as it comes, each frame as soon as its last sample is there.

        The codes are those of `encode` up to float rounding; only of causal models.

        Args:
            batch: signals side by side, pushed together.
            n_quantizers: codebooks to use, 1 ... self.n_quantizers; none: all.

        Raises:
            SottoError: the model is not causal, or impossible `n_quantizers`.
            ValueError: an empty batch.
        """
        return StreamEncoder(
            self._autoencoder,
            sample_rate=self.sample_rate,
            fingerprint=self.fingerprint,
            batch=batch,
            n_quantizers=self._n_or_all(n_quantizers),
        )

    def stream_decoder(self, batch: int = 1, n_quantizers: int | None = None) -> StreamDecoder:
        """Turns codes into speech as they come, each frame at once, and fills in for lost ones.

        The samples are those of `decode` up to float rounding; only of causal models.

        Args:
            batch: signals side by side, pushed together.
            n_quantizers: codebooks that every push has; none: any number, each push its own.

        Raises:
            SottoError: the model is not causal, or impossible `n_quantizers`.
            ValueError: an empty batch.
        """
        if n_quantizers is not None:
            self._checked_n(n_quantizers)
        return StreamDecoder(
            self._autoencoder,
            sample_rate=self.sample_rate,
            fingerprint=self.fingerprint,
            batch=batch,
            n_quantizers=n_quantizers,
        )

    def _encode_one(self, wave: Tensor, n_quantizers: int) -> Tensor:
        """(1, samples) -> (1, n_quantizers, frames)."""
        encoder = self.encoder(n_quantizers=n_quantizers)
        return torch.cat([encoder.push(wave), encoder.finish()], dim=-1)

    def _decode_one(self, codes: Tensor) -> Tensor:
        """(1, n, frames) -> (1, samples)."""
        decoder = self.decoder()
        return torch.cat([decoder.push(codes), decoder.finish()], dim=-1)

    def _n_or_all(self, n_quantizers: int | None) -> int:
        return self._checked_n(self.n_quantizers if n_quantizers is None else n_quantizers)

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
        if wave.numel() == 0:
            raise AudioError("the signal is empty")
        return wave

    def _checked_codes(self, codes: Tensor) -> Tensor:
        if codes.ndim == 2:
            codes = codes[None]
        if codes.ndim != 3 or codes.shape[0] == 0:
            raise BitstreamError(
                f"codes of shape {tuple(codes.shape)}: expected (n, frames) or (batch, n, frames)"
            )
        return codes


def _check_fit(config: ModelConfig, tensors: dict[str, Tensor]) -> None:
    """Compares shapes before anything of the config's sizes takes memory."""
    try:
        with torch.random.fork_rng(devices=()), torch.device("meta"):
            expected = inference_tensors(build_autoencoder(config, _NOTHING_LEARNT))
    except (RuntimeError, TypeError, OverflowError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelFileError(f"a model of this config cannot be built: {reason}") from None
    for name in sorted(expected.keys() | tensors.keys()):
        shapes = [tuple(t[name].shape) if name in t else None for t in (expected, tensors)]
        if shapes[0] != shapes[1]:
            raise ModelFileError(
                f"weights do not fit the config: {name} is {shapes[1]}, expected {shapes[0]}; "
                "another version of Sotto may have made them"
            )
        if tensors[name].dtype not in _WEIGHT_DTYPES:
            raise ModelFileError(
                f"weights of a type that Sotto does not use: {name} is {tensors[name].dtype}"
            )


def _available(device: str | torch.device) -> torch.device:
    """The device that a name means, or a SottoError if there is none of that name here."""
    if isinstance(device, torch.device):
        return device  # training's, which may be of a kind that has no name here
    there = {
        "cpu": 1,
        "cuda": torch.cuda.device_count() if torch.cuda.is_available() else 0,
        "mps": int(torch.backends.mps.is_available()),
    }
    if device == "auto":
        return torch.device(next(name for name in ("cuda", "mps", "cpu") if there[name]))
    try:
        found = torch.device(device)
    except RuntimeError:
        found = None
    if found is None or (found.index or 0) >= there.get(found.type, 0):
        names = ", ".join(name for name, count in there.items() if count)
        raise SottoError(f"there is no device {str(device)!r} here: use auto, {names}")
    return found
