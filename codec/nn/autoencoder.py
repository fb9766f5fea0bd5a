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
        decoded: (takes * batch, 1, samples) float, as long as the input, take after take.
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

    def forward(
        self, wave: Tensor, generator: torch.Generator | None = None, *, takes: int = 1
    ) -> AutoencoderOutput:
        """Codes (batch, 1, samples) and decodes it `takes` times, each with noise of its own.

        `generator` draws the quantizer's dropout, which is the same for all takes.
        """
        quantized = self.quantizer(self.encoder(wave), generator=generator)
        return AutoencoderOutput(self.decode(quantized.quantized, wave, takes=takes), quantized)

    def decode(self, latent: Tensor, wave: Tensor, *, takes: int = 1) -> Tensor:
        """Decodes a latent `takes` times, (takes * batch, 1, samples), as long as the wave."""
        return self.decoder(latent.repeat(takes, 1, 1))[..., : wave.shape[-1]]

    @property
    def encoder_frozen(self) -> bool:
        """Whether the second stage has begun."""
        return self.quantizer.frozen

    def freeze_encoder(self) -> None:
        """Encoder and quantizer learn nothing from here on; quantizer dropout goes on."""
        self.encoder.requires_grad_(False)
        self.quantizer.requires_grad_(False)
        self.quantizer.frozen = True
