"""One training step of Sotto against one of encodec 0.1.1's own modules, at equal sizes.

    pip install -e '.[benchmarks]'
    nice python -m benchmarks.training_step --steps 5 --threads 2

Both sides: SEANet of 32 channels and 128 dimensions, 8 codebooks of 1024, five STFT
discriminators of 32 channels, the same losses, balancer and optimizer on the same batch.

encodec publishes modules and no training. Its step here is audiocraft's: discriminators on real
and decoded waves, their backward pass and update, then again on both, frozen, for the generator.
Sotto's runs them once on each and uses the pass for both players (`codec/training/learner.py`).
encodec's autoencoder has two LSTM layers a side unless told otherwise, Sotto's none: so encodec is
timed with and without.

The sides take turns within a round, and only ratios are printed: the median over rounds of the
ratio within a round, so that whatever else the machine does falls on both. They are of CPU time,
which a busy machine disturbs less than the clock.
"""

import os

# Threads that wait should sleep: spinning ones triple a step's time on a shared machine.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import argparse
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from encodec.modules import SEANetDecoder as EncodecDecoder
from encodec.modules import SEANetEncoder as EncodecEncoder
from encodec.msstftd import MultiScaleSTFTDiscriminator as EncodecDiscriminators
from encodec.quantization.vq import ResidualVectorQuantizer as EncodecQuantizer
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor, nn

from codec.losses.adversarial import AdversarialLoss, feature_matching
from codec.losses.balance import Balancer, EmaBalancer, GradientBalancer, NoBalancer
from codec.losses.spectral import MultiScaleMelLoss, WaveformLoss
from codec.nn.discriminator import DiscriminatorOutput, MultiScaleSTFTDiscriminator
from codec.nn.quantizer import ResidualVectorQuantizer
from codec.nn.seanet import SEANetDecoder, SEANetEncoder

STRIDES = (2, 4, 5, 8)
DIMENSION = 128
N_QUANTIZERS = 8
CODEBOOK_SIZE = 1024
N_FFTS = (1024, 2048, 512, 256, 128)
KERNEL_SIZE = 7
WEIGHTS = {"mel": 2.0, "waveform": 0.1, "adversarial": 4.0, "feature_matching": 4.0}
BALANCERS: dict[str, Callable[[dict[str, float]], Balancer]] = {
    "none": NoBalancer,
    "ema": EmaBalancer,
    "gradient": GradientBalancer,
}
SECTIONS = (
    "encoder",
    "quantizer",
    "decoder",
    "D forward",
    "D forward again",
    "D backward",
    "losses",
    "back to the wave",
    "back to the input",
    "optimizers",
)


Key = tuple[str, str]  # side and precision
Timing = dict[str, float]  # CPU seconds by section, of "all" of them, and by the "wall" clock


@dataclass(frozen=True)
class Sizes:
    """What both sides have in common."""

    channels: int
    units: int
    sample_rate: int
    balancer: str
    precision: str

    @property
    def dilations(self) -> tuple[int, ...]:
        """Of each stage's residual units: 1, 3, 9, ..."""
        return tuple(3**i for i in range(self.units))


class Stopwatch:
    """Adds up CPU seconds of all threads by section."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    @contextmanager
    def section(self, name: str) -> Iterator[None]:
        """Times what is inside."""
        start = time.process_time()
        yield
        self.seconds[name] += time.process_time() - start


class Side:
    """One of the competitors: modules, losses and optimizers."""

    def __init__(
        self,
        sizes: Sizes,
        encoder: nn.Module,
        quantizer: nn.Module,
        decoder: nn.Module,
        discriminators: nn.Module,
    ) -> None:
        self.sizes = sizes
        self.encoder, self.quantizer, self.decoder = encoder, quantizer, decoder
        self.discriminators = discriminators
        self.mel = MultiScaleMelLoss(sample_rate=sizes.sample_rate)
        self.waveform = WaveformLoss()
        self.game = AdversarialLoss("hinge")
        self.balancer = BALANCERS[sizes.balancer](WEIGHTS)
        generator = [*encoder.parameters(), *decoder.parameters(), *quantizer.parameters()]
        self.optimizer = torch.optim.Adam(generator, 3e-4, (0.5, 0.9))
        self.discriminator_optimizer = torch.optim.Adam(
            discriminators.parameters(), 3e-4, (0.5, 0.9)
        )

    def autocast(self) -> torch.autocast:
        """bf16 where asked for; the quantizers and losses run in fp32 on both sides."""
        return torch.autocast("cpu", torch.bfloat16, enabled=self.sizes.precision == "bf16")

    def quantize(self, latent: Tensor) -> tuple[Tensor, Tensor]:
        """Quantized latent and commitment loss, from the latent in fp32."""
        raise NotImplementedError

    def judge(self, wave: Tensor) -> DiscriminatorOutput:
        """The discriminators' logits and features."""
        with self.autocast():
            return self.discriminators(wave)

    def adversarial_step(self, wave: Tensor, decoded: Tensor, watch: Stopwatch) -> Tensor:
        """Updates the discriminators; returns the gradient of all losses at `decoded`."""
        raise NotImplementedError

    def step(self, wave: Tensor, watch: Stopwatch) -> None:
        """One update of the generator and of the discriminators."""
        with watch.section("encoder"), self.autocast():
            latent = self.encoder(wave)
        with watch.section("quantizer"):
            quantized, commitment = self.quantize(latent.float())
        with watch.section("decoder"):
            with self.autocast():
                decoded = self.decoder(quantized)
            decoded = decoded.float()
        gradient = self.adversarial_step(wave, decoded, watch)
        with watch.section("back to the input"):
            self.optimizer.zero_grad()
            torch.autograd.backward([decoded, commitment], [gradient, None])
        with watch.section("optimizers"):
            self.optimizer.step()

    def wave_gradient(
        self,
        wave: Tensor,
        decoded: Tensor,
        real: DiscriminatorOutput,
        fake: DiscriminatorOutput,
        watch: Stopwatch,
    ) -> Tensor:
        """Gradient of the balanced losses at the decoded wave."""
        with watch.section("losses"):
            losses = {
                "mel": self.mel(decoded, wave).total,
                "waveform": self.waveform(decoded, wave).total,
                "adversarial": self.game.generator(fake.logits).total,
                "feature_matching": feature_matching(real.features, fake.features).total,
            }
        with watch.section("back to the wave"):
            gradient, _ = self.balancer.gradient(losses, decoded)
        return gradient


