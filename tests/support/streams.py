"""Tiny models of every family, for tests of streams."""

from functools import cache

import numpy as np
import torch

from codec.building import build_autoencoder, inference_tensors
from codec.codec import Codec
from codec.config_model import ConvNeXtConfig, ModelConfig, QuantizerConfig, SEANetConfig

SAMPLE_RATE = 200  # what passes the layers at once is 200 samples then: tests cross its edges


@cache
def codec(
    kind: str = "seanet",
    strides: tuple[int, ...] = (2, 3),
    kernel: int = 7,
    dilations: tuple[int, ...] = (1, 3),
    causal: bool = True,
    seed: int = 0,
) -> Codec:
    """Tiny, with biases all over: zeros that should not be there are noticed."""
    if kind == "voice":
        return voice(strides, kernel, seed)
    hop = int(np.prod(strides))
    if kind == "seanet":
        half = SEANetConfig(
            channels=3,
            kernel_size=kernel,
            residual_kernel_size=max(1, kernel - 4),
            last_kernel_size=3,
            dilations=list(dilations),
        )
    else:
        n = len(strides)
        half = ConvNeXtConfig(
            kind="convnext",
            channels=[6, 8, 8][:n],
            blocks=[1, 1, 1][:n],
            kernel_size=max(2, kernel),
            expansion=2,
        )
    noise = {"noise_channels": 3} if kind == "convnext-noise" else {}
    config = ModelConfig(
        sample_rate=SAMPLE_RATE,
        hop_length=hop,
        strides=list(strides),
        dimension=6,
        causal=causal,
        encoder=half,
        decoder=half.model_copy(update=noise),
        quantizer=QuantizerConfig(n_quantizers=3, codebook_size=16),
        default_kbps=4 * SAMPLE_RATE / hop / 1000,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        autoencoder = build_autoencoder(config).requires_grad_(False)
        for parameter in autoencoder.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    return Codec(config, inference_tensors(autoencoder))


@cache
def voice(strides: tuple[int, ...], kernel: int, seed: int) -> Codec:
    """The same at 1600 Hz, where 5 ms are 8 samples; it looks ahead one frame or two."""
    rate, strides = 1600, (8, *strides[1:])
    half = {"kind": "voice", "channels": [6, 8, 8][: len(strides)], "blocks": [1] * len(strides)}
    half |= {"kernel_size": max(2, kernel), "expansion": 2}
    hop = int(np.prod(strides))
    config = ModelConfig.model_validate(
        {
            "sample_rate": rate,
            "hop_length": hop,
            "strides": list(strides),
            "dimension": 6,
            "encoder": half,
            "decoder": half | {"last_kernel_size": min(kernel, 3), "lookahead": 1 + kernel % 2},
            "quantizer": {"n_quantizers": 3, "codebook_size": 16},
            "default_kbps": 4 * rate / hop / 1000,
        }
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        autoencoder = build_autoencoder(config).requires_grad_(False)
        for parameter in autoencoder.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return Codec(config, inference_tensors(autoencoder))
