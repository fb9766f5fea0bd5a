from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from codec import audio, shipped
from codec.building import build_autoencoder, inference_tensors
from codec.codec import Codec
from codec.config_model import ModelConfig
from infer.export import export
from tests.support.voices import make_voice


@pytest.fixture(scope="session")
def make_codec() -> Callable[[int], Codec]:
    """Tiny untrained models, one a seed: hop 40 at 8 kHz, 4 codebooks of 64, 1.2 to 4.8 kbps."""
    torch.set_num_threads(1)

    def make(seed: int) -> Codec:
        half = {"channels": 2, "dilations": [1]}
        config = ModelConfig.model_validate(
            {
                "sample_rate": 8000,
                "hop_length": 40,
                "strides": [5, 8],
                "dimension": 8,
                "encoder": half,
                "decoder": half,
                "quantizer": {"n_quantizers": 4, "codebook_size": 64},
                "default_kbps": 3.6,
            }
        )
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return Codec(config, inference_tensors(build_autoencoder(config)))

    return make


@pytest.fixture(scope="session")
def codec(make_codec: Callable[[int], Codec]) -> Codec:
    return make_codec(0)


@pytest.fixture(scope="session")
def exported(codec: Codec, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model of `codec`, exported."""
    folder = tmp_path_factory.mktemp("export") / "out"
    export(codec, folder)
    return folder


@pytest.fixture(scope="session")
def voice() -> Codec:
    """A small untrained voice: hop 320 at 16 kHz, one frame of look-ahead, 3 codebooks of 32."""
    torch.set_num_threads(1)
    return make_voice()


@pytest.fixture(scope="session")
def exported_voice(voice: Codec, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """That voice, exported."""
    folder = tmp_path_factory.mktemp("export") / "voice"
    export(voice, folder)
    return folder


@pytest.fixture
def wav(tmp_path: Path) -> Callable[..., Path]:
    """Writes a WAV file of noise."""

    def write(name: str, samples: int, *, sample_rate: int = 8000, channels: int = 1) -> Path:
        noise = np.random.default_rng(1).uniform(-0.5, 0.5, (channels, samples))
        audio.write_wav(tmp_path / name, noise.astype(np.float32), sample_rate)
        return tmp_path / name

    return write


@pytest.fixture
def model(codec: Codec, tmp_path: Path) -> Path:
    """A model file."""
    codec.save(tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


@pytest.fixture
def quiet_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No model but those of the tests, and lines that do not wrap."""
    monkeypatch.delenv("SOTTO_MODEL", raising=False)
    monkeypatch.setattr(shipped, "SHIPPED", Path("no-model-is-shipped.safetensors"))
    monkeypatch.setenv("COLUMNS", "200")
