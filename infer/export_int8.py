"""Eight bits for matrix products: the scales they need, found on speech, and what they cost.

Static quantization: every product's input has one scale for all times, every weight matrix one for
each output. The search for the nearest rows, the Fourier transforms and all that is not a product
stay in fp32.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from codec import audio
from codec.codec import Codec
from codec.data.manifest import load_entries
from codec.errors import SottoError
from infer.export_graph import Graph, Scale
from infer.runtime.card import OnnxFile
from infer.runtime.session import Array, Session

Wave = NDArray[np.float32]

# Recordings that are looked at, and how much of each.
_RECORDINGS = 48
_SECONDS = 2.0
# Values of a tensor that are kept of each recording, to choose its scale by.
_SAMPLES = 4096
# Less is no rounding: the scales are wrong.
_LEAST_SNR = 10.0  # dB
# Ranges that are tried, as parts of the whole one: a few values clipped make all others finer.
_RANGES = np.linspace(0.3, 1.0, 29)

_BANDS = 16


def calibration_waves(codec: Codec, folder: Path, split: str | None = None) -> list[Wave]:
    """Speech of a folder or manifest, (samples,) of whole hops at the model's rate.

    `split` names the part of a corpus to take it from; none: all of it.

    Raises:
        DataError: there is no audio.
        AudioError: a recording cannot be read.
    """
    entries = load_entries(folder, split=split)
    order = np.random.default_rng(0).permutation(len(entries))[:_RECORDINGS]
    waves = []
    for index in order:
        entry = entries[index]
        start = max(0.0, (entry.seconds - _SECONDS) / 2)
        rate = codec.sample_rate
        wave, _ = audio.read(entry.path, sample_rate=rate, start=start, seconds=_SECONDS)
        mono = audio.to_mono(wave)[0]
        waves.append(np.pad(mono, (0, -len(mono) % codec.hop_length)))
    return waves


def find_scales(build: Callable[[Graph], None], part: str, inputs: Sequence[Array]) -> list[Scale]:
    """A scale for every product of a network, by running it on whole signals.

    Args:
        build: adds the network to a graph.
        part: "encoder" or "decoder".
        inputs: what it takes, one signal each.
    """
    graph = Graph(part, streaming=False)
    build(graph)
    names = [f"product_{index}" for index in range(len(graph.products))]
    for index, (name, value) in enumerate(zip(names, graph.products, strict=True)):
        shape = ("batch", f"time_{index}", f"width_{index}")
        graph.output(name, value, TensorProto.FLOAT, shape)
    session = Session(OnnxFile(part, part, False, "fp32", 0, ""), graph.model({}))
    generator = np.random.default_rng(0)
    ranges = np.zeros((len(names), 2))
    samples: list[list[Array]] = [[] for _ in names]
    for x in inputs:
        for index, values in enumerate(session.inside(x, names)):
            ranges[index, 0] = min(ranges[index, 0], values.min())
            ranges[index, 1] = max(ranges[index, 1], values.max())
            samples[index].append(generator.choice(values.ravel(), _SAMPLES))
    return [
        _best_scale(np.concatenate(kept), *bounds)
        for kept, bounds in zip(samples, ranges, strict=True)
    ]


def loss(fp32: Sequence[Array], int8: Sequence[Array]) -> float:
    """Signal-to-noise ratio in dB of what the one gives against the other's, over all signals.

    Raises:
        SottoError: so little is left that the scales cannot be right.
    """
    signal = sum(float(np.square(x).sum()) for x in fp32)
    noise = sum(float(np.square(x - y).sum()) for x, y in zip(fp32, int8, strict=True))
    snr = 10 * np.log10(max(signal, 1e-20) / max(noise, 1e-20))
    if not snr > _LEAST_SNR:
        raise SottoError(
            f"in int8 the decoder keeps {snr:.1f} dB only: calibrate on speech like that to come, "
            "or stay with fp32"
        )
    return float(snr)


def loudness(wave: Array, frame: int) -> Array:
    """What is left of a wave (1, 1, samples) where its phase does not count.

    The fourth root of the power in 16 bands, about as loudness goes, in windows of four frames that
    begin with every frame: float64 (windows, 16). Where rounding chooses another pitch in what has
    none, or a pitch runs a cycle ahead within seconds, hardly anything of it changes.
    """
    padded = np.pad(wave[0, 0], (0, 3 * frame))
    windows = np.lib.stride_tricks.sliding_window_view(padded, 4 * frame)[::frame]
    power = np.square(np.abs(np.fft.rfft(windows * np.hanning(4 * frame))[:, 1:]))
    width = max(1, power.shape[1] // _BANDS)
    bands = power[:, : power.shape[1] // width * width].reshape(len(power), -1, width)
    loud: Array = bands.mean(axis=2) ** 0.25
    return loud


def _best_scale(values: Array, lowest: float, highest: float) -> Scale:
    """The scale with the smallest squared error on these values."""
    best, least = Scale(1.0, 0), np.inf
    for part in _RANGES:
        scale = _scale(part * lowest, part * highest)
        levels = np.rint(values / scale.scale).clip(-scale.zero_point, 255 - scale.zero_point)
        error = float(np.square(levels * scale.scale - values).mean())
        if error < least:
            best, least = scale, error
    return best


def _scale(lowest: float, highest: float) -> Scale:
    step = max(highest - lowest, 1e-9) / 255
    return Scale(float(np.float32(step)), int(np.clip(np.rint(-lowest / step), 0, 255)))
