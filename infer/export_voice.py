"""The layers of a voice as ONNX nodes: its features, its network, its source and filter.

As in `export_layers`: (batch, time, channels), arithmetic that is decided in `codec/nn`. What is
linear there and follows something linear is one product here; the sum over windows is one over
shifted blocks, which serves steps and whole signals alike. Fourier transforms are products with
constants. All but the products of the networks is exact, in 32 bits, and the phase in 64.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from codec.nn.convolution import Conv1d
from codec.nn.features import (
    _COMPRESSION,
    ENVELOPE_MIDDLE,
    ENVELOPE_SPREAD,
    POWER_FLOOR,
    VoiceFeatures,
)
from codec.nn.noise import SILENCE, LatentNoise
from codec.nn.parameters import APERIODICITY_FLOOR, ENVELOPE, F0_CLASSES
from codec.nn.voice import (
    _NEIGHBOURS,
    _SILENT_SHARE,
    _TINY,
    LOUDEST,
    WINDOW_HOPS,
    VoiceSynthesis,
)
from codec.nn.voice_halves import ENVELOPE_SCALE, Sum, VoiceDecoder, VoiceTrunk
from infer.export_graph import Graph
from infer.export_layers import add, array, blocks_of, by_taps

Float = NDArray[np.float32]


@add.register
def _sum(layer: Sum, graph: Graph, x: str) -> str:
    return graph.node("Sum", *(add(branch, graph, x) for branch in layer.branches))


@add.register
def _features(layer: VoiceFeatures, graph: Graph, x: str) -> str:
    samples = graph.reshape(graph.after(x, layer.left_padding, 1), 0, -1)
    windows = graph.own_node(
        "UnfoldTensor", samples, dim=1, size=layer.pitch_window, step=layer.hop_length
    )
    late = graph.slice(windows, layer.pitch_window - layer.envelope_window, None, axis=2)
    repeats = _repeats(layer, graph, windows)
    return graph.join(_envelope(layer, graph, late), repeats, axis=2)


def _envelope(layer: VoiceFeatures, graph: Graph, windows: str) -> str:
    """(log(power + floor) - middle) / spread, the middle being a factor of both."""
    spectrum = graph.product(windows, array(layer.envelope_basis), exact=True)
    squares = graph.node("Mul", spectrum, spectrum)
    factor = np.float32(math.exp(-ENVELOPE_MIDDLE))
    bands = array(layer.bands) * factor
    power = graph.product(
        squares,
        np.concatenate((bands, bands)),  # of real and imaginary parts
        np.full(ENVELOPE, POWER_FLOOR * factor, np.float32),
        exact=True,
    )
    return graph.node("Mul", graph.node("Log", power), _scalar(graph, 1 / ENVELOPE_SPREAD))


def _repeats(layer: VoiceFeatures, graph: Graph, windows: str) -> str:
    bins = layer.lags.shape[0]
    spectrum = graph.product(windows, array(layer.pitch_basis), exact=True)
    parts = graph.split(graph.node("Mul", spectrum, spectrum), bins, bins)
    power = graph.node("Sum", *parts, _scalar(graph, POWER_FLOOR))
    # As in `export_layers`: a power of it, by operators that have vector instructions.
    exponent = graph.node("Mul", graph.node("Log", power), _scalar(graph, _COMPRESSION))
    compressed = graph.node("Exp", exponent)
    total = graph.node("ReduceSum", compressed, graph.integers(2), keepdims=1)
    return graph.node("Div", graph.product(compressed, array(layer.lags), exact=True), total)


@add.register
def _voice(layer: VoiceDecoder, graph: Graph, x: str) -> str:
    held = layer.lookahead if not graph.streaming else 0
    if held:  # as `forward` does
        x = graph.node("Pad", x, graph.integers(0, 0, 0, 0, held, 0), mode="edge")
    controls = _controls(layer.trunk, graph, x, layer.synthesis)
    wave = _synthesise(layer.synthesis, graph, controls)
    return graph.slice(wave, held * layer.hop_length, None) if held else wave


@dataclass(frozen=True)
class _Controls:
    """What `codec.nn.voice.Controls` has in rows, (batch, time, width) each.

    Aperiodicity is in dB, noise has a power of 1/2, and the envelope is that of its magnitude in
    the spectrum, which a constant in its logarithm makes of it: `_loudness`.
    """

    envelope: str
    aperiodicity: str
    voicing: str
    f0: str
    free: str
    noise: str


def _controls(layer: VoiceTrunk, graph: Graph, latent: str, synthesis: VoiceSynthesis) -> _Controls:
    y, linear = _entered(layer, graph, latent)
    for part in list(layer.network.layers)[1:-1]:
        y = add(part, graph, y)
    head = layer.head
    assert head.bias is not None
    # What rows are multiplied by afterwards.
    scale = np.ones(synthesis.controls.predicted, np.float32)
    scale[: ENVELOPE + 1] = ENVELOPE_SCALE
    matrix = by_taps(array(head.weight)) * scale
    bias = array(head.bias) * scale
    bias[:ENVELOPE] += 2 * math.log(_loudness(synthesis))
    y = graph.product(y, matrix, bias)
    free = synthesis.n_fft + 2
    envelope, aperiodicity, voicing, f0, rest = graph.split(y, ENVELOPE, 1, 1, F0_CLASSES, free)
    noise = _noise(layer.noise, graph, latent, layer.stride)
    envelope = graph.node("Add", envelope, linear)
    return _Controls(envelope, aperiodicity, voicing, f0, rest, noise)


def _loudness(layer: VoiceSynthesis) -> float:
    """What magnitudes are multiplied by, to begin with, as noise is: not pulses in the end."""
    return math.sqrt(2) * layer.noise_gain


def _entered(layer: VoiceTrunk, graph: Graph, latent: str) -> tuple[str, str]:
    """What the network's first layer and the linear path make of a latent, by one product."""
    first, linear = layer.network.layers[0], layer.linear
    assert isinstance(first, Conv1d) and first.bias is not None
    weight = array(first.weight)
    missing = max(0, 2 - weight.shape[2])
    network = by_taps(np.pad(weight, ((0, 0), (0, 0), (missing, 0))))
    taps = weight.shape[2] + missing
    pairs, bias = blocks_of(linear)
    pairs = np.pad(pairs, ((len(network) - len(pairs), 0), (0, 0)))
    y = graph.product(
        graph.after(latent, taps - 1, first.in_channels),
        np.concatenate((network, np.float32(ENVELOPE_SCALE) * pairs), axis=1),
        np.concatenate((array(first.bias), np.float32(ENVELOPE_SCALE) * bias)),
        taps=taps,
        newest=latent,
    )
    y, envelope = graph.split(y, first.out_channels, pairs.shape[1])
    return y, graph.reshape(envelope, 0, -1, ENVELOPE)


