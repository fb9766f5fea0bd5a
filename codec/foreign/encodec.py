"""EnCodec of the PyPI package encodec, streamed.

Its decoder is a convolution, an LSTM, and convolutions again. The LSTM remembers everything, so its
state is carried and each frame passes it once; the convolutions on both sides run in chunks. They
reflect the signal's start, by up to 6 frames: the 24 kHz model, causal otherwise, cannot give its
first sample before it has 7 frames.

    from encodec import EncodecModel

    stream = encodec_decoder(EncodecModel.encodec_model_24khz(), window=4)
    wave = torch.cat([*(stream.push(piece) for piece in pieces), stream.finish()], dim=-1)
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from codec.errors import ForeignCodecError
from codec.foreign.chunked import Chunked, Stage
from codec.foreign.describe import Describe, Handlers, describe, of_attribute
from codec.foreign.layers import Chain, Convolution, Edge, Layers, Sum, Transposed
from codec.foreign.stream import ForeignDecoder

try:
    from encodec import EncodecModel
    from encodec.modules import SLSTM, SConv1d, SConvTranspose1d, SEANetDecoder
    from encodec.modules.seanet import SEANetResnetBlock
except ImportError as error:
    raise ForeignCodecError(
        "driving EnCodec needs its package; install it with: pip install 'sotto[foreign]'"
    ) from error

_EDGES: dict[str, Edge] = {"constant": "zeros", "reflect": "reflect", "replicate": "replicate"}


def encodec_decoder(model: EncodecModel, *, window: int) -> ForeignDecoder:
    """A stream of codes through a model's decoder, `window` frames at a time.

    Codes are (batch, codebooks, frames), as `model.encode` gives them with their scale of None.

    Args:
        model: in evaluation mode; it is not changed.
        window: with fewer frames more is computed again, with more the delay is longer.

    Raises:
        ForeignCodecError: the model cannot be streamed: that of 48 kHz normalises each second.
        ValueError: `window` is not positive.
    """
    if model.segment is not None or model.normalize:
        raise ForeignCodecError(
            "this EnCodec normalises and decodes one segment of a fixed length after the other: "
            "decode its segments as they come, model.decode joins them"
        )
    return ForeignDecoder(
        lambda codes: model.quantizer.decode(codes.transpose(0, 1)),
        decoder_stages(model.decoder, window),
        window=window,
        sample_rate=model.sample_rate,
        channels=model.channels,
        n_quantizers=model.quantizer.n_q,
        codebook_size=model.quantizer.bins,
    )


def decoder_stages(decoder: SEANetDecoder, window: int) -> list[Stage]:
    """A decoder cut at its LSTMs: chunks, a carried state, chunks.

    Raises:
        ForeignCodecError: a layer cannot be streamed.
    """
    stages: list[Stage] = []
    run: list[nn.Module] = []
    for module in decoder.model:
        if not isinstance(module, SLSTM):
            run.append(module)
            continue
        if run:
            stages.append(_chunked(run, window, module.lstm.input_size))
        stages.append(Carried(module.lstm, skip=module.skip))
        run = []
    return [*stages, _chunked(run, window, decoder.channels)]


def _chunked(run: list[nn.Module], window: int, out_channels: int) -> Chunked:
    network = nn.Sequential(*run)
    layers = describe(network, HANDLERS)
    return Chunked(network, layers, window=window, out_channels=out_channels)


class Carried:
    """A `Stage` of an LSTM, whose state goes from piece to piece."""

    hop = 1

    def __init__(self, lstm: nn.LSTM, *, skip: bool) -> None:
        """`skip`: the input is added to the output."""
        self._lstm, self._skip = lstm, skip
        self._state: Any = None
        self._nothing = torch.zeros(0)

    def needed(self, outputs: int) -> int:
        """Each frame is there with its own input."""
        return max(0, outputs)

    def length(self, n: int) -> int:
        """As many as come in."""
        return n

    def push(self, x: Tensor) -> Tensor:
        """Passes the next frames (batch, channels, frames) through, in the order they came."""
        self._nothing = x[..., :0]
        if x.shape[-1] == 0:
            return x
        with torch.inference_mode():
            y, self._state = self._lstm(x.permute(2, 0, 1), self._state)
        y = y.permute(1, 2, 0)
        return y + x if self._skip else y.clone()

    def finish(self) -> Tensor:
        """Nothing is held back."""
        return self._nothing


def _convolution(module: nn.Module, describe: Describe) -> Layers:
    """SConv1d: pads by itself, all on the left if it is causal."""
    assert isinstance(module, SConv1d)
    conv: nn.Conv1d = module.conv.conv
    if conv.stride[0] != 1 or module.pad_mode not in _EDGES:
        raise ForeignCodecError(
            f"an SConv1d of stride {conv.stride[0]} and padding {module.pad_mode!r} is not of a "
            "decoder of this package"
        )
    kernel_size, dilation = conv.kernel_size[0], conv.dilation[0]
    padding = (kernel_size - 1) * dilation
    right = 0 if module.causal else padding // 2
    edge = _EDGES[module.pad_mode]
    layer = Convolution(
        kernel_size, dilation=dilation, left=padding - right, right=right, edge=edge
    )
    return Chain((layer, describe(module.conv.norm)))


def _transposed(module: nn.Module, describe: Describe) -> Layers:
    """SConvTranspose1d: trims by itself."""
    assert isinstance(module, SConvTranspose1d)
    conv: nn.ConvTranspose1d = module.convtr.convtr
    kernel_size, stride = conv.kernel_size[0], conv.stride[0]
    trimmed = kernel_size - stride
    right = math.ceil(trimmed * module.trim_right_ratio) if module.causal else trimmed // 2
    layer = Transposed(kernel_size, stride, left=trimmed - right, right=right)
    return Chain((layer, describe(module.convtr.norm)))


def _residual(module: nn.Module, describe: Describe) -> Layers:
    assert isinstance(module, SEANetResnetBlock)
    return Sum((describe(module.block), describe(module.shortcut)))


HANDLERS: Handlers = {
    SConv1d: _convolution,
    SConvTranspose1d: _transposed,
    SEANetResnetBlock: _residual,
    SEANetDecoder: of_attribute("model"),
}
"""How `describe` reads the package's own layers."""
