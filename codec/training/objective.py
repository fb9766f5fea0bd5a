"""What a decoded wave is judged by: losses, discriminators and the balancer, from the config."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from codec.config import Config
from codec.losses.adversarial import AdversarialLoss, feature_matching
from codec.losses.balance import Balancer, EmaBalancer, GradientBalancer, NoBalancer
from codec.losses.base import LossValue
from codec.losses.disturbance import DisturbanceLoss
from codec.losses.spectral import LogSpectrumLoss, MultiScaleMelLoss, WaveformLoss
from codec.losses.whisper import WhisperFeatureLoss
from codec.nn.discriminator import (
    DiscriminatorOutput,
    Discriminators,
    MultiPeriodDiscriminator,
    MultiScaleSTFTDiscriminator,
)
from codec.nn.light_discriminators import BandsDiscriminator, FramesDiscriminator
from codec.nn.parameter_discriminator import ParameterDiscriminator
from codec.training.pieces import random_piece

WaveLoss = Callable[[Tensor, Tensor], LossValue]


class Objective:
    """Losses of a decoded wave against the real one.

    Attributes:
        discriminators: None where no loss needs them.
        balancer: turns the losses on the decoded wave into its gradient.
        start_step: the adversarial losses take part from this step on.
    """

    def __init__(self, config: Config, device: torch.device) -> None:
        losses = config.losses
        self._wave_losses = _wave_losses(config, device)
        self._disturbance = losses.disturbance
        self._whisper_items = losses.whisper.items
        self._resting: set[str] = set()
        self._adversarial_weight = losses.adversarial.weight
        self._matching_weight = losses.feature_matching.weight
        self._game = AdversarialLoss(losses.adversarial.kind)
        self.start_step = losses.adversarial.start_step
        self._ramp_steps = losses.adversarial.ramp_steps
        self._learn_every = losses.adversarial.every
        self._meet_every = losses.adversarial.generator_every
        seconds = losses.adversarial.seconds
        self._piece = None if seconds is None else round(seconds * config.model.sample_rate)
        self._items = losses.adversarial.items
        wanted = losses.adversarial.weight > 0 or losses.feature_matching.weight > 0
        self.discriminators = build_discriminators(config).to(device) if wanted else None
        self.balancer = build_balancer(config)

    def begin_step(self, step: int) -> None:
        """Sets whose turn it is: spectral losses' windows, and weights of losses that come late."""
        for loss in self._wave_losses.values():
            if isinstance(loss, MultiScaleMelLoss | LogSpectrumLoss):
                loss.turn = step
        # Met rarely, the losses count the more (Karras et al. 2020, "lazy regularization").
        share = _share(step, self.start_step, self._ramp_steps) * self._meet_every
        if share > 0:
            self.balancer.weights["adversarial"] = share * self._adversarial_weight
            self.balancer.weights["feature_matching"] = share * self._matching_weight
        share = _share(step, self._disturbance.start_step, self._disturbance.ramp_steps)
        self._resting = set() if share > 0 else {"disturbance"}
        if share > 0:
            self.balancer.weights["disturbance"] = share * self._disturbance.weight

    def hears(self, step: int) -> bool:
        """Whether any loss of decoded waves takes part at this step."""
        resting = self._wave_losses.keys() <= self._resting
        return not resting or self.plays(step)

    def plays(self, step: int) -> bool:
        """Whether the discriminators take part at this step: they learn, or meet the generator."""
        return self.learns(step) or self.meets(step)

    def learns(self, step: int) -> bool:
        """Whether the discriminators learn at this step."""
        return self._is_due(step, self._learn_every)

    def meets(self, step: int) -> bool:
        """Whether the generator plays against the discriminators at this step."""
        return self._is_due(step, self._meet_every)

    def _is_due(self, step: int, every: int) -> bool:
        begun = step - self.start_step
        return self.discriminators is not None and begun >= 0 and begun % every == 0

    def heard(
        self, wave: Tensor, decoded: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """What the discriminators hear of both, (batch, 1, samples) each: see `random_piece`."""
        return random_piece(
            wave, decoded, samples=self._piece, share=self._items, generator=generator
        )

    def wave_losses(self, decoded: Tensor, wave: Tensor) -> dict[str, LossValue]:
        """Losses that need no discriminator, by name.

        Args:
            decoded: (takes * batch, 1, samples) float32, take after take; all but the spectrum loss
                judge the first of them.
            wave: (batch, 1, samples) float32.
        """
        values = {}
        for name, loss in self._wave_losses.items():
            if name in self._resting:
                continue
            heard = len(wave)
            if name == "whisper":  # crops are random: the first ones are as good as any
                heard = max(round(self._whisper_items * heard), 1)
            fake = decoded if name == "spectrum" else decoded[:heard]
            values[name] = loss(fake, wave[:heard])
        return values

    def generator_losses(
        self, real: DiscriminatorOutput, fake: DiscriminatorOutput
    ) -> dict[str, LossValue]:
        """Adversarial and feature-matching losses, by name."""
        losses = {}
        if self._adversarial_weight > 0:
            losses["adversarial"] = self._game.generator(fake.logits)
        if self._matching_weight > 0:
            losses["feature_matching"] = feature_matching(real.features, fake.features)
        return losses

    def discriminator_loss(self, real: DiscriminatorOutput, fake: DiscriminatorOutput) -> LossValue:
        """What the discriminators minimise."""
        return self._game.discriminator(real.logits, fake.logits)


def _share(step: int, start_step: int, ramp_steps: int) -> float:
    """Of a weight that grows over `ramp_steps` from `start_step` on; 0 or less before."""
    return min((step - start_step + 1) / max(ramp_steps, 1), 1.0)


def build_discriminators(config: Config) -> Discriminators:
    """The discriminators of waves that the config names, freshly initialised."""
    judges = config.discriminators
    chosen: list[nn.Module] = []
    if stft := judges.stft:
        chosen.append(
            MultiScaleSTFTDiscriminator(n_ffts=tuple(stft.n_ffts), channels=stft.channels)
        )
    if period := judges.period:
        chosen.append(
            MultiPeriodDiscriminator(periods=tuple(period.periods), channels=period.channels)
        )
    if bands := judges.bands:
        chosen += [
            BandsDiscriminator(n_fft=n_fft, channels=bands.channels) for n_fft in bands.n_ffts
        ]
    if frames := judges.frames:
        chosen += [
            FramesDiscriminator(n_fft=n_fft, channels=frames.channels, groups=frames.groups)
            for n_fft in frames.n_ffts
        ]
    return Discriminators(chosen)


def build_parameter_discriminator(config: Config) -> ParameterDiscriminator | None:
    """The discriminator of parameters that the config names, freshly initialised; None: none."""
    judge = config.discriminators.parameters
    return None if judge is None else ParameterDiscriminator(channels=judge.channels)


def build_balancer(config: Config) -> Balancer:
    """The balancer that the config names, over the losses on the decoded wave."""
    losses = config.losses
    weights = {
        "mel": losses.mel.weight,
        "spectrum": losses.spectrum.weight,
        "waveform": losses.waveform.weight,
        "disturbance": losses.disturbance.weight,
        "whisper": losses.whisper.weight,
        "adversarial": losses.adversarial.weight,
        "feature_matching": losses.feature_matching.weight,
    }
    balancer = config.balancer
    if balancer.kind == "ema":
        return EmaBalancer(weights, decay=balancer.decay)
    if balancer.kind == "gradient":
        return GradientBalancer(weights, decay=balancer.decay, total_norm=balancer.total_norm)
    return NoBalancer(weights)


def _wave_losses(config: Config, device: torch.device) -> dict[str, WaveLoss]:
    losses, sample_rate = config.losses, config.model.sample_rate
    chosen: dict[str, WaveLoss] = {}
    if losses.mel.weight > 0:
        mel = MultiScaleMelLoss(
            sample_rate=sample_rate,
            n_ffts=tuple(losses.mel.n_ffts),
            windows_a_turn=losses.mel.windows_a_step,
        )
        chosen["mel"] = mel.to(device)
    if losses.spectrum.weight > 0:
        chosen["spectrum"] = LogSpectrumLoss(
            n_ffts=tuple(losses.spectrum.n_ffts), windows_a_turn=losses.spectrum.windows_a_step
        )
    if losses.waveform.weight > 0:
        chosen["waveform"] = WaveformLoss()
    if losses.disturbance.weight > 0:
        disturbance = DisturbanceLoss(
            sample_rate=sample_rate, listeners=tuple(losses.disturbance.listeners)
        )
        chosen["disturbance"] = disturbance.to(device)
    if losses.whisper.weight > 0:
        whisper = WhisperFeatureLoss(
            model=losses.whisper.model,
            sample_rate=sample_rate,
            layers=tuple(losses.whisper.layers) if losses.whisper.layers else None,
        )
        chosen["whisper"] = whisper.to(device)
    return chosen
