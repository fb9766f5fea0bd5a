"""Encoder, quantizer and decoder as one module."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from codec.nn.halves import WaveDecoder, WaveEncoder
from codec.nn.quantizer import QuantizerOutput, ResidualVectorQuantizer


@dataclass
class AutoencoderOutput:
    """What one training pass gives.

    Attributes:
        decoded: (batch, 1, samples) float, as long as the input.
        quantizer: codes and the quantizer's losses; None where it was passed by.
    """

    decoded: Tensor
    quantizer: QuantizerOutput | None


class Autoencoder(nn.Module):
    """wave → latent → codes → latent → wave.

    `freeze_encoder()` begins the second stage of training: encoder and quantizer then stay bit
    for bit as they are, and only the decoder learns (AudioDec's second stage, Wu et al. 2023).
    """

    def __init__(
        self,
        encoder: WaveEncoder,
        quantizer: ResidualVectorQuantizer,
        decoder: WaveDecoder,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.quantizer = quantizer
        self.decoder = decoder

    def forward(self, wave: Tensor, generator: torch.Generator | None = None) -> AutoencoderOutput:
        """Codes and decodes (batch, 1, samples); `generator` draws the quantizer's dropout."""
        latent = self.encoder(wave)
        quantized = self.quantizer(latent, generator=generator)
        decoded = self.decoder(quantized.quantized)
        return AutoencoderOutput(decoded[..., : wave.shape[-1]], quantized)

    def forward_unquantized(self, wave: Tensor) -> AutoencoderOutput:
        """Passes (batch, 1, samples) from encoder to decoder; the quantizer learns nothing."""
        decoded = self.decoder(self.encoder(wave))
        return AutoencoderOutput(decoded[..., : wave.shape[-1]], None)

    @property
    def encoder_frozen(self) -> bool:
        """Whether the second stage has begun."""
        return self.quantizer.frozen

    def freeze_encoder(self) -> None:
        """Encoder and quantizer learn nothing from here on; quantizer dropout goes on."""
        self.encoder.requires_grad_(False)
        self.quantizer.requires_grad_(False)
        self.quantizer.frozen = True
