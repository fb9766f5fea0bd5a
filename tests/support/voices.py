"""Small voices with random weights, and what makes two of their waves the same."""

from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike

from codec.building import build_autoencoder, inference_tensors
from codec.codec import Codec
from codec.config_model import ModelConfig

HALF: dict[str, Any] = {"kind": "voice", "channels": [16, 16], "blocks": [1, 1]}


def make_voice(seed: int = 0, **changes: Any) -> Codec:
    """16 kHz, hop 320, one frame of look-ahead, 3 codebooks of 32; `decoder` adds keys to its."""
    decoder = HALF | changes.pop("decoder", {})
    values = {
        "strides": [80, 4],
        "dimension": 16,
        "encoder": HALF,
        "decoder": decoder,
        "quantizer": {"n_quantizers": 3, "codebook_size": 32},
        "default_kbps": 0.5,
    } | changes
    config = ModelConfig.model_validate(values)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        tensors = inference_tensors(build_autoencoder(config))
        for name, tensor in tensors.items():
            if name.endswith("bias"):  # zeros that should not be there are noticed
                tensor += 0.02 * torch.randn_like(tensor)
    return Codec(config, tensors)


def assert_sounds_like(found: ArrayLike, expected: ArrayLike) -> None:
    """By the root mean square: a running phase adds rounding up, and pulses are steep."""
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    assert found.shape == expected.shape
    error = np.sqrt(np.square(found - expected).sum())
    assert error <= 5e-3 * np.sqrt(np.square(expected).sum()) + 1e-12
