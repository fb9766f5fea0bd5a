import tomllib
from pathlib import Path

import pytest

from codec import shipped
from codec.building import build_autoencoder, inference_tensors
from codec.codec import Codec
from codec.config_model import ModelConfig, QuantizerConfig, SEANetConfig
from codec.errors import SottoError

ROOT = Path(__file__).parents[2]
LARGEST_FILE = 30_000_000
MOST_PARAMETERS = 15_000_000


def test_a_codec_without_a_path_is_the_shipped_one(tmp_path, monkeypatch):
    half = SEANetConfig(channels=2, dilations=[1])
    config = ModelConfig(
        hop_length=20,
        strides=[4, 5],
        dimension=4,
        encoder=half,
        decoder=half,
        quantizer=QuantizerConfig(n_quantizers=2, codebook_size=8),
        default_kbps=2.4,
    )
    monkeypatch.setattr(shipped, "SHIPPED", tmp_path / "default.safetensors")
    with pytest.raises(SottoError, match="without a model"):
        Codec.load()
    codec = Codec(config, inference_tensors(build_autoencoder(config)))
    codec.save(tmp_path / "default.safetensors")
    assert Codec.load().fingerprint == codec.fingerprint


def test_a_wheel_takes_the_model_along():
    """What setuptools is told to pack is where it is looked for."""
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    package = Path(shipped.__file__).parent
    inside = shipped.SHIPPED.relative_to(package).as_posix()
    assert package.name == "codec"
    assert any(Path(inside).match(one) for one in patterns["package-data"]["codec"])


@pytest.mark.skipif(not shipped.SHIPPED.is_file(), reason="no model is shipped yet")
def test_the_shipped_model_is_small_and_knows_its_rates():
    assert shipped.SHIPPED.stat().st_size <= LARGEST_FILE
    codec = Codec.load()
    assert codec.n_parameters <= MOST_PARAMETERS
    assert codec.sample_rate == 16_000
    assert [codec.n_quantizers_for(kbps) for kbps in (1.5, 3.0, 4.0)]
