"""Probability tables for a model: learnt from the codes of a corpus, kept in the model file."""

import copy
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress

from codec import audio
from codec.codec import Codec
from codec.data.manifest import Entry
from codec.entropy import EntropyTables
from codec.entropy_learning import learn_tables


def corpus_codes(
    codec: Codec, entries: Sequence[Entry], *, seconds: float, progress: Progress
) -> list[NDArray[np.uint16]]:
    """Codes of recordings, (n_quantizers, frames) each, all codebooks, in a fixed random order.

    Args:
        codec: the model.
        entries: recordings to draw from.
        seconds: of audio; no further recording is begun once there is so much.
        progress: shows how far it is.

    Raises:
        AudioError: a recording cannot be read.
    """
    order = np.random.default_rng(0).permutation(len(entries))
    task = progress.add_task("encoding", total=min(seconds, sum(e.seconds for e in entries)))
    recordings: list[NDArray[np.uint16]] = []
    done = 0.0
    for entry in (entries[index] for index in order):
        if done >= seconds:
            break
        wave, _ = audio.read(entry.path, sample_rate=codec.sample_rate)
        codes = codec.encode(audio.to_mono(wave)[0])
        recordings.append(codes.cpu().numpy().astype(np.uint16))
        done += entry.seconds
        progress.update(task, completed=done)
    return recordings


def learn_for(
    codec: Codec,
    codes: Sequence[NDArray[np.uint16]],
    *,
    passes: int | None = None,
    progress: Progress,
) -> EntropyTables:
    """Tables for blocks of a second, as files have them; see `codec.entropy_learning`."""
    return learn_tables(
        codes,
        codec.codebook_size,
        block_frames=max(1, round(codec.frame_rate)),
        passes=passes,
        progress=progress,
    )


def save_with(codec: Codec, tables: EntropyTables, target: Path) -> str:
    """Writes the model with these tables; its fingerprint, which they do not change.

    Raises:
        ModelFileError: the file cannot be written.
    """
    other = copy.copy(codec)
    other.tables = tables
    return other.save(target)
