"""The layers of `codec/nn` as ONNX nodes: each one's arithmetic, for signals laid out time-major.

What a layer does is decided there; this module only says it again for another machine, and
`infer/export.py` compares the two on signals before anything is kept.
"""

import math
from functools import singledispatch

import numpy as np
import torch
from numpy.typing import NDArray
from onnx import TensorProto
from torch import Tensor, nn

from codec.codec import Codec
from codec.errors import SottoError
from codec.nn.autoencoder import Autoencoder
from codec.nn.codebook import VectorQuantizer
from codec.nn.convnext import ChannelNorm, ConvNeXtBlock
from codec.nn.convolution import Chain, Conv1d, ConvTranspose1d
from codec.nn.noise import SILENCE, LatentNoise
from codec.nn.quantizer import ResidualVectorQuantizer
from codec.nn.seanet import ELU, ResidualUnit, Snake
from codec.nn.transform import POWER_FLOOR, Analysis, Synthesis
from infer.export_graph import Graph

Float = NDArray[np.float32]


def autoencoder_of(codec: Codec) -> Autoencoder:
    """The modules behind a codec, weight norm folded: what there is to export."""
    return codec._autoencoder


def encode(graph: Graph, encoder: Chain, quantizer: ResidualVectorQuantizer) -> None:
    """Adds wave (batch, 1, samples), whole hops, -> codes (batch, n_quantizers, frames) int64."""
    wave = graph.input("wave", TensorProto.FLOAT, ("batch", 1, "samples"))
    latent = add(encoder, graph, graph.reshape(wave, 0, -1, 1))
    codes = _search(graph, quantizer, latent)
    shape = ("batch", quantizer.n_quantizers, "frames")
    graph.output("codes", codes, TensorProto.INT64, shape)


def decode(graph: Graph, decoder: Chain, quantizer: ResidualVectorQuantizer) -> None:
    """Adds codes (batch, n_quantizers, frames) -> wave (batch, 1, samples).

    A code of -1 stands for a codebook that is not used and adds nothing.
    """
    shape = ("batch", quantizer.n_quantizers, "frames")
    codes = graph.input("codes", TensorProto.INT64, shape)
    wave = add(decoder, graph, _look_up(graph, quantizer, codes))
    shape = ("batch", 1, "samples")
    graph.output("wave", graph.reshape(wave, 0, 1, -1), TensorProto.FLOAT, shape)


@singledispatch
def add(layer: nn.Module, graph: Graph, x: str) -> str:
    """Adds a layer to the graph: (batch, time, channels) in and out.

    Raises:
        SottoError: there is no translation of such a layer.
    """
    raise SottoError(f"layers of type {type(layer).__name__} cannot be exported to ONNX")


@add.register
def _chain(layer: Chain, graph: Graph, x: str) -> str:
    for part in layer.layers:
        x = add(part, graph, x)
    return x


@add.register
def _residual(layer: ResidualUnit, graph: Graph, x: str) -> str:
    return graph.node("Add", x, add(layer.branch, graph, x))


@add.register
def _convolution(layer: Conv1d, graph: Graph, x: str) -> str:
    weight = array(layer.weight)
    bias = None if layer.bias is None else array(layer.bias)
    if layer.dilation > 1 and layer.stride > 1:
        raise SottoError("a convolution with stride and dilation cannot be exported to ONNX")
    if layer.dilation > 1:
        following = layer.right_padding
        padded = graph.after(x, layer.left_padding, layer.in_channels, following=following)
        return graph.product(
            padded,
            by_taps(weight),
            bias,
            taps=weight.shape[2],
            dilation=layer.dilation,
            newest=None if following else x,
        )
    # Next to the wave: few products, and 8 bits of a wave are too few.
    exact = 1 in (layer.in_channels, layer.out_channels)
    return _strided(graph, x, weight, bias, layer.stride, layer.right_padding, exact=exact)


def _strided(
    graph: Graph,
    x: str,
    weight: Float,
    bias: Float | None,
    stride: int,
    following: int,
    *,
    exact: bool,
) -> str:
    """A convolution by (out, in, taps): strides of samples become frames of as many channels.

    Zeros in front of the taps make them whole strides.
    """
    _, channels, taps = weight.shape
    missing = -taps % stride
    weight = np.pad(weight, ((0, 0), (0, 0), (missing, 0)))
    frames, width = (taps + missing) // stride, stride * channels
    newest = None
    if following:
        x = graph.after(x, (frames - 1) * stride - following, channels, following=following)
        x = graph.reshape(x, 0, -1, width) if stride > 1 else x
    else:
        newest = graph.reshape(x, 0, -1, width) if stride > 1 else x
        x = graph.after(newest, frames - 1, width)
    return graph.product(x, by_taps(weight), bias, taps=frames, newest=newest, exact=exact)


