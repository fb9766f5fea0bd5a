"""What streaming costs a codec that was not made for it: chunks against a sliding window.

    nice python -m benchmarks.foreign
    nice python -m benchmarks.foreign --codecs encodec sotto --seconds 4 --windows 1 2 4 8 16 32

EnCodec's 24 kHz model, DAC's of 16 kHz (strides 8, 5, 4, 2: its length drifts) and Sotto's
configs/ablations/not-causal.yaml, all with random weights, decode the same frames on one thread,
all ways in turn within one run:

- whole: everything at once;
- chunks: the streamer, so many frames at a time, with exactly the context that they need;
- sliding: for each new frame the last so many are decoded again and the newest frame's samples are
  kept, as is often done; for a codec that looks ahead they are wrong;
- sliding, late: the same, but the samples kept lie as far back as the codec looks ahead.

The delay is the time from the beginning of a frame's audio to the coming of the last frame that is
waited for, without computing; the cost is CPU seconds a second of audio, the median of the repeats,
and in times of decoding the whole; the ratio of signal to error is measured against the whole, past
the start.
"""

import argparse
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor, nn
from torch.nn.utils import remove_weight_norm

from codec.building import build_autoencoder
from codec.config_files import load_config
from codec.errors import ForeignCodecError
from codec.foreign.chunked import Chunked
from codec.foreign.sotto import sotto_decoder
from codec.foreign.stream import ForeignDecoder
from codec.nn.convolution import fold_weight_norm

_CONFIG = "configs/ablations/not-causal.yaml"


@dataclass(frozen=True)
class Subject:
    """A codec whose ways to decode are compared.

    Attributes:
        whole: codes (1, n, frames) -> wave (1, 1, samples).
        stream: window in frames -> a stream's push, finish and delay in frames.
        before, after: frames of context that a frame's samples need.
    """

    name: str
    sample_rate: int
    hop_length: int
    n_quantizers: int
    codebook_size: int
    before: int
    after: int
    whole: Callable[[Tensor], Tensor]
    stream: Callable[[int], ForeignDecoder]


@dataclass(frozen=True)
class Way:
    """One way to decode: its delay in frames, the frames run for each new one, and how."""

    name: str
    delay: int
    decode: Callable[[Tensor], Tensor]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--codecs", nargs="+", choices=list(SUBJECTS), default=list(SUBJECTS))
    parser.add_argument("--seconds", type=float, default=2.0, help="of audio that are decoded")
    parser.add_argument("--windows", nargs="+", type=int, default=[1, 4, 16], help="in frames")
    parser.add_argument("--sliding", type=int, default=20, help="frames of the sliding window")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    console = Console()
    for name in options.codecs:
        try:
            subject = SUBJECTS[name]()
        except ForeignCodecError as missing:
            console.print(f"{name} is left out: {missing}")
            continue
        arguments = options.seconds, options.windows, options.sliding, options.repeats
        console.print(table(subject, *arguments))


def table(
    subject: Subject, seconds: float, windows: Sequence[int], sliding: int, repeats: int
) -> Table:
    """A row for each way."""
    frames = max(sliding, round(seconds * subject.sample_rate / subject.hop_length))
    shape = (1, subject.n_quantizers, frames)
    generator = torch.Generator().manual_seed(1)
    codes = torch.randint(subject.codebook_size, shape, generator=generator)
    ways = ways_of(subject, frames, windows, sliding)
    costs = np.zeros((repeats, len(ways)))
    waves: list[Tensor] = []
    for repeat in track(range(repeats), description=subject.name, transient=True):
        for index, way in enumerate(ways):
            start = time.process_time()
            waves.append(way.decode(codes))
            costs[repeat, index] = time.process_time() - start
    cost = np.median(costs, axis=0) * subject.sample_rate / subject.hop_length / frames
    title = f"{subject.name}: context {subject.before} + {subject.after} frames"
    result = Table(title=title)
    for heading in ("way", "delay", "CPU s / s", "× whole", "signal / error"):
        result.add_column(heading, justify="left" if heading == "way" else "right")
    millisecond = subject.sample_rate / 1000 / subject.hop_length
    for way, wave, seconds_each in zip(ways, waves, cost, strict=False):
        figures = f"{way.delay / millisecond:.0f} ms", f"{seconds_each:.3f}"
        error = "" if way is ways[0] else _signal_to_error(waves[0], wave, subject)
        result.add_row(way.name, *figures, f"{seconds_each / cost[0]:.1f}", error)
    return result


