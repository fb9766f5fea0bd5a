"""Codecs that `benchmarks.streaming` runs beside each other, behind one interface.

encodec and moshi are the PyPI packages of those names, with random weights: of no consequence for
speed. Both run eagerly in PyTorch, as Sotto's own PyTorch streams do.
"""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

# moshi compiles a few functions when they are first called, which takes minutes on a CPU.
os.environ.setdefault("NO_TORCH_COMPILE", "1")

N_CODEBOOKS = 8
"""That every codec writes: Sotto's default model has as many, Mimi's usual choice is the same."""

Push = Callable[[Any], Any]


@dataclass(frozen=True)
class Contestant:
    """A codec ready to run on one thread.

    Attributes:
        name: in tables.
        sample_rate: its own, Hz.
        hop_length: samples of its shortest push, which is one frame.
        encoder: a new stream's push, samples (samples,) float32 -> codes.
        decoder: a new stream's push, codes (N_CODEBOOKS, frames) int64 -> samples.
        encode: a whole signal -> codes that `decode` takes.
        decode: the way back.
    """

    name: str
    sample_rate: int
    hop_length: int
    encoder: Callable[[], Push]
    decoder: Callable[[], Push]
    encode: Push
    decode: Push

    def frames(self, seconds: float) -> int:
        """Its frames that come closest to this time, one or more."""
        return max(1, round(seconds * self.sample_rate / self.hop_length))


def sotto(model: Path) -> Contestant:
    """A model file in PyTorch."""
    import torch

    from codec.codec import Codec

    torch.set_num_threads(1)
    codec = Codec.load(model)
    return _own("Sotto, PyTorch", codec)


def sotto_onnx(folder: Path, precision: str) -> Contestant:
    """An export of it in ONNX Runtime, "fp32" or "int8"."""
    from infer.runtime import Codec

    return _own(f"Sotto, ONNX {precision}", Codec.load(folder, precision=precision))


def encodec() -> Contestant:
    """EnCodec for 24 kHz; its layers have no state, so that theirs is kept here (`_Driver`)."""
    import torch
    from encodec import EncodecModel

    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    model = EncodecModel.encodec_model_24khz(pretrained=False)
    model.set_target_bandwidth(6.0)  # 8 codebooks
    for module in model.modules():  # as whoever wanted speed would
        if hasattr(module, "weight_g"):
            torch.nn.utils.remove_weight_norm(module)

    def encoder() -> Push:
        driver = _Driver(model.encoder.model)

        def push(wave: np.ndarray) -> torch.Tensor:
            latent = driver(torch.from_numpy(wave)[None, None])
            return model.quantizer.encode(latent, model.frame_rate, model.bandwidth)

        return push

    def decoder() -> Push:
        driver = _Driver(model.decoder.model)

        def push(codes: np.ndarray) -> torch.Tensor:
            return driver(model.quantizer.decode(torch.from_numpy(codes)[:, None]))

        return push

    return Contestant(
        "EnCodec 24 kHz",
        model.sample_rate,
        int(model.encoder.hop_length),
        encoder,
        decoder,
        lambda wave: model.encode(torch.from_numpy(wave)[None, None]),
        model.decode,
    )


def mimi() -> Contestant:
    """Mimi by its package's own streaming; one model has one stream, and two are loaded here."""
    import torch
    from moshi.models.loaders import get_mimi

    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    whole = get_mimi(None, num_codebooks=N_CODEBOOKS)
    streaming = get_mimi(None, num_codebooks=N_CODEBOOKS)
    streaming.streaming_forever(1)

    def fresh(push: Push) -> Callable[[], Push]:
        def begin() -> Push:
            streaming.reset_streaming()
            return push

        return begin

    return Contestant(
        "Mimi 24 kHz",
        int(whole.sample_rate),
        int(whole.frame_size),
        fresh(lambda wave: streaming.encode(torch.from_numpy(wave)[None, None])),
        fresh(lambda codes: streaming.decode(torch.from_numpy(codes)[None])),
        lambda wave: whole.encode(torch.from_numpy(wave)[None, None]),
        whole.decode,
    )


def _own(name: str, codec: Any) -> Contestant:
    return Contestant(
        name,
        codec.sample_rate,
        codec.hop_length,
        lambda: codec.stream_encoder().push,
        lambda: codec.stream_decoder().push,
        codec.encode,
        codec.decode,
    )


class _Driver:
    """Runs encodec's layers on pieces of a signal, with what each remembers kept between them.

    A convolution remembers its last inputs, a transposed one what it has begun of the next output
    block, an LSTM its states. Zeros lie before the signal.
    """

    def __init__(self, layers: Any) -> None:
        self._layers = layers
        self._memory: dict[Any, Any] = {}

    def __call__(self, x: Any) -> Any:
        """The next piece, whole frames."""
        return self._chain(self._layers, x)

    def _chain(self, layers: Iterable[Any], x: Any) -> Any:
        for layer in layers:
            x = self._layer(layer, x)
        return x

    def _layer(self, layer: Any, x: Any) -> Any:
        import torch
        from encodec.modules.conv import SConv1d, SConvTranspose1d
        from encodec.modules.lstm import SLSTM
        from encodec.modules.seanet import SEANetResnetBlock

        if isinstance(layer, SEANetResnetBlock):
            return self._layer(layer.shortcut, x) + self._chain(layer.block, x)
        if isinstance(layer, SConv1d):
            conv = layer.conv.conv
            before = (conv.kernel_size[0] - 1) * conv.dilation[0] + 1 - conv.stride[0]
            if before:
                past = self._memory.get(layer)
                past = x.new_zeros(*x.shape[:2], before) if past is None else past
                x = torch.cat((past, x), dim=-1)
                self._memory[layer] = x[..., -before:]
            return layer.conv(x)
        if isinstance(layer, SConvTranspose1d):
            conv = layer.convtr.convtr
            y, length = layer.convtr(x), x.shape[-1] * conv.stride[0]
            begun = self._memory.get(layer)
            if begun is not None:
                y[..., : begun.shape[-1]] += begun
            self._memory[layer] = y[..., length:] - conv.bias[:, None]
            return y[..., :length]
        if isinstance(layer, SLSTM):
            y, self._memory[layer] = layer.lstm(x.permute(2, 0, 1), self._memory.get(layer))
            return y.permute(1, 2, 0) + x
        return layer(x)
