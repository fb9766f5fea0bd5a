"""How many percent compact coding saves on real speech, and how fast it is.

    nice python -m benchmarks.compactness model.safetensors ../shared/speech --save with.safetensors
    nice python -m benchmarks.compactness with.safetensors ../shared/speech --own-tables

Tables are learned from the training split of the corpora and judged on the test split: no speaker
is in both. Percentages are of whole `.sc` files, headers, indices and checksums included: "long" is
one file of all recordings, again and again for ten minutes (`--minutes`), "short" a file for each
recording, "codes" the coded blocks alone. Speed is in multiples of real time, by CPU time, on one
thread. `--ablation` learns again with less context, to show what each part of it is worth.
"""

import argparse
import io
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from codec.codec import Codec
from codec.data.manifest import load_entries
from codec.entropy import EntropyTables
from codec.entropy_learning import learn_tables
from infer.header import Header
from infer.reader import Reader
from infer.tables import corpus_codes, learn_for, save_with
from infer.writer import Writer

Codes = NDArray[np.uint16]  # (n_quantizers, frames)


@dataclass(frozen=True)
class Shape:
    """What a file's header says of the model."""

    fingerprint: str
    bits: int
    sample_rate: int
    hop_length: int

    def header(self, n_quantizers: int, *, compact: bool) -> Header:
        """Of a file of one channel."""
        return Header(
            version=1,
            frames=None,
            n_quantizers=n_quantizers,
            bits=self.bits,
            fingerprint=self.fingerprint,
            sample_rate=self.sample_rate,
            hop_length=self.hop_length,
            compact=compact,
        )

    @property
    def block_frames(self) -> int:
        """Frames of a second, which a block holds."""
        return max(1, round(self.sample_rate / self.hop_length))


def main() -> None:
    options = _options()
    console = Console()
    codec = Codec.load(options.model)
    shape = Shape(codec.fingerprint, codec.bits_per_code, codec.sample_rate, codec.hop_length)
    with Progress(console=console) as progress:
        test = _codes(codec, options.corpora[:1], "test", math.inf, options.cache, progress)
        tables = codec.tables if options.own_tables else None
        if options.own_tables and tables is None:
            raise SystemExit(f"{options.model} has no tables: leave --own-tables away")
        train: list[Codes] = []
        if tables is None or options.ablation:
            seconds = options.hours * 3600
            train = _codes(codec, options.corpora, "train", seconds, options.cache, progress)
        learning = time.process_time()
        if tables is None:
            tables = learn_for(codec, train, passes=options.passes, progress=progress)
        learning = time.process_time() - learning
    size = sum(array.nbytes for array in tables.tensors().values())
    hours = sum(codes.shape[1] for codes in train) / codec.frame_rate / 3600
    console.print(
        f"tables {tables.fingerprint}, {size / 1e6:.2f} MB, "
        f"learned in {learning:.0f} s of CPU from {hours:.2f} h"
    )
    if options.save:
        save_with(codec, tables, options.save)
        console.print(f"{options.save}: the model with its tables")
    console.print(savings(test, tables, shape, codec, 60 * options.minutes))
    console.print(evenness(test, codec.codebook_size))
    if options.ablation:
        console.print(ablation(train, test, shape, codec.codebook_size, options.passes, console))


def savings(
    test: Sequence[Codes], tables: EntropyTables, shape: Shape, codec: Codec, seconds: float
) -> Table:
    """Percent saved at each bitrate, kbit/s that are left, and speed."""
    table = Table("codebooks", "kbps", "codes", "long", "short", "compact kbps", "encode", "decode")
    together = np.concatenate(test, axis=1)
    frames = round(seconds * codec.frame_rate)
    together = np.tile(together, math.ceil(frames / together.shape[1]))[:, :frames]
    for n in range(1, tables.n_quantizers + 1):
        long = together[None, :n]
        start = time.process_time()
        compact = _file(long, shape, tables)
        encoding = time.process_time() - start
        start = time.process_time()
        again = [block.codes for block in Reader(io.BytesIO(compact), tables=tables).blocks()]
        decoding = time.process_time() - start
        if not np.array_equal(np.concatenate([b for b in again if b is not None], 2), long):
            raise SystemExit("what was decoded is not what was encoded")
        short = [_saved(c[None, :n], shape, tables) for c in test]
        table.add_row(
            str(n),
            f"{codec.kbps(n):g}",
            f"{100 * (1 - bits_a_code(test, n, tables, shape) / shape.bits):.1f} %",
            f"{100 * (1 - len(compact) / len(_file(long, shape, None))):.1f} %",
            f"{100 * np.mean(short):.1f} %",
            f"{8e-3 * len(compact) / seconds:.3f}",
            f"{seconds / encoding:.0f} x",
            f"{seconds / decoding:.0f} x",
        )
    return table


