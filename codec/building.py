"""From a model's configuration to its modules, and from these to the weights of a model file."""

from typing import Any

from torch import Tensor
from torch.nn.utils import parametrize

from codec.config import CodebooksConfig, ModelConfig, SEANetConfig
from codec.nn.autoencoder import Autoencoder
from codec.nn.quantizer import ResidualVectorQuantizer
from codec.nn.seanet import SEANetDecoder, SEANetEncoder


def build_autoencoder(config: ModelConfig, codebooks: CodebooksConfig | None = None) -> Autoencoder:
    """A freshly initialised autoencoder, ready to be trained.

    Args:
        config: the architecture.
        codebooks: how the quantizer learns; of no consequence for inference.
    """
    codebooks = codebooks or CodebooksConfig()

    def seanet(half: SEANetConfig) -> dict[str, Any]:
        return {
            **half.model_dump(),
            "strides": tuple(config.strides),
            "dilations": tuple(half.dilations),
            "dimension": config.dimension,
            "causal": config.causal,
        }

    quantizer = ResidualVectorQuantizer(
        dimension=config.dimension,
        n_quantizers=config.quantizer.n_quantizers,
        codebook_size=config.quantizer.codebook_size,
        codebook_dimension=config.quantizer.codebook_dimension,
        l2_normalize=config.quantizer.l2_normalize,
        learning=codebooks.learning,
        decay=codebooks.decay,
        dropout=codebooks.dropout,
        cache_vectors=codebooks.cache_vectors,
    )
    return Autoencoder(
        SEANetEncoder(**seanet(config.encoder)),
        quantizer,
        SEANetDecoder(**seanet(config.decoder)),
    )


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
