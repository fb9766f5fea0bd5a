"""Keys of a run description that shape the model: what a model file carries."""

import math
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    field_validator,
    model_validator,
)

from codec.nn.parameters import FRAMES_PER_SECOND

PositiveInt = Annotated[int, Field(gt=0)]
# Bounds far above anything of use: a model file from anywhere must not ask for absurd amounts of
# memory before its weights are compared with its config.
Width = Annotated[int, Field(gt=0, le=8192)]
Taps = Annotated[int, Field(gt=0, le=1024)]
Stride = Annotated[int, Field(gt=0, le=4096)]
_LONGEST_HOP = 2048
Factor = Annotated[int, Field(gt=0, le=64)]


class Section(BaseModel):
    """A group of keys. Unknown keys and wrong types are refused; nothing is coerced."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        frozen=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )


class SEANetConfig(Section):
    """One half of the autoencoder: a stack of strided and dilated convolutions."""

    kind: Literal["seanet"] = "seanet"
    strides: list[Stride] | None = Field(None, min_length=1, max_length=16)
    """Of this half, from the waveform inwards; none: the model's."""
    channels: Width = 32
    """Width at the full sample rate; doubles at every stride."""
    max_channels: Width | None = None
    """Upper bound of the width, none by default."""
    kernel_size: Taps = 7
    """Taps of the convolution next to the waveform."""
    last_kernel_size: Taps = 3
    """Taps of the convolution next to the latent."""
    residual_kernel_size: Taps = 3
    """Taps of the dilated convolution of a residual unit."""
    dilations: list[Taps] = Field([1, 3, 9], min_length=1, max_length=64)
    """One residual unit a dilation, at every stride."""
    compress: Factor = 2
    """A residual unit works at width / compress."""
    activation: Literal["elu", "leaky_relu", "snake"] = "elu"


class ConvNeXtConfig(Section):
    """One half of the autoencoder: layers at frame rates behind a Fourier transform.

    Lists have one entry a stride, from the waveform inwards.
    """

    kind: Literal["convnext"]
    strides: list[Stride] | None = Field(None, min_length=1, max_length=16)
    """Of this half; none: the model's. The first one is the hop of the Fourier transform."""
    channels: list[Width] = Field([192, 384], min_length=1, max_length=16)
    """Width of the layers at each rate."""
    blocks: list[Annotated[int, Field(ge=0, le=256)]] = Field([2, 4], min_length=1, max_length=16)
    """ConvNeXt blocks at each rate."""
    n_fft: int | None = Field(None, gt=0, le=8192)
    """Window of the encoder's analysis in samples, even; none: four of its hops. The decoder's
    synthesis has windows of two hops."""
    kernel_size: int = Field(7, ge=2, le=1024)
    """Taps of the depthwise convolutions."""
    last_kernel_size: Taps = 3
    """Taps of the decoder's convolution next to the latent."""
    expansion: Factor = 3
    """A block works at width * expansion."""
    noise_channels: int = Field(0, ge=0, le=8192)
    """Of pseudo-random numbers beside the decoder's latent, of which it can make noise that does
    not repeat; the encoder has none."""

    @model_validator(mode="after")
    def _one_entry_a_stride(self) -> Self:
        if len(self.channels) != len(self.blocks):
            raise ValueError(
                f"channels {self.channels} and blocks {self.blocks} differ in length: "
                "each has one entry a stride"
            )
        return self


class _VoiceConfig(Section):
    """What both halves of a voice have; lists have one entry a stride, from the wave inwards."""

    kind: Literal["voice"]
    strides: list[Stride] | None = Field(None, min_length=1, max_length=16)
    """Of this half; none: the model's. The first one is 5 ms, what parameters are a hop of."""
    kernel_size: int = Field(7, ge=2, le=1024)
    """Taps of the depthwise convolutions."""
    expansion: Factor = 3
    """A block works at width * expansion."""


class VoiceEncoderConfig(_VoiceConfig):
    """Log power in bands and an autocorrelation, then ConvNeXt blocks beside a linear path."""

    channels: list[Width] = Field([128, 224], min_length=1, max_length=16)
    """Width of the layers at each rate."""
    blocks: list[Annotated[int, Field(ge=0, le=256)]] = Field([2, 2], min_length=1, max_length=16)
    """ConvNeXt blocks at each rate."""


class VoiceDecoderConfig(_VoiceConfig):
    """ConvNeXt blocks beside a linear path, then a source (pulses, noise) and a filter."""

    channels: list[Width] = Field([96, 224], min_length=1, max_length=16)
    """Width of the layers at each rate."""
    blocks: list[Annotated[int, Field(ge=0, le=256)]] = Field([3, 3], min_length=1, max_length=16)
    """ConvNeXt blocks at each rate."""
    last_kernel_size: Taps = 3
    """Taps of the convolution next to the latent."""
    lookahead: int = Field(1, ge=0, le=16)
    """Frames after its own that a frame of the wave waits for."""


HALVES: dict[str, dict[str, type[Section]]] = {
    "encoder": {"seanet": SEANetConfig, "convnext": ConvNeXtConfig, "voice": VoiceEncoderConfig},
    "decoder": {"seanet": SEANetConfig, "convnext": ConvNeXtConfig, "voice": VoiceDecoderConfig},
}
"""What describes either half of the model, by its `kind`."""


def _kind(half: Any) -> str:
    """Which class describes a half; those who name no kind mean a SEANet."""
    kind = half.get("kind", "seanet") if isinstance(half, dict) else getattr(half, "kind", None)
    return kind if isinstance(kind, str) else repr(kind)


