"""How near `losses.disturbance` comes to what PESQ takes off its 4.5, on decoded speech.

    nice python -m benchmarks.disturbance MODEL CORPUS --split valid

MODEL decodes the recordings with 1, 3 and 6 codebooks. Each is scored by the ITU program and by the
loss, whole and as the mean over its crops of 1.5 s.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

from codec import audio
from codec.codec import Codec
from codec.data.manifest import load_entries
from codec.evaluation.metrics import pesq_nb, pesq_wb
from codec.losses.disturbance import DisturbanceLoss, Listener, taken_off

_CROP_SECONDS = 1.5
_PROGRAM = {"wideband": pesq_wb, "narrowband": pesq_nb}
LISTENERS: tuple[Listener, ...] = get_args(Listener)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("speech", type=Path)
    parser.add_argument("--split", default="valid")
    options = parser.parse_args()
    codec = Codec.load(options.model)
    pairs = list(decoded(codec, options.speech, options.split))
    Console().print(comparison(pairs, codec.sample_rate))


def decoded(codec: Codec, speech: Path, split: str) -> Iterator[tuple[Tensor, Tensor]]:
    """Recordings and what the codec makes of them, both (1, 1, samples)."""
    for entry in track(load_entries(speech, split=split), "decoding"):
        samples, _ = audio.read(entry.path, sample_rate=codec.sample_rate)
        wave = torch.from_numpy(audio.to_mono(samples))[None]
        codes = codec.encode(wave)
        for n_quantizers in (1, 3, 6):
            yield wave, codec.decode(codes[:, :n_quantizers])[..., : wave.shape[-1]]


def comparison(pairs: list[tuple[Tensor, Tensor]], sample_rate: int) -> Table:
    """Means, correlations and errors of the loss against the program, by listener."""
    table = Table("listener", "PESQ", "loss", "correlation", "rms error", "on crops", "corr.")
    for listener in LISTENERS:
        loss = DisturbanceLoss(sample_rate=sample_rate, listeners=[listener])
        rows = []
        for wave, other in track(pairs, listener):
            mos = _PROGRAM[listener](wave[0, 0].numpy(), other[0, 0].numpy(), sample_rate)
            whole, crops = loss(other, wave), loss(*_crops(other, wave, sample_rate))
            rows.append([taken_off(mos, listener), float(whole.total), float(crops.total)])
        theirs, ours, on_crops = np.array(rows).T
        numbers = (
            theirs.mean(),
            ours.mean(),
            np.corrcoef(theirs, ours)[0, 1],
            np.sqrt(np.square(theirs - ours).mean()),
            on_crops.mean(),
            np.corrcoef(theirs, on_crops)[0, 1],
        )
        table.add_row(listener, *(f"{number:.3f}" for number in numbers))
    return table


def _crops(decoded: Tensor, wave: Tensor, sample_rate: int) -> tuple[Tensor, Tensor]:
    """Both (crops, 1, samples): as many crops as fit; all there is where none does."""
    size = round(_CROP_SECONDS * sample_rate)
    whole = wave.shape[-1] // size * size
    if not whole:
        return decoded, wave
    return decoded[..., :whole].reshape(-1, 1, size), wave[..., :whole].reshape(-1, 1, size)


if __name__ == "__main__":
    main()