@add.register
def _transposed(layer: ConvTranspose1d, graph: Graph, x: str) -> str:
    matrix, bias = blocks_of(layer)
    pairs = graph.after(x, 1, layer.in_channels, following=0 if layer.causal else 1)
    newest = x if layer.causal else None
    blocks = graph.product(pairs, matrix, bias, taps=2, newest=newest)
    y = graph.reshape(blocks, 0, -1, layer.out_channels)
    return _trimmed(graph, y, layer.left_trim, layer.stride)


@add.register
def _norm(layer: ChannelNorm, graph: Graph, x: str) -> str:
    return _layer_norm(graph, x, layer.weight, layer.bias, 1e-5)


@add.register
def _convnext(layer: ConvNeXtBlock, graph: Graph, x: str) -> str:
    taps = array(layer.depthwise)[:, 0]
    y = graph.depthwise(x, taps, before=layer.left_padding, following=layer.right_padding)
    y = _layer_norm(graph, y, layer.norm.weight, layer.norm.bias, layer.norm.eps)
    y = graph.product(y, array(layer.widen.weight).T, array(layer.widen.bias))
    y = graph.node("Gelu", y)
    scale = array(layer.scale)
    y = graph.product(y, array(layer.narrow.weight).T * scale, array(layer.narrow.bias) * scale)
    return graph.node("Add", x, y)


@add.register
def _analysis(layer: Analysis, graph: Graph, x: str) -> str:
    weight = array(layer.basis).T[:, None]
    spectrum = _strided(graph, x, weight, None, layer.hop_length, layer.right_padding, exact=True)
    bins = layer.n_fft // 2 + 1
    squares = graph.node("Mul", spectrum, spectrum)
    power = graph.node(
        "Add", graph.slice(squares, 0, bins, axis=2), graph.slice(squares, bins, None, axis=2)
    )
    power = graph.node("Add", power, graph.constant(np.float32(POWER_FLOOR)))
    # A power of it, in two operators that ONNX Runtime has vector instructions for.
    exponent = graph.constant(np.float32((layer.exponent - 1) / 2))
    gain = graph.node("Exp", graph.node("Mul", graph.node("Log", power), exponent))
    return graph.node("Mul", spectrum, graph.join(gain, gain, axis=2))


@add.register
def _synthesis(layer: Synthesis, graph: Graph, x: str) -> str:
    bins = layer.hop_length + 1
    loudest = graph.constant(np.float32(layer.LOUDEST))
    magnitude = graph.node("Exp", graph.node("Min", graph.slice(x, 0, bins, axis=2), loudest))
    phase = graph.slice(x, bins, None, axis=2)
    spectrum = graph.join(
        graph.node("Mul", magnitude, graph.node("Cos", phase)),
        graph.node("Mul", magnitude, graph.node("Sin", phase)),
        axis=2,
    )
    pairs = graph.after(spectrum, 1, 2 * bins, following=0 if layer.causal else 1)
    newest = spectrum if layer.causal else None
    blocks = graph.product(pairs, array(layer.basis).T, taps=2, newest=newest, exact=True)
    y = graph.reshape(blocks, 0, -1, 1)
    return _trimmed(graph, y, layer.left_trim, layer.hop_length)


@add.register
def _elu(layer: ELU, graph: Graph, x: str) -> str:
    return graph.node("Elu", x)


@add.register
def _leaky_relu(layer: nn.LeakyReLU, graph: Graph, x: str) -> str:
    return graph.node("LeakyRelu", x, alpha=layer.negative_slope)


@add.register
def _snake(layer: Snake, graph: Graph, x: str) -> str:
    alpha = array(layer.alpha)[:, 0]
    sine = graph.node("Sin", graph.node("Mul", x, graph.constant(alpha)))
    inverse = graph.constant(alpha / (alpha**2 + np.float32(1e-12)))
    squares = graph.node("Mul", sine, sine)
    return graph.node("Add", x, graph.node("Mul", squares, inverse))


