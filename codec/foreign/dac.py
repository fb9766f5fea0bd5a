"""DAC of the PyPI package descript-audio-codec, streamed.

Its decoder is convolutions alone, padded with zeros on both sides: every sample waits for the
frames that it reads behind its own. A stage of odd stride gives a sample less than frames * stride,
which the stages behind it multiply; the stream's wave is as much shorter as that of
`model.decode`, and `length` says how long it will be.

    model = dac_classes().DAC(encoder_rates=[2, 4, 5, 8], decoder_rates=[8, 5, 4, 2]).eval()
    stream = dac_decoder(model, window=10)
    wave = torch.cat([*(stream.push(piece) for piece in pieces), stream.finish()], dim=-1)
"""

from typing import Any

from torch import nn

from codec.foreign.chunked import Chunked
from codec.foreign.dac_classes import dac_classes
from codec.foreign.describe import Describe, Handlers, describe, of_attribute, pointwise
from codec.foreign.layers import Convolution, Layers, Sum
from codec.foreign.stream import ForeignDecoder

_LONG = 10_000  # inputs, more than any branch reads


def dac_decoder(model: Any, *, window: int) -> ForeignDecoder:
    """A stream of codes through a model's decoder, `window` frames at a time.

    Args:
        model: a `dac.DAC` in evaluation mode; it is not changed. With its `padding` switched off
            the wave lacks what is padded otherwise, streamed and whole.
        window: with fewer frames more is computed again, with more the delay is longer.

    Raises:
        ForeignCodecError: its layers are not those of the package.
        ValueError: `window` is not positive.
    """
    network = model.decoder
    layers = describe(network, handlers())
    widths = [layer.out_channels for layer in network.modules() if isinstance(layer, nn.Conv1d)]
    stage = Chunked(network, layers, window=window, out_channels=widths[-1])
    return ForeignDecoder(
        lambda codes: model.quantizer.from_codes(codes)[0],
        [stage],
        window=window,
        sample_rate=model.sample_rate,
        channels=widths[-1],
        n_quantizers=model.n_codebooks,
        codebook_size=model.codebook_size,
    )


def handlers() -> Handlers:
    """How `describe` reads the package's own layers.

    Raises:
        ForeignCodecError: the package is not installed.
    """
    dac = dac_classes()
    return {
        dac.Snake1d: pointwise,
        dac.ResidualUnit: _residual,
        dac.EncoderBlock: of_attribute("block"),
        dac.DecoderBlock: of_attribute("block"),
        dac.Encoder: of_attribute("block"),
        dac.Decoder: of_attribute("model"),
    }


def _residual(module: Any, describe: Describe) -> Layers:
    """Without padding the branch is shorter, and what passes by loses as much on both sides."""
    branch = describe(module.block)
    cut = (_LONG - branch.length(_LONG)) // 2
    return Sum((branch, Convolution(left=-cut, right=-cut)))
