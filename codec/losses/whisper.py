"""Whisper feature loss: decoded speech should sound to a speech recogniser like the reference."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codec.errors import ConfigError
from codec.losses.base import LossValue
from codec.spectra import (
    WHISPER_HOP_LENGTH,
    WHISPER_N_FFT,
    WHISPER_SAMPLE_RATE,
    resample,
    whisper_log_mel,
)


class WhisperFeatureLoss(nn.Module):
    """Relative L1 distance of hidden features of a frozen Whisper encoder.

    Clips are not padded to 30 s: the positional embedding is cut to their length, which costs
    15 to 30 times less for clips of one or two seconds. Every clip is judged alone, whatever its
    neighbours in the batch are. Features may be computed under autocast; spectrogram and
    differences are float32.

    The encoder is no part of the model that trains: it has no gradients, stays in eval mode, and
    is in neither `parameters()` nor `state_dict()`, so not in checkpoints either; `.to(device)`
    moves it all the same.

    Args:
        model: a name that openai-whisper knows ("tiny", "base.en", ...; downloaded on first use),
            or the path of a checkpoint `{"dims", "model_state_dict"}`, of the whole model or of
            its encoder only, in any float type.
        sample_rate: of the waves, in Hz; others than 16 kHz are resampled inside the graph.
        layers: whose outputs are compared, 1 for the first block of the encoder to the number
            of blocks for the last (after the final layer norm, Whisper's own output). None
            takes the middle one and the last.

    Raises:
        ConfigError: the model cannot be had or read, or has no such layer.
    """

    def __init__(
        self, *, model: str, sample_rate: int, layers: Sequence[int] | None = None
    ) -> None:
        super().__init__()
        encoder = _load_encoder(model).float().eval().requires_grad_(False)
        # In a list the encoder is no submodule.
        self._frozen = [encoder]
        self.sample_rate = sample_rate
        self.n_mels: int = encoder.conv1.in_channels
        n_layers = len(encoder.blocks)
        self.layers = sorted(set(layers)) if layers else sorted({(n_layers + 1) // 2, n_layers})
        for layer in self.layers:
            if not 1 <= layer <= n_layers:
                raise ConfigError(
                    f"Whisper model {model} has no layer {layer}: its layers are 1 to {n_layers}"
                )

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """What `.to`, `.cuda` and the like come down to; takes the encoder along."""
        self._frozen[0]._apply(fn, recurse)
        return super()._apply(fn, recurse)

    def features(self, wave: Tensor) -> list[Tensor]:
        """Outputs of the chosen layers, in order, for `wave` (batch, 1, samples) in [-1, 1].

        Returns:
            For each layer (batch, positions, width), one position every 20 ms, rounded up.

        Raises:
            ValueError: the clip is shorter than 25 ms or longer than the encoder's 30 s.
        """
        encoder = self._frozen[0]
        wave = resample(wave.squeeze(1), self.sample_rate, WHISPER_SAMPLE_RATE)
        self._check_length(wave.shape[-1])
        x = whisper_log_mel(wave, self.n_mels)
        x = F.gelu(encoder.conv1(x))
        x = F.gelu(encoder.conv2(x)).transpose(1, 2)
        x = x + encoder.positional_embedding[: x.shape[1]]
        outputs = []
        for number, block in enumerate(encoder.blocks[: self.layers[-1]], start=1):
            x = block(x)
            if number in self.layers:
                outputs.append(encoder.ln_post(x) if number == len(encoder.blocks) else x)
        return outputs

    def _check_length(self, samples: int) -> None:
        most = 2 * WHISPER_HOP_LENGTH * self._frozen[0].positional_embedding.shape[0]
        if not WHISPER_N_FFT <= samples <= most:
            raise ValueError(
                f"a clip of {samples / WHISPER_SAMPLE_RATE:.4g} s cannot go through this Whisper "
                f"model: {WHISPER_N_FFT / WHISPER_SAMPLE_RATE} to "
                f"{most / WHISPER_SAMPLE_RATE:g} s would do"
            )

    def forward(self, decoded: Tensor, reference: Tensor) -> LossValue:
        """Distance of `decoded` from `reference`, both (batch, 1, samples).

        For each clip and layer mean|difference| / mean|reference's features|, so 0 for equal
        sounds and of the order of 1 for unrelated ones at every layer and model size; averaged
        over clips and layers. Parts: one for each layer, as `layer_3`.
        """
        with torch.no_grad():
            wanted = self.features(reference)
        distances = {
            f"layer_{layer}": _relative_l1(got, want)
            for layer, got, want in zip(self.layers, self.features(decoded), wanted, strict=True)
        }
        return LossValue(torch.stack(list(distances.values())).mean(), distances)


def _relative_l1(got: Tensor, want: Tensor) -> Tensor:
    want = want.float()
    distance = (got.float() - want).abs().mean(dim=(1, 2))
    return (distance / want.abs().mean(dim=(1, 2)).clamp(min=1e-8)).mean()


def _load_encoder(model: str) -> Any:  # whisper.model.AudioEncoder, which is untyped
    import whisper  # takes a second: only where it is needed

    if model in whisper.available_models():
        try:
            return whisper.load_model(model, device="cpu").encoder
        except (OSError, RuntimeError) as error:
            raise ConfigError(
                f"Whisper model {model} could not be downloaded ({_first_line(error)}): "
                "connect to the network, or give the path of a checkpoint"
            ) from error
    path = Path(model).expanduser()
    if not path.is_file():
        raise ConfigError(
            f"Whisper model {model} is neither a file nor a name that openai-whisper knows: "
            f"{', '.join(whisper.available_models())}"
        )
    return _read_encoder(path)


def _read_encoder(path: Path) -> Any:
    from whisper.model import AudioEncoder, ModelDimensions

    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(saved, dict):
            raise TypeError(f"it holds a {type(saved).__name__}")
        dims = ModelDimensions(**saved["dims"])
        weights = {
            name.removeprefix("encoder."): weight
            for name, weight in saved["model_state_dict"].items()
            if name.startswith("encoder.")
        }
        encoder = AudioEncoder(
            dims.n_mels,
            dims.n_audio_ctx,
            dims.n_audio_state,
            dims.n_audio_head,
            dims.n_audio_layer,
        )
        encoder.load_state_dict(weights)
    except Exception as error:  # a foreign file can fail in any way
        raise ConfigError(
            f"Whisper model {path} is not a checkpoint of openai-whisper "
            f"({_first_line(error)}): a .pt file with 'dims' and 'model_state_dict' would do"
        ) from error
    if not all(bool(weight.isfinite().all()) for weight in weights.values()):
        raise ConfigError(f"Whisper model {path} has weights that are not finite: fetch it again")
    return encoder


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