def _noise(layer: LatentNoise, graph: Graph, x: str, stride: int) -> str:
    """`LatentNoise.noise` of a frame over the square root of 2, one time after the other."""
    # Of twice the latent, which the operator makes of its two inputs.
    ones = graph.constant(np.ones(layer.projection.shape[1], np.float32))
    direction = graph.own_node("SkipSimplifiedLayerNormalization", x, x, ones, epsilon=4 * SILENCE)
    projection = array(layer.projection)
    width, dimension = len(projection) // stride, projection.shape[1]
    projection = projection.reshape(width, stride, dimension).transpose(2, 1, 0)
    matrix = projection.reshape(dimension, stride * width)
    angle = graph.product(direction, matrix, exact=True)
    return graph.reshape(graph.node("Sin", angle), 0, -1, width)


def _synthesise(layer: VoiceSynthesis, graph: Graph, controls: _Controls) -> str:
    """Waves, (batch, samples, 1), `codec.nn.voice.REACH` hops late as those of the layer."""
    f0 = _cycles_per_sample(layer, graph, controls.f0)
    harmonics = graph.node(
        "Floor", graph.node("Div", _scalar(graph, layer.top / layer.sample_rate), f0)
    )
    pulses = _pulses(layer, graph, f0, harmonics)
    spectrum = _spectrum(layer, graph, controls, pulses, harmonics)
    # Windows with half a hop of zeros on either side: five hops, of which the t-th frame's first
    # lies where the wave's hop t does.
    half, hop = layer.hop_length // 2, layer.hop_length
    synthesis = np.pad(array(layer.synthesis), ((0, 0), (half, half)))
    frames = graph.product(spectrum, synthesis, exact=True)
    padded = graph.after(frames, WINDOW_HOPS, (WINDOW_HOPS + 1) * hop)
    blocks = [graph.slice(frames, 0, hop, axis=2)]
    for late in range(1, WINDOW_HOPS + 1):
        starts, stops = (WINDOW_HOPS - late, late * hop), (-late, (late + 1) * hop)
        blocks.append(graph.corner(padded, starts, stops))
    return graph.reshape(graph.node("Sum", *blocks), 0, -1, 1)


def _cycles_per_sample(layer: VoiceSynthesis, graph: Graph, logits: str) -> str:
    """F0 over the sample rate, (batch, time, 1)."""
    distance = np.abs(np.arange(F0_CLASSES)[:, None] - np.arange(F0_CLASSES))
    far = np.where(distance <= _NEIGHBOURS, 0, -np.inf).astype(np.float32)
    highest = graph.node("ArgMax", logits, axis=2, keepdims=0)
    near = graph.node("Add", logits, graph.node("Gather", graph.constant(far), highest))
    weights = graph.node("Softmax", near, axis=2)
    return graph.node("Exp", graph.product(weights, array(layer.classes)[:, None], exact=True))