def ways_of(subject: Subject, frames: int, windows: Sequence[int], sliding: int) -> list[Way]:
    """The whole first."""

    def chunks(window: int) -> Way:
        def decode(codes: Tensor) -> Tensor:
            stream = subject.stream(window)
            pieces = [stream.push(piece) for piece in codes.split(window, dim=-1)]
            return torch.cat([*pieces, stream.finish()], dim=-1)

        return Way(f"chunks of {window}", subject.stream(window).delay, decode)

    def slide(late: int, name: str) -> Way:
        return Way(name, 1 + late, lambda codes: _slide(subject, codes, sliding, late))

    ways = [Way("whole", frames, subject.whole), *map(chunks, windows)]
    ways.append(slide(0, f"sliding, {sliding} frames"))
    if 0 < subject.after < sliding:
        ways.append(slide(subject.after, f"sliding, {sliding} frames, {subject.after} late"))
    return ways


def _slide(subject: Subject, codes: Tensor, sliding: int, late: int) -> Tensor:
    """Each frame's samples from a run on the frames up to `late` behind it.

    Of the newest frame a codec whose length drifts gives fewer than a hop; the others are zeros.
    """
    hop, frames = subject.hop_length, codes.shape[-1]
    pieces = []
    for frame in range(frames):
        stop = min(frames, frame + late + 1)
        start = max(0, stop - sliding)
        wave = subject.whole(codes[..., start:stop])
        piece = wave[..., (frame - start) * hop : (frame - start + 1) * hop]
        pieces.append(nn.functional.pad(piece, (0, hop - piece.shape[-1])))
    return torch.cat(pieces, dim=-1)


def _signal_to_error(whole: Tensor, wave: Tensor, subject: Subject) -> str:
    skip = 8 * subject.hop_length  # where some codecs reflect their start
    length = min(whole.shape[-1], wave.shape[-1])
    whole, wave = whole[..., skip:length], wave[..., skip:length]
    signal, error = whole - whole.mean(), wave - whole
    return f"{float(10 * torch.log10(signal.square().sum() / error.square().sum())):.0f} dB"


def encodec() -> Subject:
    """EnCodec's 24 kHz architecture."""
    from encodec import EncodecModel

    from codec.foreign.encodec import encodec_decoder

    torch.manual_seed(0)
    model = EncodecModel.encodec_model_24khz(pretrained=False)
    for name, buffer in model.quantizer.named_buffers():
        if name.endswith("embed"):  # zeros until they are trained
            buffer.normal_()
    _fold(model.decoder)
    stages = encodec_decoder(model, window=1).stages
    chunked = [stage for stage in stages if isinstance(stage, Chunked)]

    def whole(codes: Tensor) -> Tensor:
        with torch.inference_mode():
            wave: Tensor = model.decode([(codes, None)])
        return wave

    return Subject(
        "EnCodec, 24 kHz",
        model.sample_rate,
        320,
        model.quantizer.n_q,
        model.quantizer.bins,
        sum(stage.before for stage in chunked),
        sum(stage.after for stage in chunked),
        whole,
        lambda window: encodec_decoder(model, window=window),
    )


def dac() -> Subject:
    """The architecture of DAC's 16 kHz model."""
    from codec.foreign.dac import dac_decoder
    from codec.foreign.dac_classes import dac_classes

    torch.manual_seed(0)
    sizes = {"encoder_rates": [2, 4, 5, 8], "decoder_rates": [8, 5, 4, 2], "n_codebooks": 12}
    model: Any = dac_classes().DAC(sample_rate=16000, **sizes).eval()
    _fold(model.decoder)
    (stage,) = dac_decoder(model, window=1).stages
    assert isinstance(stage, Chunked)

    def whole(codes: Tensor) -> Tensor:
        with torch.inference_mode():
            wave: Tensor = model.decode(model.quantizer.from_codes(codes)[0])
        return wave

    return Subject(
        "DAC, 16 kHz",
        16000,
        320,
        12,
        1024,
        stage.before,
        stage.after,
        whole,
        lambda window: dac_decoder(model, window=window),
    )


def sotto() -> Subject:
    """Sotto's own model that looks ahead."""
    config = load_config(_CONFIG).model
    torch.manual_seed(0)
    autoencoder = build_autoencoder(config).eval().requires_grad_(False)
    fold_weight_norm(autoencoder)
    (stage,) = sotto_decoder(autoencoder, window=1, sample_rate=config.sample_rate).stages
    assert isinstance(stage, Chunked)

    def whole(codes: Tensor) -> Tensor:
        with torch.inference_mode():
            return autoencoder.decoder(autoencoder.quantizer.decode(codes))

    return Subject(
        "Sotto, not causal, 16 kHz",
        config.sample_rate,
        config.hop_length,
        config.quantizer.n_quantizers,
        config.quantizer.codebook_size,
        stage.before,
        stage.after,
        whole,
        lambda window: sotto_decoder(autoencoder, window=window, sample_rate=config.sample_rate),
    )


SUBJECTS = {"encodec": encodec, "dac": dac, "sotto": sotto}


def _fold(network: nn.Module) -> None:
    """Computes each weight once, as both ways would have it in use."""
    for layer in network.modules():
        if hasattr(layer, "weight_g"):
            remove_weight_norm(layer)


if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    main()
