"""Keys of the discriminators in a YAML run description."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from codec.config_model import PositiveInt, Section

WindowLength = Annotated[int, Field(ge=16, multiple_of=4)]


class STFTDiscriminatorConfig(Section):
    """Multi-scale complex STFT discriminator (Défossez et al. 2022)."""

    n_ffts: list[WindowLength] = Field([1024, 2048, 512], min_length=1)
    channels: int = Field(16, gt=0)


class PeriodDiscriminatorConfig(Section):
    """Multi-period discriminator (Kong et al. 2020)."""

    periods: list[PositiveInt] = Field([2, 3, 5, 7, 11], min_length=1)
    channels: int = Field(16, gt=0)


class BandsDiscriminatorConfig(Section):
    """Images of the compressed STFT, with strides in frequency from the first layer on: cheap."""

    n_ffts: list[WindowLength] = Field([1024, 512, 256], min_length=1)
    channels: int = Field(8, gt=0)
    """Of the first layer; twice as many in the second, four times from the third on."""


class FramesDiscriminatorConfig(Section):
    """Compressed STFT magnitudes, bins as channels of convolutions in time: cheapest."""

    n_ffts: list[WindowLength] = Field([1024, 512, 256], min_length=1)
    channels: int = Field(128, gt=0)
    groups: int = Field(4, gt=0)
    """Of channels that do not see one another between the first layer and the last."""

    @model_validator(mode="after")
    def _whole_groups(self) -> Self:
        if self.channels % self.groups:
            raise ValueError(
                f"channels {self.channels} do not fall into {self.groups} groups; "
                f"{-(-self.channels // self.groups) * self.groups} would"
            )
        return self


class ParameterDiscriminatorConfig(Section):
    """The envelope that a decoder of parameters tells, as an image."""

    channels: int = Field(16, gt=0)
    """Of the first layer; the others have twice as many."""


class DiscriminatorsConfig(Section):
    """Who tells real from decoded; null switches one off."""

    stft: STFTDiscriminatorConfig | None = STFTDiscriminatorConfig()
    period: PeriodDiscriminatorConfig | None = None
    bands: BandsDiscriminatorConfig | None = None
    frames: FramesDiscriminatorConfig | None = None
    parameters: ParameterDiscriminatorConfig | None = None
    """Judges no wave: for a decoder that gives parameters."""

    def of_waves(self) -> list[Section]:
        """Those that judge waves and are on."""
        every = (self.stft, self.period, self.bands, self.frames)
        return [judge for judge in every if judge is not None]

    def n_ffts(self) -> list[int]:
        """Window lengths of those that judge spectra, in samples."""
        spectral = (self.stft, self.bands, self.frames)
        return [n_fft for judge in spectral if judge is not None for n_fft in judge.n_ffts]
