"""Starting a training run from the weights of a model file, of an equal or a lesser model."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from codec.building import build_autoencoder
from codec.config_model import ConvNeXtConfig, ModelConfig
from codec.errors import ConfigError
from codec.model_file import read_model_file
from codec.nn.autoencoder import Autoencoder
from codec.nn.convnext import ConvNeXtBlock
from codec.nn.convolution import set_weight
from codec.nn.noise import LatentNoise

_ADDABLE = (ConvNeXtBlock, LatentNoise)


def load_weights(model: Autoencoder, path: str, config: ModelConfig) -> None:
    """Starts `model` from the weights of a model file.

    Where `model` has further ConvNeXt blocks at a rate, they come after the file's and begin by
    passing on what they get; where its decoder has noise and the file's has not, it begins by not
    listening to it. The greater model decodes what the file's does, but for rounding, and learns
    from there (as in Net2Net, Chen et al. 2016).

    Raises:
        ConfigError: the file's architecture is another one, or deeper.
        ModelFileError: the file is missing, foreign or damaged.
    """
    file = read_model_file(path)
    _check(file.config, config, path)
    with torch.device("meta"):
        theirs = build_autoencoder(file.config)
    prefixes: dict[str, str] = {}
    for half in ("encoder", "decoder"):
        old, new = (m.get_submodule(f"{half}.layers") for m in (theirs, model))
        assert isinstance(old, nn.ModuleList) and isinstance(new, nn.ModuleList)
        places = _places(old, new)
        prefixes |= {f"{half}.layers.{a}.": f"{half}.layers.{b}." for a, b in places.items()}
        for place in set(range(len(new))) - set(places.values()):
            if isinstance(added := new[place], ConvNeXtBlock):
                nn.init.zeros_(added.scale)
    _assign(model, {_renamed(name, prefixes): t for name, t in file.tensors.items()})


def _check(theirs: ModelConfig, ours: ModelConfig, path: str) -> None:
    old, new = theirs.model_dump(), ours.model_dump()
    for half in ("encoder", "decoder"):
        file, run = getattr(theirs, half), getattr(ours, half)
        if (
            isinstance(file, ConvNeXtConfig)
            and isinstance(run, ConvNeXtConfig)
            and len(file.blocks) == len(run.blocks)
            and all(few <= many for few, many in zip(file.blocks, run.blocks, strict=True))
        ):
            del old[half]["blocks"], new[half]["blocks"]
            if not file.noise_channels:
                del old[half]["noise_channels"], new[half]["noise_channels"]
    different = [key for key in new if new[key] != old[key] and key != "default_kbps"]
    if different:
        key = different[0]
        raise ConfigError(
            f"training.initial_model: {path}: its model.{key} is {theirs.model_dump()[key]}, "
            f"this run's is {ours.model_dump()[key]}; make them equal (ConvNeXt blocks may be "
            "more than the file's, and decoder.noise_channels new)"
        )


def _places(theirs: nn.ModuleList, ours: nn.ModuleList) -> dict[int, int]:
    """Where each of their layers is among ours, the same but for further blocks and noise."""
    places, place = {}, 0
    for index, layer in enumerate(theirs):
        if not isinstance(layer, _ADDABLE):
            while isinstance(ours[place], _ADDABLE):
                place += 1
        places[index] = place
        place += 1
    return places


def _renamed(name: str, prefixes: dict[str, str]) -> str:
    """A tensor's name with its layer's place in the deeper model."""
    parts = name.split(".", 3)
    prefix = ".".join(parts[:3]) + "."
    return prefixes[prefix] + parts[3] if prefix in prefixes else name


def _assign(model: Autoencoder, tensors: dict[str, Tensor]) -> None:
    plain = {}
    for name, tensor in tensors.items():
        module_name, _, parameter = name.rpartition(".")
        module = model.get_submodule(module_name)
        if parametrize.is_parametrized(module, parameter):
            # The file's weights are folded; assignment goes through weight norm's inverse.
            weight = getattr(module, parameter)
            noise = weight.shape[1] - tensor.shape[1]  # channels that the file's layer has not
            set_weight(module, F.pad(tensor.to(weight), (0, 0, 0, noise)))
        else:
            plain[name] = tensor
    model.load_state_dict(plain, strict=False)
