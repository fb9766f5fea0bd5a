"""Training crops and held-out clips as a config describes them."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress
from torch.utils.data import Dataset

from codec import audio
from codec.config import Config
from codec.data.analysis import hop_samples
from codec.data.batches import Crop
from codec.data.crops import RandomCrops
from codec.data.manifest import Entry, assign_splits, load_entries
from codec.data.sources import FixedCrops, NoiseCrops
from codec.data.targets import Targets, make_targets
from codec.errors import AudioError, ConfigError, DataError

Wave = NDArray[np.float32]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Corpus:
    """The files of a run.

    Attributes:
        train: what crops are drawn from; empty for the sources that need no files.
        valid: what is held out for validation.
    """

    train: list[Entry]
    valid: list[Entry]


def load_corpus(config: Config, progress: Progress | None = None) -> Corpus:
    """Finds the files that a config names.

    Held out are the files of `data.valid_path`; else the `valid` splits of the corpora; else, where
    no corpus has one, 5 % of the speakers or files, the same in every run. Files of other splits,
    such as `test`, are left alone.

    Raises:
        DataError: nothing usable under a path.
    """
    data = config.data
    if data.source != "files":
        return Corpus([], [])
    entries: list[Entry] = []
    for path in _paths(data.path):
        found = load_entries(path, progress=progress)
        if all(entry.split is None for entry in found) and data.valid_path is None:
            found = assign_splits(found, path)
        entries += found
    train = [entry for entry in entries if entry.split in (None, "train")]
    valid = [entry for entry in entries if entry.split == "valid"]
    if data.valid_path is not None:
        valid = []
        for path in _paths(data.valid_path):
            valid += load_entries(path, progress=progress)
    if not train:
        raise DataError(f"{data.path}: has no files of split 'train'")
    if not valid:
        parted = assign_splits(train, Path())
        valid = [entry for entry in parted if entry.split == "valid"]
        train = [entry for entry in parted if entry.split != "valid"]
    return Corpus(train, valid)


def training_crops(
    config: Config, corpus: Corpus, progress: Progress | None = None
) -> Dataset[Crop]:
    """The endless data set a run learns from.

    Where `losses.parameters` has a weight, crops have the parameters of their voice: the files are
    analysed first, unless an earlier run has done it; `progress` shows how far that is.

    Raises:
        ConfigError: parameters are wanted, and the sample rate or the segment has no whole hops.
        DataError: no files, or their parameters cannot be kept.
        MissingPackageError: there are files to analyse, and PyWorld is not installed.
    """
    data, sample_rate = config.data, config.model.sample_rate
    wanted = config.losses.parameters.weight > 0
    if wanted:
        _check_hops(config)
    if data.source == "random":
        return NoiseCrops(
            segment=data.segment_samples,
            seed=config.seed,
            analysed_at=sample_rate if wanted else None,
        )
    if data.source == "fixed":
        return FixedCrops(
            sample_rate=sample_rate,
            segment=data.segment_samples,
            seed=config.seed,
            analysed=wanted,
        )
    targets: Targets | None = None
    if wanted:
        targets = make_targets(
            corpus.train, sample_rate=sample_rate, out=data.parameters, progress=progress
        )
    return RandomCrops(
        corpus.train,
        sample_rate=sample_rate,
        segment=data.segment_samples,
        seed=config.seed,
        gain_db=(data.gain_db[0], data.gain_db[1]),
        silence_db=data.silence_db,
        cache_mb=data.cache_mb,
        targets=targets,
    )


def _check_hops(config: Config) -> None:
    try:
        hop = hop_samples(config.model.sample_rate)
    except ValueError as error:
        raise ConfigError(f"losses.parameters.weight: {error}") from None
    segment = config.data.segment_samples
    if segment % hop:
        near = max(round(segment / hop), 1) * hop
        raise ConfigError(
            f"data.segment_samples {segment} is no whole number of 5 ms, {hop} samples, as "
            f"losses.parameters needs; {near} would do"
        )


def held_out_clips(config: Config, corpus: Corpus) -> list[tuple[str, Wave]]:
    """Names and (samples,) float32 waves that validation scores: the same in every run.

    Clips are spread evenly over the held-out files. With the sources `random` and `fixed`, which
    have no files, they are taken from the training data, and say so in their names.

    Raises:
        DataError: no held-out file can be used.
    """
    validation, sample_rate = config.validation, config.model.sample_rate
    if config.data.source != "files":
        crops = training_crops(config, corpus)
        return [(f"training_{i}", crops[i].wave[0].numpy()) for i in range(validation.clips)]
    clips: list[tuple[str, Wave]] = []
    problems: list[AudioError] = []
    for i, entry in enumerate(_spread(corpus.valid, validation.clips)):
        try:
            wave, _ = audio.read(entry.path, sample_rate=sample_rate, seconds=validation.seconds)
        except AudioError as error:
            log.warning("held-out file passed over: %s", error)
            problems.append(error)
            continue
        name = f"{i:02d}_{entry.path.stem}"
        clips.append((name, np.ascontiguousarray(audio.to_mono(wave)[0])))
    if not clips:
        raise DataError(f"none of the held-out files can be used; the first: {problems[0]}")
    return clips


def _paths(paths: str | list[str]) -> list[Path]:
    return [Path(path).expanduser() for path in ([paths] if isinstance(paths, str) else paths)]


def _spread(entries: Sequence[Entry], count: int) -> list[Entry]:
    if len(entries) <= count:
        return list(entries)
    return [entries[round(i * (len(entries) - 1) / max(count - 1, 1))] for i in range(count)]