class Sotto(Side):
    """Sotto's modules, with one pass of the discriminators over each batch."""

    def __init__(self, sizes: Sizes) -> None:
        seanet: dict[str, Any] = {
            "channels": sizes.channels,
            "dimension": DIMENSION,
            "strides": STRIDES,
            "kernel_size": KERNEL_SIZE,
            "last_kernel_size": KERNEL_SIZE,
            "dilations": sizes.dilations,
        }
        super().__init__(
            sizes,
            SEANetEncoder(**seanet),
            ResidualVectorQuantizer(
                dimension=DIMENSION,
                n_quantizers=N_QUANTIZERS,
                codebook_size=CODEBOOK_SIZE,
                dropout=0.0,
            ),
            SEANetDecoder(**seanet),
            MultiScaleSTFTDiscriminator(n_ffts=N_FFTS, channels=sizes.channels),
        )

    def quantize(self, latent: Tensor) -> tuple[Tensor, Tensor]:
        """See `Side`."""
        output = self.quantizer(latent)
        return output.quantized, output.commitment

    def adversarial_step(self, wave: Tensor, decoded: Tensor, watch: Stopwatch) -> Tensor:
        """See `Side`."""
        with watch.section("D forward"):
            real, fake = self.judge(wave), self.judge(decoded)
        gradient = self.wave_gradient(wave, decoded, real, fake, watch)
        with watch.section("losses"):
            loss = self.game.discriminator(real.logits, fake.logits).total
        with watch.section("D backward"):
            self.discriminator_optimizer.zero_grad()
            loss.backward(inputs=list(self.discriminators.parameters()))
        with watch.section("optimizers"):
            self.discriminator_optimizer.step()
        return gradient


