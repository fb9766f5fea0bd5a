"""What a step takes in PyTorch, in ONNX Runtime, and in ONNX Runtime with 8 bits.

    nice python -m benchmarks.onnx_steps
    nice python -m benchmarks.onnx_steps model.safetensors configs/default.yaml seanet-16

Models are files, run descriptions (random weights), or seanet-WIDTH: that base width at 16 kHz in
frames of 320 samples. Streams are pushed 1, 2, 4 or 8 frames at a time on one thread, all ways in
turn within one run; times are milliseconds a frame, of CPU (wall time in brackets), medians and
95th percentiles over the pushes, and how many times faster than PyTorch the median of CPU time is.

    nice python -m benchmarks.onnx_steps model.safetensors --speech ../shared/speech

With speech, it is what 8 bits cost that is measured instead: calibrated on the training split,
scored on the test split at the model's default rate.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from codec import audio
from codec.building import build_autoencoder, inference_tensors
from codec.codec import Codec
from codec.config_files import load_config
from codec.config_model import ModelConfig
from codec.data.manifest import load_entries
from codec.evaluation.metrics import mel_distance, pesq_wb
from infer.export import export
from infer.export_check import probe_waves
from infer.export_int8 import calibration_waves
from infer.runtime import Codec as LightCodec

_DEFAULT = ["configs/default.yaml", "seanet-16", "seanet-32"]
_FRAMES = (1, 2, 4, 8)
_WARM_UP = 20

Push = Callable[[Any], object]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", default=_DEFAULT)
    parser.add_argument("--pushes", type=int, default=200, help="of each kind that are timed")
    parser.add_argument("--speech", type=Path, help="measure quality on it, not speed")
    parser.add_argument("--recordings", type=int, default=32, help="that are scored, at most")
    options = parser.parse_args()
    torch.set_num_threads(1)
    console = Console()
    for name in options.models:
        codec = _codec(name)
        if options.speech is None:
            console.print(table(name, codec, options.pushes))
        else:
            console.print(losses(name, codec, options.speech, options.recordings))


def table(name: str, codec: Codec, pushes: int) -> Table:
    """Times of both directions, a row for each way and number of frames."""
    title = f"{name}: {codec.n_parameters / 1e6:.2f} M parameters, ms a frame"
    result = Table(
        "part", "frames", "way", "p50 CPU (wall)", "p95 CPU (wall)", "times", title=title
    )
    generator = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "export"
        waves = [wave for seed in range(4) for wave in probe_waves(codec, seed)]
        export(codec, folder, calibration=waves)
        fp32, int8 = (LightCodec.load(folder, precision=p) for p in ("fp32", "int8"))
        ways: dict[str, Any] = {"PyTorch": codec, "ONNX fp32": fp32, "ONNX int8": int8}
        for part in ("encode", "decode"):
            for frames in _FRAMES:
                x: Any
                if part == "encode":
                    noise = generator.standard_normal(frames * codec.hop_length)
                    x = (0.1 * noise).astype(np.float32)
                    steps = [way.stream_encoder().push for way in ways.values()]
                else:
                    shape = (codec.n_quantizers, frames)
                    x = generator.integers(codec.codebook_size, size=shape)
                    steps = [way.stream_decoder().push for way in ways.values()]
                times = 1e3 / frames * timed(steps, x, pushes)
                for index, way in enumerate(ways):
                    p50, p95 = np.percentile(times[index], (50, 95), axis=0)
                    faster = np.median(times[0, :, 0]) / p50[0]
                    figures = (f"{cpu:.3f} ({wall:.3f})" for cpu, wall in (p50, p95))
                    result.add_row(part, str(frames), way, *figures, f"{faster:.1f}")
    return result


def losses(name: str, codec: Codec, speech: Path, recordings: int) -> Table:
    """PESQ, mel distance and more of all four pairs of precisions."""
    entries = load_entries(speech, split="test")
    entries = entries[:: max(1, len(entries) // recordings)][:recordings]
    waves = []
    for entry in entries:
        wave, _ = audio.read(entry.path, sample_rate=codec.sample_rate)
        waves.append(audio.to_mono(wave)[0])
    title = f"{name}: {len(waves)} recordings at {codec.default_kbps:g} kbit/s"
    result = Table("encoder", "decoder", "PESQ-wb", "mel", "SNR to fp32", "same codes", title=title)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "export"
        export(codec, folder, calibration=calibration_waves(codec, speech, split="train"))
        ways = {p: LightCodec.load(folder, precision=p) for p in ("fp32", "int8")}
        fp32: list[np.ndarray] = []
        for coded, encoder in ways.items():
            n_quantizers = codec.n_quantizers_for(codec.default_kbps)
            codes = [encoder.encode(wave, n_quantizers) for wave in waves]
            fp32 = fp32 or codes
            equal = np.mean([np.mean(a == b) for a, b in zip(codes, fp32, strict=True)])
            plain: list[np.ndarray] = []
            for precision, way in ways.items():
                pairs = zip(codes, waves, strict=True)
                decoded = [way.decode(item, len(wave)) for item, wave in pairs]
                plain = plain or decoded
                row = coded, precision, *_scores(waves, decoded, plain, codec.sample_rate)
                result.add_row(*row, f"{equal:.1%}")
    return result


def _scores(
    waves: Sequence[np.ndarray],
    decoded: Sequence[np.ndarray],
    plain: Sequence[np.ndarray],
    sample_rate: int,
) -> tuple[str, str, str]:
    """Mean PESQ, mel distance and SNR to `plain` of what was decoded."""
    pesq = np.mean([pesq_wb(x, y, sample_rate) for x, y in zip(waves, decoded, strict=True)])
    mel = np.mean([mel_distance(x, y, sample_rate) for x, y in zip(waves, decoded, strict=True)])
    if decoded is plain:
        return f"{pesq:.4f}", f"{mel:.4f}", ""
    pairs = zip(plain, decoded, strict=True)
    snr = np.mean([10 * np.log10(np.square(x).sum() / np.square(x - y).sum()) for x, y in pairs])
    return f"{pesq:.4f}", f"{mel:.4f}", f"{snr:.1f} dB"


def timed(steps: Sequence[Push], x: Any, pushes: int) -> np.ndarray:
    """Seconds of CPU and wall of each push, (steps, pushes, 2), all steps in turn."""
    times = np.zeros((len(steps), pushes, 2))
    for index in range(-_WARM_UP, pushes):
        for number, step in enumerate(steps):
            wall, cpu = time.perf_counter(), time.thread_time()
            step(x)
            cpu, wall = time.thread_time() - cpu, time.perf_counter() - wall
            if index >= 0:
                times[number, index] = cpu, wall
    return times


def _codec(name: str) -> Codec:
    if name.endswith(".safetensors"):
        return Codec.load(name)
    if name.startswith("seanet-"):
        half = {"channels": int(name.removeprefix("seanet-")), "activation": "leaky_relu"}
        config = ModelConfig.model_validate({"encoder": half, "decoder": half})
    else:
        config = load_config(name).model
    torch.manual_seed(0)
    return Codec(config, inference_tensors(build_autoencoder(config)))


if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    main()