@add.register
def _noise(layer: LatentNoise, graph: Graph, x: str) -> str:
    power = graph.node("ReduceMean", graph.node("Mul", x, x), graph.integers(-1), keepdims=1)
    rms = graph.node("Sqrt", graph.node("Add", power, graph.constant(np.float32(SILENCE))))
    projection = array(layer.projection)
    angle = graph.product(graph.node("Div", x, rms), projection.T, None, exact=True)
    loudness = graph.node("Mul", rms, graph.constant(np.float32(math.sqrt(2))))
    return graph.join(x, graph.node("Mul", loudness, graph.node("Sin", angle)), axis=2)


def _search(graph: Graph, quantizer: ResidualVectorQuantizer, latent: str) -> str:
    """(batch, frames, dimension) -> the nearest rows' codes.

    Signals have an axis more here, so that codes have one to be joined along.
    """
    residual = graph.reshape(latent, 0, -1, 1, quantizer.dimension)
    codes = []
    layers = quantizer.layers()
    for index, layer in enumerate(layers):
        codes.append(graph.node("ArgMax", _scores(graph, layer, residual), axis=3, keepdims=0))
        if index < len(layers) - 1:
            rows = graph.constant(_vectors(layer), "rows")
            residual = graph.node("Sub", residual, graph.node("Gather", rows, codes[-1]))
    return graph.node("Transpose", graph.join(*codes, axis=2), perm=[0, 2, 1])


def _scores(graph: Graph, layer: VectorQuantizer, residual: str) -> str:
    """2x·e - ‖e‖² of all rows, the largest of which is the nearest's."""
    x = residual
    if layer.project_in is not None:
        weight, bias = array(layer.project_in.weight), array(layer.project_in.bias)
        x = graph.product(x, weight.T, bias, exact=True)
    if layer.l2_normalize:
        norm = graph.node("ReduceL2", x, graph.integers(3), keepdims=1)
        x = graph.node("Div", x, graph.node("Max", norm, graph.constant(np.float32(1e-12))))
    rows = array(layer.rows())
    # In 8 bits a row almost as near is taken now and then, at a cost below 0.001 dB; few dimensions
    # have nothing that such errors would cancel against.
    exact = layer.project_in is not None
    return graph.product(x, 2 * rows.T, -np.square(rows).sum(1), exact=exact)


def _look_up(graph: Graph, quantizer: ResidualVectorQuantizer, codes: str) -> str:
    """Codes -> (batch, frames, dimension), the sum of their rows: one table, one Gather."""
    nothing = np.zeros((1, quantizer.dimension), np.float32)  # the row of code -1, the first one
    tables = [np.concatenate([nothing, _vectors(layer)]) for layer in quantizer.layers()]
    rows = quantizer.codebook_size + 1
    starts = 1 + np.arange(len(tables), dtype=np.int64)[:, None] * rows
    places = graph.node("Add", codes, graph.constant(starts))
    chosen = graph.node("Gather", graph.constant(np.concatenate(tables), "rows"), places)
    return graph.node("ReduceSum", chosen, graph.integers(1), keepdims=0)


def _vectors(layer: VectorQuantizer) -> Float:
    """What the codes of a codebook stand for, (codebook_size, dimension)."""
    device = layer.codebook.device
    with torch.inference_mode():
        return array(layer.decode(torch.arange(len(layer.codebook), device=device)))


def _layer_norm(graph: Graph, x: str, weight: Tensor, bias: Tensor, eps: float) -> str:
    return graph.node(
        "LayerNormalization",
        x,
        graph.constant(array(weight)),
        graph.constant(array(bias)),
        axis=-1,
        epsilon=eps,
    )


def _trimmed(graph: Graph, y: str, left: int, stride: int) -> str:
    """A wave of one stride too many without what a non-causal layer cuts off."""
    return graph.slice(y, left, left - stride or None) if left else y


def blocks_of(layer: ConvTranspose1d) -> tuple[Float, Float]:
    """Its weights and bias as those of a product: pairs of inputs -> blocks of outputs."""
    # (out, stride, in, 2) -> (2 * in, stride * out)
    weight = array(layer.weight).transpose(3, 2, 1, 0)
    matrix = weight.reshape(2 * layer.in_channels, layer.stride * layer.out_channels)
    return matrix, np.tile(array(layer.bias), layer.stride)


def by_taps(weight: Float) -> Float:
    """Weights as those of a product over windows: (out, in, taps) -> (taps * in, out)."""
    return weight.transpose(2, 1, 0).reshape(-1, weight.shape[0])


def array(tensor: Tensor) -> Float:
    """A tensor's numbers, float32."""
    numbers: Float = tensor.detach().float().cpu().numpy()
    return numbers
