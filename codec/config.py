"""Every key a YAML run description may have: typed, documented, checked.

The model's own keys are in `codec.config_model`, the discriminators' in
`codec.config_discriminators`, those of losses in `codec.config_losses`, those of what is measured
on the way in `codec.config_validation`; reading files, `base:` and command-line overrides live in
`codec.config_files`.
"""

import math
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from codec.config_discriminators import DiscriminatorsConfig
from codec.config_losses import LossesConfig
from codec.config_model import ConvNeXtConfig, ModelConfig, Section, VoiceDecoderConfig
from codec.config_validation import ValidationConfig

Beta = Annotated[float, Field(ge=0, lt=1)]


class CodebooksConfig(Section):
    """How codebooks learn. Nothing here changes what a model file can decode."""

    learning: Literal["ema", "gradient"] = "ema"
    decay: float = Field(0.99, ge=0, lt=1)
    """Of the moving averages that EMA codebooks are made of."""
    dropout: float = Field(0.5, ge=0, le=1)
    """Share of training items that use a random number of codebooks instead of all."""
    start_step: int = Field(0, ge=0)
    """Before this step the decoder hears the latent itself: the autoencoder learns what is worth
    coding before codebooks are fitted to it."""
    continuous: float = Field(0.0, ge=0, le=1)
    """Share of training items that the decoder hears unquantized after that."""
    revive_every: int = Field(200, ge=0)
    """Steps between two runs of frozen k-means on dead codes; 0: never."""
    revive_until: int | None = Field(None, ge=0)
    """Last step that may revive codes; none: the end."""
    kmeans_iterations: int = Field(10, gt=0)
    cache_vectors: int = Field(8192, gt=0)
    """Recent vectors a codebook keeps for k-means, per process."""


class DataConfig(Section):
    """Where training audio comes from and how it is cut."""

    source: Literal["files", "random", "fixed"] = "files"
    """files: audio under `path`. random: noise. fixed: a few synthetic clips (smoke tests)."""
    path: str | list[str] = "corpus"
    """Folders of audio or JSON-lines manifests."""
    valid_path: str | list[str] | None = None
    """Held-out audio. None: the `valid` split of `path`, made of 5 % of it if there is none."""
    segment_samples: int = Field(16000, gt=0)
    """Length of a training crop in samples; a multiple of the hop length."""
    batch_size: int = Field(16, gt=0)
    """Crops per step and process."""
    workers: int = Field(2, ge=0)
    """Processes that read audio; 0 reads in the training process."""
    gain_db: list[float] = Field([-6.0, 6.0], min_length=2, max_length=2)
    """Random gain of a crop, lowest and highest, in dB."""
    silence_db: float = -50.0
    """Crops whose RMS lies below this (dB full scale) are drawn again."""
    cache_mb: int = Field(256, ge=0)
    """Decoded audio each worker keeps, in MB; 0: none."""
    parameters: str | None = None
    """Folder for the parameters of voices that `losses.parameters` learns by; none: beside each
    corpus, in `.sotto-parameters`."""

    @field_validator("gain_db")
    @classmethod
    def _ordered(cls, gain_db: list[float]) -> list[float]:
        if gain_db[0] > gain_db[1]:
            raise ValueError(f"lowest gain first, such as {sorted(gain_db)}")
        return gain_db


class BalancerConfig(Section):
    """How the losses on the decoded waveform share its gradient."""

    kind: Literal["ema", "gradient", "none"] = "gradient"
    """ema: each loss over its moving average. gradient: each loss gets its weight's share of the
    gradient's norm. none: plain weights."""
    decay: float = Field(0.999, ge=0, lt=1)
    total_norm: float = Field(1.0, gt=0)
    """Norm of the combined gradient, kind `gradient` only."""