class Encodec(Side):
    """encodec's modules, with the discriminators run anew for each player."""

    def __init__(self, sizes: Sizes, *, lstm_layers: int) -> None:
        seanet: dict[str, Any] = {
            "n_filters": sizes.channels,
            "dimension": DIMENSION,
            "ratios": list(reversed(STRIDES)),
            "kernel_size": KERNEL_SIZE,
            "last_kernel_size": KERNEL_SIZE,
            "n_residual_layers": sizes.units,
            "dilation_base": 3,
            "causal": True,
            "lstm": lstm_layers,
        }
        super().__init__(
            sizes,
            EncodecEncoder(**seanet),
            # The k-means start belongs to the first step, which is not timed: cut short.
            EncodecQuantizer(
                dimension=DIMENSION, n_q=N_QUANTIZERS, bins=CODEBOOK_SIZE, kmeans_iters=2
            ),
            EncodecDecoder(**seanet),
            EncodecDiscriminators(
                filters=sizes.channels,
                n_ffts=list(N_FFTS),
                win_lengths=list(N_FFTS),
                hop_lengths=[n_fft // 4 for n_fft in N_FFTS],
            ),
        )

    def quantize(self, latent: Tensor) -> tuple[Tensor, Tensor]:
        """See `Side`."""
        output = self.quantizer(latent, self.sizes.sample_rate)
        return output.quantized, output.penalty

    def judge(self, wave: Tensor) -> DiscriminatorOutput:
        """See `Side`."""
        with self.autocast():
            return DiscriminatorOutput(*self.discriminators(wave))

    def adversarial_step(self, wave: Tensor, decoded: Tensor, watch: Stopwatch) -> Tensor:
        """See `Side`."""
        with watch.section("D forward"):
            real, fake = self.judge(wave), self.judge(decoded.detach())
        with watch.section("losses"):
            loss = self.game.discriminator(real.logits, fake.logits).total
        with watch.section("D backward"):
            self.discriminator_optimizer.zero_grad()
            loss.backward()
        with watch.section("optimizers"):
            self.discriminator_optimizer.step()
        self.discriminators.requires_grad_(False)
        with watch.section("D forward again"):
            fake = self.judge(decoded)
            with torch.no_grad():
                real = self.judge(wave)
        gradient = self.wave_gradient(wave, decoded, real, fake, watch)
        self.discriminators.requires_grad_(True)
        return gradient


def measure(sides: dict[Key, Side], wave: Tensor, rounds: int) -> dict[Key, list[Timing]]:
    """Seconds by section of every step, the sides taking turns; one step each goes untimed."""
    for side in sides.values():
        side.step(wave, Stopwatch())
    measured: dict[Key, list[Timing]] = {key: [] for key in sides}
    for _ in track(range(rounds), "rounds", console=Console(stderr=True)):
        for key, side in sides.items():
            watch = Stopwatch()
            start = time.perf_counter()
            side.step(wave, watch)
            wall = time.perf_counter() - start
            steps = {**watch.seconds, "all": sum(watch.seconds.values()), "wall": wall}
            measured[key].append(steps)
    return measured


def share(ours: list[Timing], theirs: list[Timing], section: str, whole: str = "all") -> float:
    """A section of our step over their whole step: median over rounds."""
    pairs = zip(ours, theirs, strict=True)
    return median(our.get(section, 0.0) / their[whole] for our, their in pairs)


def speed_table(measured: dict[Key, list[Timing]]) -> Table:
    """Steps that each side makes in the time of one of encodec with its LSTMs."""
    table = Table(title="Training steps in the time of one of encodec's")
    precisions = list(dict.fromkeys(precision for _, precision in measured))
    table.add_column("side")
    for heading in ("precision", *(f"against its {name}" for name in precisions), "by the clock"):
        table.add_column(heading, justify="right")
    for (name, precision), steps in measured.items():
        cells = [
            f"{1 / share(steps, measured['encodec', other], 'all'):.2f}" for other in precisions
        ]
        wall = 1 / share(steps, measured["encodec", precision], "wall", "wall")
        table.add_row(name, precision, *cells, f"{wall:.2f}")
    table.caption = "By CPU time; last column by the clock, against encodec's at that precision"
    return table


def section_table(measured: dict[Key, list[Timing]], precision: str) -> Table:
    """Where each side's time goes at one precision, in hundredths of encodec's step."""
    table = Table(title=f"Where the time goes, {precision}: % of encodec's step")
    table.add_column("section")
    sides = {name: steps for (name, other), steps in measured.items() if other == precision}
    for name in sides:
        table.add_column(name, justify="right")
    for section in (*SECTIONS, "all"):
        shares = [share(steps, sides["encodec"], section) for steps in sides.values()]
        table.add_row(section, *(f"{100 * part:.1f}" if part else "–" for part in shares))
    return table


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Sotto's training step against encodec's.")
    parser.add_argument("--steps", type=int, default=5, help="timed steps of each side")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=1.0, help="length of each wave")
    parser.add_argument("--sample-rate", type=int, default=16_000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--channels", type=int, default=32, help="of SEANet and discriminators")
    parser.add_argument("--units", type=int, default=1, help="residual units a stage")
    parser.add_argument("--balancer", choices=list(BALANCERS), default="ema")
    parser.add_argument(
        "--precision", nargs="+", choices=["fp32", "bf16"], default=["fp32", "bf16"]
    )
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    warnings.filterwarnings("ignore", category=FutureWarning)  # encodec's weight norm
    sides: dict[Key, Side] = {}
    for precision in arguments.precision:
        sizes = Sizes(
            arguments.channels,
            arguments.units,
            arguments.sample_rate,
            arguments.balancer,
            precision,
        )
        sides["encodec", precision] = Encodec(sizes, lstm_layers=2)
        sides["encodec, no LSTM", precision] = Encodec(sizes, lstm_layers=0)
        sides["Sotto", precision] = Sotto(sizes)
    samples = round(arguments.seconds * arguments.sample_rate)
    wave = 0.1 * torch.randn(arguments.batch, 1, samples)
    measured = measure(sides, wave, arguments.steps)
    console = Console()
    console.print(speed_table(measured))
    for precision in arguments.precision:
        console.print(section_table(measured, precision))


if __name__ == "__main__":
    main()
