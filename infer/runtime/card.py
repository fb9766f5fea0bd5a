"""The card of an exported model: `card.json`, all that is to be known to run its ONNX files."""

import dataclasses
import hashlib
import json
import os
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np

from codec.entropy import EntropyTables
from codec.errors import ModelFileError

CARD = "card.json"
TABLES = "tables.npz"
FORMAT = "sotto-onnx"
VERSION = 2
"""The newest; 1 has neither look-ahead nor states other than float32, and is still written where
there are none."""

DTYPES = ("float32", "float64")


@dataclass(frozen=True)
class StateTensor:
    """One tensor that a step takes and gives back.

    Attributes:
        name: of the input.
        next_name: of the output that is the input of the step after it.
        frames: its length in time.
        channels: its width; it is (batch, frames, channels), zeros before a signal.
        dtype: NumPy's name of its numbers, "float32" or "float64".
    """

    name: str
    next_name: str
    frames: int
    channels: int
    dtype: str = "float32"


@dataclass(frozen=True)
class OnnxFile:
    """One file of an export.

    Attributes:
        name: in the folder.
        part: "encoder", wave (batch, 1, samples) float32 -> codes (batch, n_quantizers, frames)
            int64, samples a multiple of the hop; or "decoder", the way back, where codes of -1
            stand for a codebook that is not used.
        streaming: whether it takes the next piece of a signal with the states, or a whole signal.
        precision: "fp32" or "int8".
        size: bytes.
        blake2b: 32 hex digits over its bytes.
        states: of a step, in the order of its inputs.
    """

    name: str
    part: str
    streaming: bool
    precision: str
    size: int
    blake2b: str
    states: tuple[StateTensor, ...] = ()


@dataclass(frozen=True)
class Card:
    """What `card.json` says.

    Attributes:
        fingerprint: the model's, 32 hex digits.
        sample_rate: Hz.
        hop_length: samples a frame.
        n_quantizers: codebooks.
        codebook_size: rows of each.
        default_kbps: rate in kbit/s when none is named.
        causal: whether it streams; if not, there are files for whole signals alone.
        latency_samples: from a sample's arrival to its sound, at most and without the time that
            computing takes: the frame it waits for, and those of `lookahead`. None if not causal.
        opset: of ONNX.
        files: in the folder.
        tables: fingerprint of the probability tables in `TABLES`, 32 hex digits, if the model has
            them: compact `.sc` files need them.
        lookahead: frames after its own that a decoded frame waits for: a step of the decoder
            answers so many frames late, and begins with as many that lie before the signal.
        checks: how far the files agreed with PyTorch when they were made, by file.
    """

    fingerprint: str
    sample_rate: int
    hop_length: int
    n_quantizers: int
    codebook_size: int
    default_kbps: float
    causal: bool
    latency_samples: int | None
    opset: int
    files: tuple[OnnxFile, ...]
    tables: str | None = None
    lookahead: int = 0
    checks: dict[str, dict[str, float]] = field(default_factory=dict)

    def file(self, part: str, *, streaming: bool, precision: str) -> OnnxFile:
        """The file that does this.

        Raises:
            ModelFileError: the export has none.
        """
        for file in self.files:
            if (file.part, file.streaming, file.precision) == (part, streaming, precision):
                return file
        there = ", ".join(sorted({file.precision for file in self.files}))
        raise ModelFileError(f"this export has no {precision} {part} (precisions: {there})")

    def to_json(self) -> str:
        """The text of `card.json`."""
        about = dataclasses.asdict(self)
        states = [state for file in about["files"] for state in file["states"]]
        newest = self.lookahead or any(state["dtype"] != "float32" for state in states)
        if not newest:  # older programs read it as well
            del about["lookahead"]
            for state in states:
                del state["dtype"]
        if self.tables is None:
            del about["tables"]
        about = {"format": FORMAT, "version": VERSION if newest else 1, **about}
        return json.dumps(about, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Reads what `to_json` gave.

        Raises:
            ModelFileError: it is something else, or of a newer version.
        """
        try:
            about: dict[str, Any] = json.loads(text)
            if about.pop("format") != FORMAT:
                raise ValueError("another format")
            version = int(about.pop("version"))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise ModelFileError(f"this is no {CARD} of a Sotto model") from None
        if version > VERSION:
            raise ModelFileError(
                f"an export of version {version}, but this Sotto reads up to {VERSION}: update it"
            )
        try:
            files = tuple(_file(entry) for entry in about.pop("files"))
            card = cls(**about, files=files)
            bytes.fromhex(card.fingerprint)
            sizes = (card.sample_rate, card.hop_length, card.n_quantizers, card.codebook_size)
            if not all(isinstance(size, int) and size > 0 for size in sizes):
                raise ValueError("sizes that are none")
            if not isinstance(card.lookahead, int) or card.lookahead < 0:
                raise ValueError("a look-ahead that is none")
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ModelFileError(f"{CARD} is damaged") from None
        return card


def read_card(folder: str | os.PathLike[str]) -> Card:
    """Reads the card of an export.

    Raises:
        ModelFileError: the folder is no export, or its card is damaged or of a newer version.
    """
    path = Path(folder) / CARD
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        raise ModelFileError(f"{folder}: no export of a model: it has no {CARD}") from None
    try:
        return Card.from_json(text)
    except ModelFileError as error:
        raise ModelFileError(f"{folder}: {error}") from None


def read_tables(folder: str | os.PathLike[str], card: Card) -> EntropyTables | None:
    """The probability tables of an export; none: its model had none.

    Raises:
        ModelFileError: they are not there, or not those that were exported.
    """
    if card.tables is None:
        return None
    path = Path(folder) / TABLES
    try:
        with np.load(path, allow_pickle=False) as file:
            tables = EntropyTables.from_tensors(dict(file))
    except OSError:
        raise ModelFileError(f"{path}: cannot be read, though {CARD} names it") from None
    except (ValueError, KeyError, zipfile.BadZipFile, zlib.error):
        tables = None
    if tables is None or tables.fingerprint != card.tables:
        raise ModelFileError(f"{path}: damaged: not the file that was exported; copy it again")
    return tables


def checked_bytes(folder: str | os.PathLike[str], file: OnnxFile) -> bytes:
    """The content of a file of an export.

    Raises:
        ModelFileError: it is not there, or not what was exported.
    """
    path = Path(folder) / Path(file.name).name
    try:
        content = path.read_bytes()
    except OSError:
        raise ModelFileError(f"{path}: cannot be read, though {CARD} names it") from None
    if digest(content) != file.blake2b:
        raise ModelFileError(f"{path}: damaged: not the file that was exported; copy it again")
    return content


def digest(content: bytes) -> str:
    """BLAKE2b-128 as 32 hex digits."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def _file(entry: dict[str, Any]) -> OnnxFile:
    states = tuple(StateTensor(**state) for state in entry.pop("states"))
    if any(state.dtype not in DTYPES for state in states):
        raise ValueError("a state of another type")
    return OnnxFile(**entry, states=states)
