"""The model classes of the PyPI package descript-audio-codec, and nothing else of it.

`import dac` imports descript-audiotools, which asks for a protobuf too old for ONNX and for some
forty packages that no model needs. Of it the model classes use the name of a base class and that of
an annotation. Where it is not installed, they are imported with stand-ins for the two, and nothing
of that is left in `sys.modules`.
"""

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from types import ModuleType

from torch import nn

from codec.errors import ForeignCodecError

_PACKAGES = ("dac", "dac.nn", "dac.model")


@dataclass(frozen=True)
class Classes:
    """What the adapter has to know."""

    DAC: type[nn.Module]
    Encoder: type[nn.Module]
    Decoder: type[nn.Module]
    EncoderBlock: type[nn.Module]
    DecoderBlock: type[nn.Module]
    ResidualUnit: type[nn.Module]
    Snake1d: type[nn.Module]


@cache
def dac_classes() -> Classes:
    """The package's own classes, those of `import dac` where that works.

    Raises:
        ForeignCodecError: the package is not installed.
    """
    if importlib.util.find_spec("dac") is None:
        raise ForeignCodecError(
            "driving DAC needs its package; install it with: "
            "pip install --no-deps descript-audio-codec einops"
        )
    if importlib.util.find_spec("audiotools") is not None:
        return _imported()
    with _stand_ins():
        return _imported()


def _imported() -> Classes:
    model = importlib.import_module("dac.model.dac")
    layers = importlib.import_module("dac.nn.layers")
    return Classes(
        model.DAC,
        model.Encoder,
        model.Decoder,
        model.EncoderBlock,
        model.DecoderBlock,
        model.ResidualUnit,
        layers.Snake1d,
    )


@contextmanager
def _stand_ins() -> Iterator[None]:
    """Inside, `dac`'s packages are empty but for their modules, and audiotools is two names."""
    before = set(sys.modules)
    spec = importlib.util.find_spec("dac")
    assert spec is not None and spec.submodule_search_locations
    (root,) = spec.submodule_search_locations
    for name in _PACKAGES:
        package = ModuleType(name)
        package.__path__ = [f"{root}/{name.removeprefix('dac').removeprefix('.')}".rstrip("/")]
        sys.modules[name] = package
    audiotools, ml = ModuleType("audiotools"), ModuleType("audiotools.ml")
    vars(audiotools).update(AudioSignal=object, ml=ml)
    vars(ml).update(BaseModel=nn.Module)
    sys.modules |= {"audiotools": audiotools, "audiotools.ml": ml}
    try:
        yield
    finally:
        for name in set(sys.modules) - before:
            if name.partition(".")[0] in ("dac", "audiotools"):
                del sys.modules[name]
