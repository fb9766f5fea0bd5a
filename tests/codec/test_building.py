"""From configurations to modules: each half of its own kind, and what a config may not say."""

import pytest
import torch
from pydantic import ValidationError

from codec.building import build_autoencoder
from codec.config_model import ConvNeXtConfig, ModelConfig, SEANetConfig
from codec.nn.convnext import ConvNeXtDecoder, ConvNeXtEncoder
from codec.nn.seanet import SEANetDecoder, SEANetEncoder

torch.set_num_threads(1)

SEANET = {"channels": 2, "dilations": [1]}
CONVNEXT = {"kind": "convnext", "strides": [8, 5], "channels": [4, 6], "blocks": [1, 1]}


def model(**keys: object) -> ModelConfig:
    return ModelConfig.model_validate(
        {
            "sample_rate": 8000,
            "hop_length": 40,
            "strides": [2, 4, 5],
            "dimension": 6,
            "quantizer": {"n_quantizers": 2, "codebook_size": 8},
            "default_kbps": 0.6,
            **keys,
        }
    )


@pytest.mark.parametrize("decoder", [SEANET, CONVNEXT], ids=["to-seanet", "to-convnext"])
@pytest.mark.parametrize("encoder", [SEANET, CONVNEXT], ids=["seanet", "convnext"])
def test_halves_of_any_kind_go_together(
    encoder: dict[str, object], decoder: dict[str, object]
) -> None:
    built = build_autoencoder(model(encoder=encoder, decoder=decoder)).eval()
    assert isinstance(built.encoder, ConvNeXtEncoder if "kind" in encoder else SEANetEncoder)
    assert isinstance(built.decoder, ConvNeXtDecoder if "kind" in decoder else SEANetDecoder)
    assert built(torch.randn(1, 1, 100)).decoded.shape == (1, 1, 100)


def test_a_half_without_a_kind_is_a_seanet() -> None:
    assert model(encoder={"channels": 3}).encoder == SEANetConfig(channels=3)
    assert isinstance(model(decoder=CONVNEXT).decoder, ConvNeXtConfig)


def test_a_config_survives_json() -> None:
    config = model(encoder=SEANET, decoder=CONVNEXT)
    assert ModelConfig.model_validate_json(config.model_dump_json()) == config


@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        ({**CONVNEXT, "strides": [8, 4]}, r"strides \[8, 4\] multiply to 32, not to hop_length 40"),
        ({**CONVNEXT, "blocks": [1]}, "differ in length"),
        ({**CONVNEXT, "strides": None}, r"one entry for each of the strides \[2, 4, 5\]"),
        ({"kind": "lstm"}, "lstm"),
        ({"kind": 3}, "3"),
        ({**CONVNEXT, "activation": "elu"}, "activation"),
    ],
    ids=["product", "lengths", "entries", "kind", "kind-type", "foreign-key"],
)
def test_impossible_halves_are_refused(encoder: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        model(encoder=encoder)


def test_a_fourier_transform_has_a_bound() -> None:
    half = {"kind": "convnext", "channels": [4], "blocks": [1]}
    with pytest.raises(ValidationError, match="at most 2048 samples"):
        model(hop_length=4000, strides=[4000], encoder=half)