def bits_a_code(
    test: Sequence[Codes], n_quantizers: int, tables: EntropyTables, shape: Shape
) -> float:
    """Mean bits of a code in blocks of a second, the blocks' ends included."""
    blocks = [
        recording[None, :n_quantizers, first : first + shape.block_frames]
        for recording in test
        for first in range(0, recording.shape[1], shape.block_frames)
    ]
    return 8 * sum(map(len, tables.encode(blocks))) / sum(block.size for block in blocks)


def evenness(test: Sequence[Codes], codebook_size: int) -> Table:
    """How evenly each codebook's rows are used, which is what coding without context can save."""
    table = Table("codebook", "perplexity", "rows used", "saved by that alone")
    together = np.concatenate(test, axis=1)
    for k, codes in enumerate(together):
        shares = np.bincount(codes, minlength=codebook_size) / len(codes)
        shares = shares[shares > 0]
        bits = -float((shares * np.log2(shares)).sum())
        saved = 100 * (1 - bits / math.log2(codebook_size))
        table.add_row(str(k), f"{2**bits:.0f}", f"{len(shares)}", f"{saved:.1f} %")
    return table


def ablation(
    train: Sequence[Codes],
    test: Sequence[Codes],
    shape: Shape,
    codebook_size: int,
    passes: int | None,
    console: Console,
) -> Table:
    """Percent saved by less and more context, learned anew for each."""
    n_quantizers = len(train[0])
    table = Table("context", *[f"n = {n}" for n in range(1, n_quantizers + 1)])

    def learned(books: slice, lags: int) -> EntropyTables:
        with Progress(console=console, transient=True) as progress:
            return learn_tables(
                [codes[books] for codes in train],
                codebook_size,
                block_frames=shape.block_frames,
                lags=lags,
                passes=passes,
                progress=progress,
            )

    def add(name: str, bits: Sequence[float]) -> None:
        table.add_row(name, *[f"{100 * (1 - one / shape.bits):.1f} %" for one in bits])
        console.print(name, *[f"{one:.3f}" for one in bits], "bits a code")

    for name, lags in {"codebook": 0, "+ its code a frame before": 1}.items():
        each = [
            bits_a_code([c[k : k + 1] for c in test], 1, learned(slice(k, k + 1), lags), shape)
            for k in range(n_quantizers)
        ]
        add(name, [float(np.mean(each[:n])) for n in range(1, n_quantizers + 1)])
    for name, lags in {
        "codebook + lower codebooks": 0,
        "+ all codebooks up to it a frame before": 1,
        "+ two frames before": 2,
    }.items():
        tables = learned(slice(None), lags)
        add(name, [bits_a_code(test, n, tables, shape) for n in range(1, n_quantizers + 1)])
    return table


def _saved(codes: Codes, shape: Shape, tables: EntropyTables) -> float:
    return 1 - len(_file(codes, shape, tables)) / len(_file(codes, shape, None))


def _file(codes: Codes, shape: Shape, tables: EntropyTables | None) -> bytes:
    """A whole `.sc` file of codes (1, n_quantizers, frames), compact if there are tables."""
    file = io.BytesIO()
    header = shape.header(codes.shape[1], compact=tables is not None)
    writer = Writer(file, header, tables=tables)
    writer.write(codes)
    writer.finish(source_samples=codes.shape[2] * shape.hop_length)
    return file.getvalue()


def _codes(
    codec: Codec,
    corpora: Sequence[Path],
    split: str,
    seconds: float,
    cache: Path | None,
    progress: Progress,
) -> list[Codes]:
    """Codes of the recordings of a split, in a random order, until they make so many seconds."""
    stored = cache / f"{codec.fingerprint}-{split}-{seconds:g}.npz" if cache else None
    if stored and stored.is_file():
        with np.load(stored) as arrays:
            return [arrays[name] for name in arrays.files]
    entries = [entry for corpus in corpora for entry in load_entries(corpus, split=split)]
    recordings = corpus_codes(codec, entries, seconds=seconds, progress=progress)
    if stored:
        stored.parent.mkdir(parents=True, exist_ok=True)
        np.savez(stored, *recordings)
    return recordings


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("model", type=Path, help="a model file")
    parser.add_argument(
        "corpora", type=Path, nargs="+", help="folders or manifests; the first is tested"
    )
    parser.add_argument("--hours", type=float, default=1000, help="of training speech, at most")
    parser.add_argument("--passes", type=int, help="over the training codes, at most")
    parser.add_argument("--minutes", type=float, default=10, help="of the long file")
    parser.add_argument("--own-tables", action="store_true", help="judge those of the model file")
    parser.add_argument("--save", type=Path, help="write the model with the learned tables here")
    parser.add_argument("--cache", type=Path, help="folder that keeps the codes for the next time")
    parser.add_argument("--ablation", action="store_true", help="learn with less context as well")
    return parser.parse_args()


if __name__ == "__main__":
    main()
