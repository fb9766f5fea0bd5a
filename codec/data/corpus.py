"""Training crops and held-out clips as a config describes them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress
from torch import Tensor
from torch.utils.data import Dataset

from codec import audio
from codec.config import Config
from codec.data.crops import RandomCrops
from codec.data.manifest import Entry, load_entries
from codec.data.sources import FixedCrops, NoiseCrops
from codec.errors import AudioError, DataError

Wave = NDArray[np.float32]


def training_crops(config: Config, progress: Progress | None = None) -> Dataset[Tensor]:
    """The endless data set a run learns from.

    Raises:
        DataError: nothing usable under `data.path`.
    """
    data, sample_rate = config.data, config.model.sample_rate
    if data.source == "random":
        return NoiseCrops(segment=data.segment_samples, seed=config.seed)
    if data.source == "fixed":
        return FixedCrops(sample_rate=sample_rate, segment=data.segment_samples, seed=config.seed)
    return RandomCrops(
        _entries(data.path, "train", progress),
        sample_rate=sample_rate,
        segment=data.segment_samples,
        seed=config.seed,
        gain_db=(data.gain_db[0], data.gain_db[1]),
        silence_db=data.silence_db,
        cache_mb=data.cache_mb,
    )


def held_out_clips(config: Config, progress: Progress | None = None) -> list[tuple[str, Wave]]:
    """Names and (samples,) float32 waves that validation scores: the same in every run.

    Clips are spread evenly over the held-out files. With the sources `random` and `fixed`, which
    have no files, they are taken from the training data, and say so in their names.

    Raises:
        DataError: no held-out file can be used.
    """
    validation, sample_rate = config.validation, config.model.sample_rate
    if config.data.source != "files":
        crops = training_crops(config)
        return [(f"training_{i}", crops[i][0].numpy()) for i in range(validation.clips)]
    if config.data.valid_path is not None:
        entries = _entries(config.data.valid_path, None, progress)
    else:
        entries = _entries(config.data.path, "valid", progress)
    clips: list[tuple[str, Wave]] = []
    for entry in _spread(entries, validation.clips):
        try:
            wave, _ = audio.read(entry.path, sample_rate=sample_rate, seconds=validation.seconds)
        except AudioError:
            continue
        clips.append((entry.path.stem, np.ascontiguousarray(audio.to_mono(wave)[0])))
    if not clips:
        raise DataError(f"none of the {len(entries)} held-out files can be read")
    return clips


def _entries(paths: str | list[str], split: str | None, progress: Progress | None) -> list[Entry]:
    entries: list[Entry] = []
    problems: list[DataError] = []
    for path in [paths] if isinstance(paths, str) else paths:
        try:
            entries += load_entries(Path(path).expanduser(), split=split, progress=progress)
        except DataError as error:
            problems.append(error)
    # A corpus may be for training alone; only a path that gives nothing at all is a mistake.
    if not entries or (problems and split != "valid"):
        raise problems[0] if problems else DataError("data.path names no corpus")
    return entries


def _spread(entries: Sequence[Entry], count: int) -> list[Entry]:
    if len(entries) <= count:
        return list(entries)
    return [entries[round(i * (len(entries) - 1) / max(count - 1, 1))] for i in range(count)]
