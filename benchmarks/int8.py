"""What the 8 bits of an export cost: scores of all four pairs of precisions.

    nice python -m benchmarks.int8 model.safetensors ../corpus

Calibrated on the corpus's training split, scored on its test split at the model's default rate.
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from codec import audio
from codec.codec import Codec
from codec.data.manifest import load_entries
from codec.evaluation.metrics import mel_distance, pesq_wb
from infer.export import export
from infer.export_int8 import calibration_waves
from infer.runtime import Codec as LightCodec


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("speech", type=Path)
    parser.add_argument("--recordings", type=int, default=32, help="that are scored, at most")
    options = parser.parse_args()
    table = losses(options.model, Codec.load(options.model), options.speech, options.recordings)
    Console().print(table)


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


if __name__ == "__main__":
    main()
