"""One training step, and all the state that the next one depends on."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from codec.building import build_autoencoder, inference_tensors
from codec.codec import Codec
from codec.config import Config
from codec.data.batches import Batch
from codec.nn.discriminator import DiscriminatorOutput
from codec.nn.quantizer import QuantizerOutput
from codec.nn.voice_halves import VoiceDecoder
from codec.training.averaging import WeightAverage
from codec.training.initial import load_weights
from codec.training.objective import Objective
from codec.training.processes import average_gradients, begin_alike
from codec.training.schedule import learning_rate_factor
from codec.training.voice import VoiceObjective
from codec.training.voice_start import begin_linear_paths


@dataclass
class StepReport:
    """What one step did.

    Attributes:
        scalars: values for the log by TensorBoard tag, tensors of one element or numbers.
        skipped: the update was left out because something was not finite.
    """

    scalars: dict[str, Tensor | float] = field(default_factory=dict)
    skipped: bool = False


class Learner:
    """Autoencoder, discriminators and their optimizers.

    `state_dict()` is what all processes share, `rank_state()` what each has for itself; with both
    and the step, training goes on as if it had never stopped.

    Args:
        config: the run.
        accelerator: device, precision and processes.
        initial_model: a model file whose weights to start from; none: random ones.

    Raises:
        ConfigError: the model file has another architecture.
        ModelFileError: it is missing, foreign or damaged.
    """

    def __init__(
        self, config: Config, accelerator: Accelerator, initial_model: str | None = None
    ) -> None:
        self.config = config
        self.accelerator = accelerator
        device = accelerator.device
        torch.manual_seed(config.seed)
        self.model = build_autoencoder(config.model, config.codebooks).to(device)
        if initial_model is not None:
            load_weights(self.model, initial_model, config.model)
        self.objective = Objective(config, device)
        decoder = self.model.decoder
        self.voice = (
            VoiceObjective(config, decoder, device)
            if isinstance(decoder, VoiceDecoder) and config.losses.parameters.weight > 0
            else None
        )
        of_voice = self.voice.discriminator if self.voice else None
        judges: list[nn.Module | None] = [self.objective.discriminators, of_voice]
        playing = [judge for judge in judges if judge is not None]
        self.discriminators = nn.ModuleList(playing) if playing else None
        begin_alike(self.model)
        if self.discriminators is not None:
            begin_alike(self.discriminators)
        optimizer = config.optimizer
        self.optimizer = _adamw(self.model, optimizer.learning_rate, config)
        self.discriminator_optimizer = (
            _adamw(self.discriminators, optimizer.discriminator_learning_rate, config)
            if self.discriminators is not None
            else None
        )
        self.average = WeightAverage(self.model, decay=config.training.ema_decay)
        # Draws quantizer dropout, k-means seeds and the pieces that discriminators hear: another
        # stream in every process.
        self.generator = torch.Generator().manual_seed(
            config.seed * 1_000_003 + accelerator.process_index
        )

    def begin_voice(self, batches: Sequence[Batch]) -> float:
        """Begins the linear paths of a new voice, and its codebooks; see `begin_linear_paths`.

        Returns what the latent's components leave unexplained, 0 to 1.
        """
        unexplained = begin_linear_paths(self.model, batches)
        begin_alike(self.model)
        with torch.no_grad():
            latent = torch.cat([self.model.encoder(batch.wave) for batch in batches])
        self.model.quantizer.fit(latent, generator=self.generator)
        self.average = WeightAverage(self.model, decay=self.config.training.ema_decay)
        return unexplained

    def step(self, step: int, batch: Batch) -> StepReport:
        """Learns from one batch.

        Args:
            step: 0 for the first of the run; decides learning rates, stages and revivals.
            batch: waves, and parameters of their voices where a loss learns by them.
        """
        self._begin_step(step)
        report = StepReport()
        with self.accelerator.autocast():
            latent, quantizer = self._latent(step, batch.wave)
        if self.voice is None:
            takes = self.config.losses.spectrum.takes
            with self.accelerator.autocast():
                output = self.model.decode(latent, batch.wave, takes=takes).float()
            gradient = self._judge_waves(step, output, batch.wave, report)
        else:
            output, gradient = self._judge_controls(self.voice, step, latent, batch, report)
        self._backward(output, gradient, quantizer, report)
        self._update(report)
        return report

    def _latent(self, step: int, wave: Tensor) -> tuple[Tensor, QuantizerOutput | None]:
        """What the decoder hears: the latent itself at first, then what codes say of it."""
        latent = self.model.encoder(wave)
        if step < self.config.codebooks.start_step:
            return latent, None
        quantized = self.model.quantizer(latent, generator=self.generator)
        return quantized.quantized, quantized

    def _judge_controls(
        self, voice: VoiceObjective, step: int, latent: Tensor, batch: Batch, report: StepReport
    ) -> tuple[Tensor, Tensor]:
        """Controls of the latent, and their gradient by parameters and by the wave they make."""
        assert isinstance(self.model.decoder, VoiceDecoder) and batch.parameters is not None
        with self.accelerator.autocast():
            controls = self.model.decoder.controls(latent)
        controls = controls.float()
        judged = voice.judge(step, controls, batch.parameters)
        report.scalars |= judged.scalars
        gradient = judged.gradient
        if judged.skipped:
            gradient = torch.full_like(gradient, math.nan)
        if self.objective.hears(step):
            leaf = controls.detach().requires_grad_()
            decoded = self.model.decoder.wave(leaf)
            of_wave = self._judge_waves(step, decoded, batch.wave, report)
            gradient = voice.join(gradient, torch.autograd.grad(decoded, leaf, of_wave)[0])
        return controls, gradient

    def _judge_waves(self, step: int, decoded: Tensor, wave: Tensor, report: StepReport) -> Tensor:
        """The gradient of decoded waves (takes * batch, 1, samples); discriminators learn."""
        with self.accelerator.autocast():  # of use to Whisper; spectra are float32 all the same
            losses = self.objective.wave_losses(decoded, wave)
        real = fake = None
        if self.objective.plays(step):
            real, fake = self._judge(step, wave, decoded[: len(wave)])
            if self.objective.meets(step):
                losses |= self.objective.generator_losses(real, fake)
        gradient, balance = self.objective.balancer.gradient(
            {name: loss.total for name, loss in losses.items()}, decoded
        )
        if balance.skipped:
            gradient.fill_(math.nan)  # averaged over processes, it makes all of them skip
        if real is not None and fake is not None and self.objective.learns(step):
            loss = self.objective.discriminator_loss(real, fake)
            assert self.objective.discriminators is not None
            loss.total.backward(inputs=list(self.objective.discriminators.parameters()))
            losses["discriminator"] = loss
        for name, loss in losses.items():
            report.scalars[f"loss/{name}"] = loss.total.detach()
            report.scalars |= {f"loss_{name}/{part}": v for part, v in loss.parts.items()}
        report.scalars |= {f"balanced/{name}": v for name, v in balance.balanced.items()}
        report.scalars |= {f"share/{name}": v for name, v in balance.share.items()}
        return gradient

    def revival_is_due(self, step: int) -> bool:
        """Whether dead codes are to be revived after `step` completed steps."""
        codebooks = self.config.codebooks
        if not codebooks.revive_every or step % codebooks.revive_every:
            return False
        if step <= codebooks.start_step:
            return False
        late = codebooks.revive_until is not None and step > codebooks.revive_until
        return not late and not self.model.encoder_frozen

    def revive_dead_codes(self) -> int:
        """Replaces dead codes by frozen k-means; returns how many."""
        codebooks = self.config.codebooks
        revival = self.model.quantizer.revive_dead_codes(
            iterations=codebooks.kmeans_iterations, generator=self.generator
        )
        if codebooks.learning == "gradient":
            self.model.quantizer.reset_moments(self.optimizer, revival)
        return revival.total

    def codec(self) -> Codec:
        """The model as it would ship: averaged weights, folded."""
        with self.average.applied(self.model):
            return Codec(self.config.model, inference_tensors(self.model), self.accelerator.device)

    def is_finite(self) -> bool:
        """Whether all weights are; all processes have the same."""
        return all(bool(torch.isfinite(p).all()) for p in self.model.parameters())

    def state_dict(self) -> dict[str, Any]:
        """State that is the same in all processes."""
        return {
            "model": _without_statistics(self.model),
            "optimizer": self.optimizer.state_dict(),
            "discriminators": self.discriminators.state_dict() if self.discriminators else None,
            "discriminator_optimizer": (
                self.discriminator_optimizer.state_dict() if self.discriminator_optimizer else None
            ),
            "balancer": self.objective.balancer.state_dict(),
            "voice": self.voice.state_dict() if self.voice else None,
            "average": self.average.state_dict(),
            "encoder_frozen": self.model.encoder_frozen,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from `state_dict()`."""
        self.model.load_state_dict(state["model"], strict=False)
        self.optimizer.load_state_dict(state["optimizer"])
        if self.discriminators is not None and state["discriminators"] is not None:
            assert self.discriminator_optimizer is not None
            self.discriminators.load_state_dict(state["discriminators"])
            self.discriminator_optimizer.load_state_dict(state["discriminator_optimizer"])
        self.objective.balancer.load_state_dict(state["balancer"])
        if self.voice is not None and state["voice"] is not None:
            self.voice.load_state_dict(state["voice"])
        self.average.load_state_dict(state["average"])
        if state["encoder_frozen"]:
            self.model.freeze_encoder()

    def rank_state(self) -> dict[str, Any]:
        """State of this process alone: quantizer statistics with their caches, random states."""
        statistics = {
            name: tensor
            for name, tensor in self.model.state_dict().items()
            if ".statistics." in name
        }
        random = {"generator": self.generator.get_state(), "torch": torch.get_rng_state()}
        if torch.cuda.is_available():
            random["cuda"] = torch.cuda.get_rng_state()
        return {"statistics": statistics, "random": random}

    def load_rank_state(self, state: dict[str, Any]) -> None:
        """Goes on from `rank_state()`."""
        self.model.load_state_dict(state["statistics"], strict=False)
        self.generator.set_state(state["random"]["generator"])
        torch.set_rng_state(state["random"]["torch"])
        if torch.cuda.is_available() and "cuda" in state["random"]:
            torch.cuda.set_rng_state(state["random"]["cuda"])

    def learning_rates(self) -> dict[str, float]:
        """Of the step that was last begun, by TensorBoard tag."""
        rates = {"learning_rate/generator": self.optimizer.param_groups[0]["lr"]}
        if self.discriminator_optimizer is not None:
            rates["learning_rate/discriminator"] = self.discriminator_optimizer.param_groups[0][
                "lr"
            ]
        return rates

    def _begin_step(self, step: int) -> None:
        training, optimizer = self.config.training, self.config.optimizer
        self.model.train()
        self.objective.begin_step(step)
        if training.freeze_step is not None and step >= training.freeze_step:
            self._freeze()
        starts = [self.objective.start_step] if self.objective.discriminators else []
        starts += [self.voice.config.start_step] if self.voice and self.voice.discriminator else []
        start = min(starts, default=0)
        for side, rate, begun in (
            (self.optimizer, optimizer.learning_rate, 0),
            (self.discriminator_optimizer, optimizer.discriminator_learning_rate, start),
        ):
            if side is not None:
                factor = learning_rate_factor(
                    max(step - begun, 0),
                    warmup_steps=optimizer.warmup_steps,
                    steps=max(training.steps - begun, 1),
                    final_factor=optimizer.final_factor,
                    decay_steps=optimizer.decay_steps,
                )
                side.param_groups[0]["lr"] = rate * factor
                side.zero_grad(set_to_none=True)

    def _freeze(self) -> None:
        if not self.model.encoder_frozen:
            # What ships is the average: the decoder's second stage must hear that encoder.
            self.average.copy_to(self.model)
            self.model.freeze_encoder()

    def _judge(
        self, step: int, wave: Tensor, decoded: Tensor
    ) -> tuple[DiscriminatorOutput, DiscriminatorOutput]:
        """One pass over each batch, which serves both players and feature matching."""
        assert self.objective.discriminators is not None
        wave, decoded = self.objective.heard(wave, decoded, self.generator)
        with self.accelerator.autocast():
            with torch.set_grad_enabled(self.objective.learns(step)):
                real = self.objective.discriminators(wave)
            fake = self.objective.discriminators(decoded)
        return real, fake

    def _backward(
        self,
        decoded: Tensor,
        gradient: Tensor,
        quantizer: QuantizerOutput | None,
        report: StepReport,
    ) -> None:
        if quantizer is None:
            decoded.backward(gradient)
            return
        losses = self.config.losses
        extra = (
            losses.commitment.weight * quantizer.commitment
            + losses.codebook.weight * quantizer.codebook_loss
        )
        for name, value, weight in (
            ("commitment", quantizer.commitment, losses.commitment.weight),
            ("codebook", quantizer.codebook_loss, losses.codebook.weight),
        ):
            report.scalars[f"loss/{name}"] = value.detach()
            report.scalars[f"balanced/{name}"] = weight * value.detach()
        if extra.requires_grad:
            torch.autograd.backward([decoded, extra], [gradient, None])
        else:
            decoded.backward(gradient)

    def _update(self, report: StepReport) -> None:
        """Both optimizers' steps, or neither where a gradient is not finite."""
        optimizer = self.config.optimizer
        sides: list[tuple[str, nn.Module, torch.optim.AdamW, float]] = [
            ("generator", self.model, self.optimizer, optimizer.clip_norm)
        ]
        if self.discriminators is not None and self.discriminator_optimizer is not None:
            sides.append(
                (
                    "discriminator",
                    self.discriminators,
                    self.discriminator_optimizer,
                    optimizer.discriminator_clip_norm,
                )
            )
        for name, module, _, clip in sides:
            parameters = [p for p in module.parameters() if p.grad is not None]
            if parameters:
                average_gradients(parameters)
                norm = nn.utils.clip_grad_norm_(parameters, clip)
                report.scalars[f"gradient_norm/{name}"] = norm
                report.skipped |= not math.isfinite(float(norm))
        if not report.skipped:
            for _, _, side, _ in sides:
                side.step()
            self.average.update(self.model)


def _adamw(module: nn.Module, learning_rate: float, config: Config) -> torch.optim.AdamW:
    optimizer = config.optimizer
    return torch.optim.AdamW(
        module.parameters(),
        lr=learning_rate,
        betas=(optimizer.betas[0], optimizer.betas[1]),
        weight_decay=optimizer.weight_decay,
        fused=True,  # one pass over each tensor: a third of the time on a CPU
    )


def _without_statistics(model: nn.Module) -> dict[str, Tensor]:
    return {
        name: tensor for name, tensor in model.state_dict().items() if ".statistics." not in name
    }
