"""A run's folder: its config, checkpoints and models, and where to go on from."""

from dataclasses import dataclass
from pathlib import Path

from codec.config import Config
from codec.config_files import load_config, save_config
from codec.errors import ConfigError, TrainingError
from codec.training.checkpoint import CheckpointStore


@dataclass
class RunFolder:
    """What a run leaves behind.

    config.yaml          the resolved config
    checkpoints/         what --resume goes on from
    best.safetensors     the model that validated best
    last.safetensors     the model of the last checkpoint
    tensorboard/         curves, audio, spectrograms
    """

    path: Path
    checkpoints: CheckpointStore

    @property
    def best(self) -> Path:
        """Model file of the best validation."""
        return self.path / "best.safetensors"

    @property
    def last(self) -> Path:
        """Model file of the last checkpoint."""
        return self.path / "last.safetensors"


def run_folder(config: Config) -> RunFolder:
    """Where a run's files are; nothing is made yet."""
    path = Path(config.output).expanduser() / config.name
    store = CheckpointStore(path / "checkpoints", keep=config.training.keep_checkpoints)
    return RunFolder(path, store)


def open_run(config: Config, *, resume: bool) -> tuple[RunFolder, int]:
    """Finds or refuses the run's folder, without writing.

    Returns:
        the folder and the step of the checkpoint to go on from, 0 for a new run.

    Raises:
        TrainingError: a new run would overwrite an older one.
        ConfigError: a resumed run has another model than its checkpoints.
    """
    folder = run_folder(config)
    steps = folder.checkpoints.steps()
    if steps and not resume:
        raise TrainingError(
            f"{folder.path}: holds a run that is at step {steps[-1]}; add --resume to go on with "
            "it, or give this one another name (name=...)"
        )
    if not steps:
        return folder, 0
    _check_same_model(config, folder.path / "config.yaml")
    return folder, steps[-1]


def record_config(folder: RunFolder, config: Config) -> None:
    """Saves the resolved config with the run.

    Raises:
        TrainingError: the folder cannot be written.
    """
    try:
        folder.path.mkdir(parents=True, exist_ok=True)
        save_config(config, folder.path / "config.yaml")
    except OSError as error:
        raise TrainingError(
            f"{folder.path}: the run's folder cannot be written ({error})"
        ) from None


def _check_same_model(config: Config, path: Path) -> None:
    if not path.exists():
        return
    earlier = load_config(path)
    for section in ("model", "discriminators"):
        ours, theirs = getattr(config, section), getattr(earlier, section)
        different = [
            key for key in type(ours).model_fields if getattr(ours, key) != getattr(theirs, key)
        ]
        if different:
            key = different[0]
            raise ConfigError(
                f"{section}.{key} is {getattr(ours, key)}, but the run in {path.parent} was begun "
                f"with {getattr(theirs, key)}; change it back, or give this run another name"
            )
    for key in ("learning", "cache_vectors"):
        mine, begun_with = getattr(config.codebooks, key), getattr(earlier.codebooks, key)
        if mine != begun_with:
            raise ConfigError(
                f"codebooks.{key} is {mine}, but the run in {path.parent} was begun with "
                f"{begun_with}; change it back, or give this run another name"
            )