EncoderConfig = Annotated[
    Annotated[SEANetConfig, Tag("seanet")]
    | Annotated[ConvNeXtConfig, Tag("convnext")]
    | Annotated[VoiceEncoderConfig, Tag("voice")],
    Discriminator(_kind),
]
DecoderConfig = Annotated[
    Annotated[SEANetConfig, Tag("seanet")]
    | Annotated[ConvNeXtConfig, Tag("convnext")]
    | Annotated[VoiceDecoderConfig, Tag("voice")],
    Discriminator(_kind),
]
AnyHalf = SEANetConfig | ConvNeXtConfig | VoiceEncoderConfig | VoiceDecoderConfig


class QuantizerConfig(Section):
    """The residual vector quantizer: what a model file has to know of it."""

    n_quantizers: int = Field(8, gt=0, le=255)
    codebook_size: int = Field(1024, ge=2, le=65536)
    """Rows of a codebook, a power of two: a code takes log2 of it in bits."""
    codebook_dimension: Width | None = None
    """Project to this many dimensions before each look-up (DAC: 8); none: the latent's own."""
    l2_normalize: bool = False
    """Compare directions only: vectors and rows are brought to length 1 before the look-up."""

    @field_validator("codebook_size")
    @classmethod
    def _whole_bits(cls, size: int) -> int:
        if size & (size - 1):
            raise ValueError(f"must be a power of two, such as {2 ** round(math.log2(size))}")
        return size


class ModelConfig(Section):
    """The codec itself: all that a model file carries, and all that its fingerprint covers."""

    sample_rate: int = Field(16000, gt=0, lt=2**32)
    """Hz."""
    hop_length: int = Field(320, gt=0, lt=2**32)
    """Samples a frame of codes stands for; the product of the strides."""
    strides: list[Stride] = Field([2, 4, 5, 8], min_length=1, max_length=16)
    """From the waveform inwards; the decoder reverses them. Either half may have its own."""
    dimension: Width = 128
    """Width of the latent that is quantized."""
    causal: bool = True
    """False pads on both sides: better offline, cannot stream."""
    encoder: EncoderConfig = SEANetConfig()
    decoder: DecoderConfig = SEANetConfig()
    quantizer: QuantizerConfig = QuantizerConfig()
    default_kbps: float = Field(3.0, gt=0)
    """The rate that encodes when none is named."""

    @property
    def bits_per_code(self) -> int:
        """Bits one code takes."""
        return self.quantizer.codebook_size.bit_length() - 1

    def possible_kbps(self) -> list[float]:
        """Rates in kbit/s, one a number of codebooks from 1 up."""
        frame_rate = self.sample_rate / self.hop_length
        return [
            n * self.bits_per_code * frame_rate / 1000
            for n in range(1, self.quantizer.n_quantizers + 1)
        ]

    @property
    def lookahead(self) -> int:
        """Frames after its own that a decoded frame waits for."""
        return self.decoder.lookahead if isinstance(self.decoder, VoiceDecoderConfig) else 0

    def strides_of(self, half: AnyHalf) -> list[int]:
        """The strides of the encoder or decoder: its own, or the model's."""
        return self.strides if half.strides is None else half.strides

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for strides in (self.strides, self.encoder.strides, self.decoder.strides):
            if strides is not None and (product := math.prod(strides)) != self.hop_length:
                raise ValueError(
                    f"strides {strides} multiply to {product}, not to hop_length "
                    f"{self.hop_length}; set hop_length: {product} or change the strides"
                )
        if isinstance(self.encoder, ConvNeXtConfig) and self.encoder.noise_channels:
            raise ValueError("encoder.noise_channels: noise is for the decoder; leave it out here")
        for name, half in (("encoder", self.encoder), ("decoder", self.decoder)):
            strides = self.strides_of(half)
            if isinstance(half, ConvNeXtConfig) and strides[0] > _LONGEST_HOP:
                raise ValueError(
                    f"{name}: the first of the strides {strides} is the hop of a Fourier "
                    f"transform, which is at most {_LONGEST_HOP} samples"
                )
            if isinstance(half, VoiceEncoderConfig | VoiceDecoderConfig):
                self._check_voice(name, half, strides)
            if not isinstance(half, SEANetConfig) and len(half.channels) != len(strides):
                raise ValueError(
                    f"{name}.channels {half.channels} and {name}.blocks {half.blocks} need one "
                    f"entry for each of the strides {strides}"
                )
        self._check_rate()
        return self

    def _check_voice(
        self, name: str, half: VoiceEncoderConfig | VoiceDecoderConfig, strides: list[int]
    ) -> None:
        if len(half.channels) != len(half.blocks):
            raise ValueError(
                f"{name}.channels {half.channels} and {name}.blocks {half.blocks} differ in "
                "length: each has one entry a stride"
            )
        if not self.causal:
            raise ValueError(f"{name}.kind: a voice is causal; leave causal: false out")
        hop = self.sample_rate / FRAMES_PER_SECOND
        if strides[0] != hop or strides[0] % 2:
            raise ValueError(
                f"{name}: the first of the strides {strides} is 5 ms for a voice, an even number "
                f"of samples: {hop:g} at {self.sample_rate} Hz"
            )

    def _check_rate(self) -> None:
        if not any(math.isclose(self.default_kbps, kbps) for kbps in self.possible_kbps()):
            rates = ", ".join(f"{kbps:g}" for kbps in self.possible_kbps())
            raise ValueError(f"default_kbps {self.default_kbps:g} is not one of {rates}")
