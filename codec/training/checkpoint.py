"""Checkpoints: folders that are there whole or not at all.

    checkpoints/step_00001000/
        shared.safetensors, shared.json    what all processes have in common
        rank_0.safetensors, rank_0.json    what each process has for itself, one pair a process
        sums.json                          BLAKE2b of every other file

Everything is written to a hidden folder beside and renamed when complete. Nothing is unpickled.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from codec.errors import TrainingError
from codec.training.tree import join_tensors, split_tensors

_FOLDER = re.compile(r"^step_(\d{8,})$")


class CheckpointStore:
    """The checkpoints of one run.

    Args:
        folder: made when the first one is written.
        keep: so many of the newest are kept; `prune` removes the rest.
    """

    def __init__(self, folder: Path, *, keep: int) -> None:
        self.folder = folder
        self.keep = keep

    def steps(self) -> list[int]:
        """Steps with a complete checkpoint, oldest first."""
        if not self.folder.is_dir():
            return []
        matches = (_FOLDER.match(entry.name) for entry in self.folder.iterdir())
        return sorted(int(match[1]) for match in matches if match)

    def write_rank(self, step: int, rank: int, state: Any) -> None:
        """Every process writes its own part; then one of them calls `commit`.

        Raises:
            TrainingError: the disk is full or the folder cannot be written; what was begun is
                removed and earlier checkpoints are untouched.
        """
        self._write(step, f"rank_{rank}", state)

    def commit(self, step: int, shared: Any) -> Path:
        """Writes the common part and makes the checkpoint appear.

        Raises:
            TrainingError: as `write_rank`.
        """
        self._write(step, "shared", shared)
        hidden, final = self._hidden(step), self.path(step)
        try:
            sums = {file.name: _checksum(file) for file in sorted(hidden.iterdir())}
            _write_synced(hidden / "sums.json", json.dumps(sums).encode())
            if final.exists():
                shutil.rmtree(final)
            os.replace(hidden, final)
        except OSError as error:
            raise self._failure(step, error) from None
        return final

    def read(self, step: int, rank: int) -> tuple[Any, Any]:
        """Reads a checkpoint.

        Returns:
            the common state and that of process `rank`; the latter is None where the run had
            fewer processes when it was written.

        Raises:
            TrainingError: a file of it is missing or damaged.
        """
        folder = self.path(step)
        try:
            sums = json.loads((folder / "sums.json").read_bytes())
            damaged = [name for name, sum_ in sums.items() if _checksum(folder / name) != sum_]
            if damaged:
                raise TrainingError(
                    f"{folder / damaged[0]}: damaged; remove {folder} to go on from an earlier "
                    "checkpoint"
                )
            shared = self._load(folder, "shared")
            own = self._load(folder, f"rank_{rank}") if f"rank_{rank}.json" in sums else None
        except (OSError, ValueError, SafetensorError) as error:
            raise TrainingError(
                f"{folder}: this checkpoint cannot be read ({error}); remove it to go on from an "
                "earlier one"
            ) from None
        return shared, own

    def prune(self, protect: Iterable[int] = ()) -> None:
        """Removes all but the newest `keep` and the steps in `protect`, and abandoned pieces."""
        steps = self.steps()
        kept = {*steps[-self.keep :], *protect}
        for step in steps:
            if step not in kept:
                # Renamed first: a checkpoint that is half removed must not look like one.
                doomed = self.folder / f".removing_{step:08d}"
                os.replace(self.path(step), doomed)
        for leftover in self.folder.glob(".*_*"):
            shutil.rmtree(leftover, ignore_errors=True)

    def path(self, step: int) -> Path:
        """Folder of the checkpoint of `step`."""
        return self.folder / f"step_{step:08d}"

    def _hidden(self, step: int) -> Path:
        return self.folder / f".writing_{step:08d}"

    def _write(self, step: int, name: str, state: Any) -> None:
        hidden = self._hidden(step)
        skeleton, tensors = split_tensors(state)
        try:
            hidden.mkdir(parents=True, exist_ok=True)
            save_file(tensors, hidden / f"{name}.safetensors")
            _sync(hidden / f"{name}.safetensors")
            _write_synced(hidden / f"{name}.json", json.dumps(skeleton).encode())
        except (OSError, SafetensorError) as error:
            raise self._failure(step, error) from None

    def _load(self, folder: Path, name: str) -> Any:
        skeleton = json.loads((folder / f"{name}.json").read_bytes())
        return join_tensors(skeleton, load_file(folder / f"{name}.safetensors"))

    def _failure(self, step: int, error: Exception) -> TrainingError:
        shutil.rmtree(self._hidden(step), ignore_errors=True)
        steps = self.steps()
        rest = (
            f"the checkpoint of step {steps[-1]} is intact; --resume goes on from there"
            if steps
            else "there is no earlier one"
        )
        return TrainingError(
            f"{self.path(step)}: the checkpoint cannot be written ({error}); make room; {rest}"
        )


def _checksum(path: Path) -> str:
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _write_synced(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    _sync(path)


def _sync(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())
