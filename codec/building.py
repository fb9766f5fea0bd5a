"""From a model's configuration to its modules, and from these to the weights of a model file."""

from typing import Any

from torch import Tensor
from torch.nn.utils import parametrize

from codec.config import CodebooksConfig
from codec.config_model import (
    AnyHalf,
    ModelConfig,
    SEANetConfig,
    VoiceDecoderConfig,
    VoiceEncoderConfig,
)
from codec.nn.autoencoder import Autoencoder
from codec.nn.convnext import ConvNeXtDecoder, ConvNeXtEncoder
from codec.nn.halves import WaveDecoder, WaveEncoder
from codec.nn.quantizer import ResidualVectorQuantizer
from codec.nn.seanet import SEANetDecoder, SEANetEncoder
from codec.nn.voice_halves import VoiceDecoder, VoiceEncoder


def build_autoencoder(config: ModelConfig, codebooks: CodebooksConfig | None = None) -> Autoencoder:
    """A freshly initialised autoencoder, ready to be trained.

    Args:
        config: the architecture.
        codebooks: how the quantizer learns; of no consequence for inference.
    """
    codebooks = codebooks or CodebooksConfig()

    quantizer = ResidualVectorQuantizer(
        dimension=config.dimension,
        n_quantizers=config.quantizer.n_quantizers,
        codebook_size=config.quantizer.codebook_size,
        codebook_dimension=config.quantizer.codebook_dimension,
        l2_normalize=config.quantizer.l2_normalize,
        learning=codebooks.learning,
        decay=codebooks.decay,
        dropout=codebooks.dropout,
        continuous=codebooks.continuous,
        cache_vectors=codebooks.cache_vectors,
    )
    return Autoencoder(
        _encoder(config, config.encoder), quantizer, _decoder(config, config.decoder)
    )


def _encoder(config: ModelConfig, half: AnyHalf) -> WaveEncoder:
    arguments = _arguments(config, half)
    if isinstance(half, SEANetConfig):
        return SEANetEncoder(causal=config.causal, **arguments)
    if isinstance(half, VoiceEncoderConfig):
        return VoiceEncoder(sample_rate=config.sample_rate, **arguments)
    del arguments["last_kernel_size"], arguments["noise_channels"]  # the decoder's
    arguments["n_fft"] = arguments["n_fft"] or 4 * arguments["strides"][0]
    return ConvNeXtEncoder(causal=config.causal, **arguments)


def _decoder(config: ModelConfig, half: AnyHalf) -> WaveDecoder:
    arguments = _arguments(config, half)
    if isinstance(half, SEANetConfig):
        return SEANetDecoder(causal=config.causal, **arguments)
    if isinstance(half, VoiceDecoderConfig):
        return VoiceDecoder(sample_rate=config.sample_rate, **arguments)
    del arguments["n_fft"]  # the encoder's
    return ConvNeXtDecoder(causal=config.causal, **arguments)


def _arguments(config: ModelConfig, half: AnyHalf) -> dict[str, Any]:
    return {
        **half.model_dump(exclude={"kind"}),
        "strides": config.strides_of(half),
        "dimension": config.dimension,
    }


def inference_tensors(autoencoder: Autoencoder) -> dict[str, Tensor]:
    """Weights that a model file carries: weight norm folded, without training statistics."""
    tensors = {
        name: tensor.detach()
        for name, tensor in autoencoder.state_dict().items()
        if ".statistics." not in name and ".parametrizations." not in name
    }
    for name, module in autoencoder.named_modules():
        if parametrize.is_parametrized(module):
            for parameter in module.parametrizations:
                tensors[f"{name}.{parameter}"] = getattr(module, parameter).detach()
    return tensors