def _pulses(layer: VoiceSynthesis, graph: Graph, f0: str, harmonics: str) -> str:
    """Windows of the pulse train, (batch, time, n_fft), not yet of unit power."""
    hop = layer.hop_length
    last, next_last = graph.remembered(1)
    first = graph.slice(f0, 0, 1)
    if next_last is not None:
        first = graph.node("Where", graph.node("Greater", last, _scalar(graph, 0)), last, first)
    before = graph.slice(graph.join(first, f0, axis=1), 0, -1)
    graph.remember(f0, next_last)
    pairs = graph.join(f0, before, axis=2)
    middles = graph.node("Cast", _phases(graph, pairs, hop), to=TensorProto.FLOAT)
    offset = np.arange(layer.n_fft) - (layer.n_fft - 1) / 2
    bent = offset * offset / (2 * hop)
    curves = np.stack((np.ones_like(offset), offset + bent, -bent)).astype(np.float32)
    place = graph.product(graph.join(middles, pairs, axis=2), curves, exact=True)
    return _train(graph, place, harmonics)


def _phases(graph: Graph, pairs: str, hop: int) -> str:
    """Cycles at the middle of every frame, from 0 to 1, in 64 bits, of its F0 and that before."""
    phase, next_phase = graph.remembered(1, "float64")
    double = graph.node("Cast", pairs, to=TensorProto.DOUBLE)
    steps = graph.node("MatMul", double, graph.constant(np.full((2, 1), hop / 2)))
    summed = graph.node("CumSum", steps, graph.constant(np.int64(1)))
    if next_phase is not None:
        summed = graph.node("Add", summed, phase)
    middles = graph.node("Sub", summed, graph.node("Floor", summed))
    graph.remember(middles, next_phase)
    return middles


def _train(graph: Graph, place: str, harmonics: str) -> str:
    """Equal harmonics in closed form, as `VoiceSynthesis` has them but for their power."""
    place = _centred(graph, place)
    low = graph.node("Sin", graph.node("Mul", place, _scalar(graph, math.pi)))
    count = graph.node("Add", harmonics, _scalar(graph, 0.5))
    turns = _centred(graph, graph.node("Mul", place, count))
    high = graph.node("Sin", graph.node("Mul", turns, _scalar(graph, 2 * math.pi)))
    at_pulse = graph.node("Less", graph.node("Abs", low), _scalar(graph, _TINY))
    most = graph.node("Mul", count, _scalar(graph, 2))
    ratio = graph.node("Where", at_pulse, most, graph.node("Div", high, low))
    return graph.node("Sub", ratio, _scalar(graph, 1))


def _centred(graph: Graph, x: str) -> str:
    return graph.node("Sub", x, graph.node("Round", x))


def _spectrum(
    layer: VoiceSynthesis, graph: Graph, controls: _Controls, pulses: str, harmonics: str
) -> str:
    """Real and imaginary parts of every frame's sum, (batch, time, n_fft + 2)."""
    bins = layer.n_fft // 2 + 1
    loudness = _loudness(layer)
    loudest = _scalar(graph, LOUDEST + 2 * math.log(loudness))
    envelope = graph.node("Min", controls.envelope, loudest)
    to_bins = layer.envelope_to_bins.double()
    filters = np.concatenate((to_bins, to_bins @ layer.hilbert.double()), axis=1)
    filtered = graph.product(envelope, filters.astype(np.float32), exact=True)
    log_magnitude, angle = graph.split(filtered, bins, bins)
    magnitude = graph.node("Exp", log_magnitude)
    voiced = _voiced(layer, graph, controls)
    silent = _scalar(graph, _SILENT_SHARE)
    share = graph.node("Div", graph.node("Add", voiced, silent), harmonics)
    voice = graph.node("Mul", magnitude, graph.node("Sqrt", share))
    share = graph.node("Sub", _scalar(graph, 1 + _SILENT_SHARE), voiced)
    breath = graph.node("Mul", magnitude, graph.node("Sqrt", share))
    cosine = graph.node("Mul", graph.node("Cos", angle), voice)
    sine = graph.node("Mul", graph.node("Sin", angle), voice)
    # Of pulses, whose power is twice the number of harmonics.
    analysis = array(layer.analysis) / np.float32(math.sqrt(2) * loudness)
    sounding = graph.product(pulses, analysis, exact=True)
    real, imaginary = graph.split(sounding, bins, bins)
    spectrum = graph.join(
        graph.node("Sub", graph.node("Mul", real, cosine), graph.node("Mul", imaginary, sine)),
        graph.node("Add", graph.node("Mul", real, sine), graph.node("Mul", imaginary, cosine)),
        axis=2,
    )
    noise = graph.node("Mul", controls.noise, graph.join(breath, breath, axis=2))
    return graph.node("Sum", spectrum, noise, controls.free)


def _voiced(layer: VoiceSynthesis, graph: Graph, controls: _Controls) -> str:
    """The share of the voice in every bin, (batch, time, bins)."""
    decibels = graph.node(
        "Clip", controls.aperiodicity, _scalar(graph, APERIODICITY_FLOOR), _scalar(graph, 0)
    )
    tilt = array(layer.tilt) * np.float32(math.log(10) / 10)
    tilted = graph.node("Mul", decibels, graph.constant(tilt[1]))
    noise_share = graph.node("Exp", graph.node("Add", tilted, graph.constant(tilt[0])))
    share = graph.node("Sub", _scalar(graph, 1), noise_share)
    return graph.node("Mul", graph.node("Sigmoid", controls.voicing), share)


def _scalar(graph: Graph, value: float) -> str:
    return graph.constant(np.float32(value))
