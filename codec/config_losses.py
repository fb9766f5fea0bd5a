"""Keys of the losses in a YAML run description."""

from typing import Literal

from pydantic import Field

from codec.config_discriminators import WindowLength
from codec.config_model import Section


class MelLossConfig(Section):
    """Multi-scale log-mel L1."""

    weight: float = Field(2.0, ge=0)
    n_ffts: list[WindowLength] = Field([32, 64, 128, 256, 512, 1024, 2048], min_length=1)
    windows_a_step: int | None = Field(None, gt=0)
    """Take turns: so many of the windows at a step, all of them one after another; none: all."""


class SpectrumLossConfig(Section):
    """Log-magnitude L1, bin by bin: tells noise from a buzz where mel filters are too wide."""

    weight: float = Field(0.0, ge=0)
    n_ffts: list[WindowLength] = Field([1024, 2048], min_length=1)
    windows_a_step: int | None = Field(None, gt=0)
    """Take turns, as the mel loss's."""
    takes: int = Field(1, ge=1, le=2)
    """2: every batch is decoded twice, with noise of its own each time, and half of what the takes
    differ by is subtracted. The loss is an energy distance then: decoded noise becomes as uneven as
    real noise is. Needs model.decoder.noise_channels."""


class WaveformLossConfig(Section):
    """Mean absolute error of samples, over the mean of the reference's."""

    weight: float = Field(0.1, ge=0)


class DisturbanceLossConfig(Section):
    """Loudness disturbance by PESQ's perceptual model, at 16 kHz or a multiple of it."""

    weight: float = Field(0.0, ge=0)
    """PESQ is no independent judge of a model that learnt from it."""
    listeners: list[Literal["wideband", "narrowband"]] = Field(
        ["wideband", "narrowband"], min_length=1
    )
    """As PESQ-wb hears, as PESQ-nb does at a telephone, or their mean."""
    start_step: int = Field(0, ge=0)
    """Left out before this step. PESQ makes level and colour equal before it compares: a decoder
    that knows nothing yet finds ways to please it that are not speech."""
    ramp_steps: int = Field(0, ge=0)
    """The weight grows to its full size over so many steps."""


class AdversarialLossConfig(Section):
    """The game against the discriminators."""

    weight: float = Field(1.0, ge=0)
    kind: Literal["hinge", "least_squares"] = "hinge"
    start_step: int = Field(0, ge=0)
    """Spectral losses alone before this step; discriminators cost nothing until then."""
    ramp_steps: int = Field(1000, ge=0)
    """The weights of both adversarial losses grow to their full size over so many steps: new
    discriminators know nothing yet."""
    every: int = Field(1, gt=0)
    """Discriminators learn at one step out of this many."""
    generator_every: int = Field(1, gt=0)
    """The generator meets them at one step out of this many. There the weights of both adversarial
    losses count so many times, so that over the run they mean what they do at 1."""
    seconds: float | None = Field(None, gt=0)
    """Discriminators hear a random piece so long of every crop; none, or no less than a crop: all
    of it."""
    items: float = Field(1.0, gt=0, le=1)
    """Discriminators hear this share of the batch's crops, at least one, drawn at every step."""


class FeatureMatchingLossConfig(Section):
    """Relative L1 of the discriminators' features; active with the adversarial loss."""

    weight: float = Field(2.0, ge=0)


class WhisperLossConfig(Section):
    """Distance of a frozen Whisper encoder's features."""

    weight: float = Field(0.0, ge=0)
    """0 leaves Whisper out: nothing is loaded."""
    model: str = "base"
    """A model name of openai-whisper, or a checkpoint's path (encoder-only ones too)."""
    layers: list[int] | None = None
    """Blocks whose outputs are compared; none: the middle and the last."""
    items: float = Field(1.0, gt=0, le=1)
    """Share of the batch that it hears, one crop at least: its encoder costs more than a step."""


class ParametersLossConfig(Section):
    """Distance of a voice's controls from what analysis found: see `codec.nn.parameters`."""

    weight: float = Field(0.0, ge=0)
    """Of all of it. More than 0: the corpus is analysed before the first step, 4 % of its duration
    on a core, once."""
    difference: float = Field(0.7, ge=0)
    """Of what the envelope changes from frame to frame, beside the envelope itself."""
    aperiodicity: float = Field(0.3, ge=0)
    voicing: float = Field(0.5, ge=0)
    f0: float = Field(0.4, ge=0)
    adversarial: float = Field(1.0, ge=0)
    """The part that the discriminator of the envelope (`discriminators.parameters`) has in the
    envelope's gradient, where regression has 1."""
    feature_matching: float = Field(1.0, ge=0)
    """Likewise of its features."""
    kind: Literal["hinge", "least_squares"] = "hinge"
    start_step: int = Field(0, ge=0)
    """Regression alone before this step."""
    wave: float = Field(0.5, ge=0)
    """The part that all losses of the wave have in the controls' gradient, where those of
    parameters have 1."""


class CommitmentLossConfig(Section):
    """Pulls the encoder's output to the codes it was given."""

    weight: float = Field(1.0, ge=0)


class CodebookLossConfig(Section):
    """Pulls gradient codebooks to what they encode (no effect on EMA codebooks)."""

    weight: float = Field(1.0, ge=0)


class LossesConfig(Section):
    """Weights of the losses; 0 switches one off."""

    mel: MelLossConfig = MelLossConfig()
    spectrum: SpectrumLossConfig = SpectrumLossConfig()
    waveform: WaveformLossConfig = WaveformLossConfig()
    disturbance: DisturbanceLossConfig = DisturbanceLossConfig()
    adversarial: AdversarialLossConfig = AdversarialLossConfig()
    feature_matching: FeatureMatchingLossConfig = FeatureMatchingLossConfig()
    whisper: WhisperLossConfig = WhisperLossConfig()
    parameters: ParametersLossConfig = ParametersLossConfig()
    commitment: CommitmentLossConfig = CommitmentLossConfig()
    codebook: CodebookLossConfig = CodebookLossConfig()

    def weights(self) -> dict[str, float]:
        """Of the losses that are not switched off, by their names."""
        return {name: loss.weight for name, loss in self if loss.weight}
