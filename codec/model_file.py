"""The model file: one safetensors file with its config and a fingerprint.

Its metadata has one entry, `sotto`, a JSON object: `version` 1, `config` the model section as
canonical JSON text, `fingerprint` 32 hex digits. (One entry, because safetensors writes several in
no fixed order, and the same model should be the same bytes.)

The fingerprint is BLAKE2b with a 16-byte digest over the config text and, in the order of their
names, each tensor's name, dtype, shape and little-endian bytes: the same on every platform and
torch version, however safetensors lays out the file.

Weights are float32 or, after `sotto shrink`, float16. The fingerprint is that of the file as it is,
although both are float32 in memory.

A file may also carry the integer tables that compact codes are coded with (`codec/entropy.py`), as
tensors whose names start with `entropy.`, and under `tables` of the metadata their own fingerprint.
The model's fingerprint does not cover them: with or without tables, its codes are the same.

Nor does it cover `losses` of the metadata, weights by name of the losses that the model learnt
from: they tell the metrics that are no independent judges of it. Training writes them; a file
without them does not tell.
"""

import hashlib
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from codec.atomic import replacing
from codec.config_model import ModelConfig
from codec.entropy import PREFIX, EntropyTables
from codec.errors import ModelFileError

METADATA_KEY = "sotto"
VERSION = 1


@dataclass(frozen=True)
class ModelFile:
    """What a model file holds.

    Attributes:
        config: the architecture.
        tensors: weights by name, on the CPU.
        fingerprint: 32 hex digits over both.
        config_text: the config as the file has it, which a later Sotto may know more keys than.
        tables: for compact codes; None where the file has none.
        losses: weights by name of what it learnt from; None where the file does not tell.
    """

    config: ModelConfig
    tensors: dict[str, Tensor]
    fingerprint: str
    config_text: str
    tables: EntropyTables | None = None
    losses: dict[str, float] | None = None


def fingerprint(config: ModelConfig, tensors: dict[str, Tensor]) -> str:
    """128-bit BLAKE2b of config and weights as 32 hex digits."""
    return _digest(_config_text(config), tensors)


def write_model_file(
    path: str | os.PathLike[str],
    config: ModelConfig,
    tensors: dict[str, Tensor],
    tables: EntropyTables | None = None,
    *,
    config_text: str | None = None,
    losses: Mapping[str, float] | None = None,
) -> str:
    """Writes a model file; it appears under its name only when complete.

    Args:
        path: of the file, replaced if there.
        config: the architecture.
        tensors: weights by name.
        tables: for compact codes.
        config_text: of the file that the model was read from, if it was. Written as it is, it
            keeps the fingerprint what it was, by which codes know their model.
        losses: weights by name of what the model learnt from, if it is known.

    Returns:
        the model's fingerprint, 32 hex digits; `tables` have no part in it.

    Raises:
        ModelFileError: the folder cannot be made or written, or the disk is full; nothing of the
            file is left behind.
    """
    path = Path(path)
    text = config_text or _config_text(config)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    digest = _digest(text, tensors)
    about: dict[str, object] = {"version": VERSION, "config": text, "fingerprint": digest}
    if losses is not None:
        about["losses"] = dict(losses)
    if tables is not None:
        about["tables"] = tables.fingerprint
        tensors |= {name: torch.from_numpy(a.copy()) for name, a in tables.tensors().items()}
    try:
        with replacing(path) as temporary:
            temporary.touch()
            mode = temporary.stat().st_mode
            save_file(tensors, temporary, metadata={METADATA_KEY: json.dumps(about)})
            temporary.chmod(mode)  # safetensors makes files that nobody else may read
    except (OSError, SafetensorError) as error:
        raise ModelFileError(f"{path}: the model cannot be written ({error})") from None
    return digest


def read_model_file(path: str | os.PathLike[str]) -> ModelFile:
    """Reads and checks a model file.

    Raises:
        ModelFileError: there is no such file, it is no Sotto model, it was made by a newer Sotto,
            or a bit of it is not what it was when it was written.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelFileError(f"{path}: there is no such model file")
    try:
        with safe_open(path, framework="pt") as file:
            about = _about(path, file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ModelFileError(
            f"{path}: not a Sotto model, or damaged ({error}); models are .safetensors files "
            "that training writes"
        ) from None
    tables = {n: tensors.pop(n) for n in list(tensors) if n.startswith(PREFIX)}
    digest = _digest(about["config"], tensors)
    if digest != about["fingerprint"]:
        raise ModelFileError(
            f"{path}: damaged: its fingerprint should be {about['fingerprint']} but is {digest}; "
            "copy the model again"
        )
    try:
        config = ModelConfig.model_validate_json(about["config"])
    except ValidationError as error:
        raise ModelFileError(
            f"{path}: its config has {error.error_count()} keys this version of Sotto does not "
            "know; update Sotto"
        ) from None
    learnt = _tables(path, tables, about.get("tables"))
    losses = _losses(about.get("losses"))
    return ModelFile(config, tensors, digest, about["config"], learnt, losses)


def _losses(told: object) -> dict[str, float] | None:
    """Weights by name, or None for anything else: no model is worse for it."""
    if not isinstance(told, dict) or not all(isinstance(w, int | float) for w in told.values()):
        return None
    return {str(name): float(weight) for name, weight in told.items()}


def _tables(path: Path, tensors: dict[str, Tensor], expected: object) -> EntropyTables | None:
    """The tables of a file, checked against the fingerprint that its metadata gives."""
    if not tensors and expected is None:
        return None
    try:
        tables = EntropyTables.from_tensors({n: t.numpy() for n, t in tensors.items()})
    except (ValueError, TypeError) as error:  # TypeError: a dtype that NumPy lacks
        raise ModelFileError(f"{path}: damaged: its probability tables ({error})") from None
    if tables.fingerprint != expected:
        raise ModelFileError(
            f"{path}: damaged: the fingerprint of its probability tables should be {expected} but "
            f"is {tables.fingerprint}; copy the model again"
        )
    return tables


def _about(path: Path, metadata: dict[str, str]) -> dict[str, Any]:
    """The metadata entry that makes a safetensors file a Sotto model, checked."""
    if METADATA_KEY not in metadata:
        raise ModelFileError(f"{path}: a safetensors file, but not a Sotto model")
    try:
        about = json.loads(metadata[METADATA_KEY])
        version = int(about["version"])
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        raise ModelFileError(f"{path}: damaged: its description cannot be read") from None
    if version > VERSION:
        raise ModelFileError(
            f"{path}: model file version {version}, but this Sotto reads up to version {VERSION}; "
            "update Sotto"
        )
    if not all(isinstance(about.get(key), str) for key in ("config", "fingerprint")):
        raise ModelFileError(f"{path}: damaged: its config or fingerprint is missing")
    return about


def _config_text(config: ModelConfig) -> str:
    return json.dumps(config.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))


def _digest(config_text: str, tensors: dict[str, Tensor]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    # Half a surrogate pair, which JSON can hold, is refused later, by its fingerprint.
    digest.update(config_text.encode(errors="replace"))
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        shape = "x".join(str(size) for size in tensor.shape)
        digest.update(f"\n{name} {str(tensor.dtype).removeprefix('torch.')} {shape}\n".encode())
        digest.update(_little_endian_bytes(tensor))
    return digest.hexdigest()


def _little_endian_bytes(tensor: Tensor) -> bytes:
    flat = tensor.reshape(-1).view(torch.uint8).numpy()
    if sys.byteorder == "big":
        flat = flat.reshape(-1, tensor.element_size())[:, ::-1]
    return flat.tobytes()
