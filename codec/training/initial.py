"""Starting a training run from the weights of a model file."""

from torch.nn.utils import parametrize

from codec.config_model import ModelConfig
from codec.errors import ConfigError
from codec.model_file import read_model_file
from codec.nn.autoencoder import Autoencoder


def load_weights(model: Autoencoder, path: str, config: ModelConfig) -> None:
    """Starts `model` from the weights of a model file.

    Raises:
        ConfigError: the file's architecture is another one.
        ModelFileError: the file is missing, foreign or damaged.
    """
    file = read_model_file(path)
    theirs, ours = file.config.model_dump(), config.model_dump()
    different = [key for key in ours if ours[key] != theirs[key] and key != "default_kbps"]
    if different:
        key = different[0]
        raise ConfigError(
            f"training.initial_model: {path}: its model.{key} is {theirs[key]}, "
            f"this run's is {ours[key]}; make them equal"
        )
    plain = {}
    for name, tensor in file.tensors.items():
        module_name, _, parameter = name.rpartition(".")
        module = model.get_submodule(module_name)
        if parametrize.is_parametrized(module, parameter):
            # The file's weights are folded; assignment goes through weight norm's inverse.
            setattr(module, parameter, tensor.to(getattr(module, parameter)))
        else:
            plain[name] = tensor
    model.load_state_dict(plain, strict=False)