class OptimizerConfig(Section):
    """AdamW for both sides."""

    learning_rate: float = Field(3e-4, gt=0)
    discriminator_learning_rate: float = Field(3e-4, gt=0)
    betas: list[Beta] = Field([0.8, 0.99], min_length=2, max_length=2)
    weight_decay: float = Field(0.0, ge=0)
    warmup_steps: int = Field(500, ge=0)
    """Linear from 0."""
    final_factor: float = Field(0.05, ge=0, le=1)
    """Cosine down to this share of the learning rate at the last step."""
    decay_steps: int | None = Field(None, gt=0)
    """Steps at the end that the cosine takes, the rate being held before; none: all. A run whose
    rate is still held can be resumed with more or fewer `training.steps`."""
    clip_norm: float = Field(10.0, gt=0)
    """Generator gradients are scaled down to this norm."""
    discriminator_clip_norm: float = Field(10.0, gt=0)


class TrainingConfig(Section):
    """How long, how exactly, and what is kept."""

    steps: int = Field(100_000, gt=0)
    max_minutes: float | None = Field(None, gt=0)
    """Stop, saved and resumable, after this much wall time; none: run to the last step."""
    mixed_precision: Literal["no", "bf16", "auto"] = "no"
    """auto: bf16 where the hardware computes in it, no elsewhere: emulated it is slower by far."""
    ema_decay: float = Field(0.999, ge=0, lt=1)
    """Of the generator's weights that are validated and exported."""
    freeze_step: int | None = Field(None, ge=0)
    """Second stage: encoder and quantizer stay as they are from this step on; none: never."""
    initial_model: str | None = None
    """A model file whose weights to start from. ConvNeXt blocks may be more than the file's: the
    deeper model begins as good as it."""
    max_nonfinite_steps: int = Field(20, gt=0)
    """So many skipped steps end the run: in a row, or nearly."""
    checkpoint_every: int = Field(1000, gt=0)
    keep_checkpoints: int = Field(3, gt=0)
    """The last few; the best by `validation.best_by` is kept as well."""
    log_every: int = Field(20, gt=0)

    @field_validator("mixed_precision", mode="before")
    @classmethod
    def _no_means_no(cls, value: object) -> object:
        # YAML takes an unquoted `no` for False.
        return "no" if value is False else value


