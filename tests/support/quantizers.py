"""Small quantizers and latents for tests."""

from typing import Any

import torch
from torch import Tensor

from codec.nn.quantizer import ResidualVectorQuantizer


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def latents(seed: int = 0, *, batch: int = 4, frames: int = 20, dimension: int = 6) -> Tensor:
    return torch.randn(batch, dimension, frames, generator=generator(seed))


def make(*, seed: int = 0, **settings: Any) -> ResidualVectorQuantizer:
    torch.manual_seed(seed)
    given = {"dimension": 6, "n_quantizers": 4, "codebook_size": 16, "cache_vectors": 200}
    return ResidualVectorQuantizer(**given | settings)


def started(**settings: Any) -> ResidualVectorQuantizer:
    quantizer = make(**settings)
    quantizer(latents(100, dimension=quantizer.dimension), generator=generator())
    return quantizer


def state(quantizer: ResidualVectorQuantizer) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in quantizer.state_dict().items()}