class Config(Section):
    """A run."""

    name: str = Field("run", min_length=1, pattern=r"^[A-Za-z0-9_][\w.-]*$")
    """Names the run's folder under `output`."""
    output: str = "runs"
    seed: int = Field(0, ge=0)
    threads: int | None = Field(None, gt=0)
    """CPU threads of the training process; none: torch's choice."""
    model: ModelConfig = ModelConfig()
    codebooks: CodebooksConfig = CodebooksConfig()
    data: DataConfig = DataConfig()
    discriminators: DiscriminatorsConfig = DiscriminatorsConfig()
    losses: LossesConfig = LossesConfig()
    balancer: BalancerConfig = BalancerConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    training: TrainingConfig = TrainingConfig()
    validation: ValidationConfig = ValidationConfig()

    def validation_kbps(self) -> list[float]:
        """Rates to score in validation, in kbit/s, lowest first."""
        if self.validation.kbps is not None:
            return sorted(self.validation.kbps)
        possible = self.model.possible_kbps()
        half = min(possible, key=lambda kbps: abs(kbps - self.model.default_kbps / 2))
        return sorted({half, self.model.default_kbps})

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        segment, hop = self.data.segment_samples, self.model.hop_length
        if segment % hop:
            near = max(round(segment / hop), 1) * hop
            raise ValueError(
                f"data.segment_samples {segment} is no multiple of model.hop_length {hop}; "
                f"{near} would do"
            )
        possible = self.model.possible_kbps()
        for kbps in self.validation.kbps or []:
            if not any(math.isclose(kbps, rate) for rate in possible):
                rates = ", ".join(f"{rate:g}" for rate in possible)
                raise ValueError(f"validation.kbps {kbps:g} is not one of {rates}")
        self._check_losses()
        self._check_targets()
        return self

    def _check_targets(self) -> None:
        """That there is something to learn from, and something that can."""
        losses = self.losses
        if losses.parameters.weight and not isinstance(self.model.decoder, VoiceDecoderConfig):
            raise ValueError(
                "losses.parameters needs a decoder that has them: set model.decoder.kind: voice, "
                "or losses.parameters.weight to 0"
            )
        if not (losses.mel.weight or losses.waveform.weight or losses.parameters.weight):
            raise ValueError(
                "losses.mel.weight, losses.waveform.weight and losses.parameters.weight are all 0; "
                "one must be positive"
            )
        parameters, judge = losses.parameters, self.discriminators.parameters
        if (
            parameters.weight
            and (parameters.adversarial or parameters.feature_matching)
            and not judge
        ):
            raise ValueError(
                "discriminators.parameters is null, but losses.parameters.adversarial or "
                "feature_matching is positive; set both to 0, or discriminators.parameters to {}"
            )

    def _check_losses(self) -> None:
        losses = self.losses
        for name, loss in (("mel", losses.mel), ("spectrum", losses.spectrum)):
            if (at_once := loss.windows_a_step) and at_once > len(loss.n_ffts):
                raise ValueError(
                    f"losses.{name}.windows_a_step is {at_once}, but losses.{name}.n_ffts has "
                    f"{len(loss.n_ffts)} windows; leave it out to take all of them"
                )
        decoder = self.model.decoder
        noise = isinstance(decoder, ConvNeXtConfig) and decoder.noise_channels
        if losses.spectrum.takes > 1 and not (noise and losses.spectrum.weight):
            raise ValueError(
                f"losses.spectrum.takes is {losses.spectrum.takes}, for which takes have to differ "
                "and be compared: give the decoder noise (model.decoder.kind: convnext, "
                "noise_channels: 32) and losses.spectrum.weight more than 0, or leave takes out"
            )
        adversarial = losses.adversarial.weight or losses.feature_matching.weight
        if adversarial and not self.discriminators.of_waves():
            raise ValueError(
                "discriminators.stft, period, bands and frames are all null, but "
                "losses.adversarial.weight or losses.feature_matching.weight is positive; "
                "set both weights to 0 or keep a discriminator"
            )
        if losses.disturbance.weight and self.model.sample_rate % 16000:
            raise ValueError(
                f"losses.disturbance takes 16000 Hz or a multiple of it, and model.sample_rate is "
                f"{self.model.sample_rate}; set losses.disturbance.weight to 0"
            )
        seconds = self.data.segment_samples / self.model.sample_rate
        if losses.whisper.weight and not 0.025 <= seconds <= 30:
            raise ValueError(
                f"data.segment_samples {self.data.segment_samples} are {seconds:g} s, but Whisper "
                "takes 0.025 to 30 s; change it or set losses.whisper.weight to 0"
            )
        longest = max([*losses.mel.n_ffts, *self.discriminators.n_ffts()])
        if self.data.segment_samples < longest:
            raise ValueError(
                f"data.segment_samples {self.data.segment_samples} is shorter than the longest "
                f"n_fft {longest}; {math.ceil(longest / self.model.hop_length)} hops or more "
                f"({math.ceil(longest / self.model.hop_length) * self.model.hop_length}) would do"
            )
        longest = max(self.discriminators.n_ffts(), default=0)
        piece = losses.adversarial.seconds
        if piece is not None and round(piece * self.model.sample_rate) < longest:
            raise ValueError(
                f"losses.adversarial.seconds {piece:g} is shorter than the discriminators' longest "
                f"n_fft {longest}; {math.ceil(1000 * longest / self.model.sample_rate) / 1000:g} "
                "or more would do"
            )


def json_schema() -> dict[str, Any]:
    """JSON schema of a run's YAML, for editors that complete and check keys."""
    schema = Config.model_json_schema()
    schema["properties"]["base"] = {
        "type": "string",
        "description": "Another YAML, relative to this one, whose keys this one varies.",
    }
    return schema
