"""What discriminators cost a training step, beside the generator's own of a model of spectra.

    pip install -e '.[benchmarks]'
    nice python -m benchmarks.discriminators --rounds 5

Sides are learners as `train.py` has them, of configs/convnext.yaml on a batch of its size: one
without discriminators, the others with one kind each, which hear all of the batch or parts of it
(`losses.adversarial`). The discriminator of parameters belongs to voices
(`codec.training.voice`), and plays its game here on random envelopes as long as the batch.

All are timed in turn, on one thread, each between two steps of the learner without discriminators.
A cell is the CPU time of a step more than that one's, over that one's, at equal precision: the
median over rounds. 1.00 is a step that takes twice as long.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"

import argparse
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from accelerate import Accelerator
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

from codec.config import Config
from codec.config_files import load_config
from codec.data.batches import Batch
from codec.losses.adversarial import AdversarialLoss, feature_matching
from codec.nn.parameters import ENVELOPE, FRAMES_PER_SECOND
from codec.training.learner import Learner
from codec.training.objective import build_parameter_discriminator
from codec.training.pieces import random_piece

CONFIG = Path(__file__).parents[1] / "configs" / "convnext.yaml"
WAVE_JUDGES = {
    "stft, as in the tree": ["discriminators.stft={}"],
    "bands": ["discriminators={stft: null, bands: {}}"],
    "frames": ["discriminators={stft: null, frames: {}}"],
    "bands and frames": ["discriminators={stft: null, bands: {}, frames: {}}"],
}
PARAMETERS = "parameters"
HEARING = {
    "all": [],
    "½ s": ["losses.adversarial.seconds=0.5"],
    "½ s, ½ batch": ["losses.adversarial.seconds=0.5", "losses.adversarial.items=0.5"],
    "½ s, ½ batch, every 2nd step": [
        "losses.adversarial.seconds=0.5",
        "losses.adversarial.items=0.5",
        "losses.adversarial.every=2",
        "losses.adversarial.generator_every=2",
    ],
}
PLAYS = ["losses.adversarial.weight=1", "losses.feature_matching.weight=2"]
NOBODY = "nobody"
PRECISIONS = ("fp32", "bf16")

Key = tuple[str, str, str]  # precision, judge and hearing
Step = Callable[[int], object]


class AtPrecision(Accelerator):
    """An accelerator of its own precision: the real one's is the same for a whole process."""

    def __init__(self, precision: str) -> None:
        super().__init__(cpu=True)
        self.precision = precision

    def autocast(self, autocast_handler: object = None) -> torch.autocast:
        """bf16 or nothing."""
        return torch.autocast("cpu", torch.bfloat16, enabled=self.precision == "bf16")


def learner_step(config: Config, precision: str, wave: Tensor) -> Step:
    """Steps of a learner on the same batch."""
    learner = Learner(config, AtPrecision(precision))
    return lambda step: learner.step(step, Batch(wave))


class ParameterGame:
    """Both players' share of a step that the discriminator of parameters costs."""

    def __init__(self, config: Config, precision: str) -> None:
        self.config = config.losses.adversarial
        seconds = config.data.segment_samples / config.model.sample_rate
        shape = (config.data.batch_size, ENVELOPE, round(seconds * FRAMES_PER_SECOND))
        self.real, self.fake = -10 + 3 * torch.randn(2, *shape)
        self.fake.requires_grad_()
        judge = build_parameter_discriminator(config)
        assert judge is not None
        self.judge = judge
        self.optimizer = torch.optim.AdamW(judge.parameters(), fused=True)
        self.precision = precision
        self.generator = torch.Generator().manual_seed(0)

    def __call__(self, step: int) -> None:
        """Plays where it is its turn."""
        if step % self.config.every:
            return
        seconds, game = self.config.seconds, AdversarialLoss(self.config.kind)
        real, fake = random_piece(
            self.real,
            self.fake,
            samples=None if seconds is None else round(seconds * FRAMES_PER_SECOND),
            share=self.config.items,
            generator=self.generator,
        )
        with torch.autocast("cpu", torch.bfloat16, enabled=self.precision == "bf16"):
            on_real, on_fake = self.judge(real), self.judge(fake)
        loss = game.generator(on_fake.logits).total
        loss = loss + feature_matching(on_real.features, on_fake.features).total
        torch.autograd.grad(loss, self.fake, retain_graph=True)
        loss = game.discriminator(on_real.logits, on_fake.logits).total
        self.optimizer.zero_grad()
        loss.backward(inputs=list(self.judge.parameters()))
        torch.nn.utils.clip_grad_norm_(self.judge.parameters(), 10.0)
        self.optimizer.step()


def build_sides(precisions: list[str]) -> dict[Key, Step]:
    """Everyone who takes turns."""
    plain = ["codebooks.start_step=0"]
    config = load_config(CONFIG, plain)
    wave = 0.1 * torch.randn(config.data.batch_size, 1, config.data.segment_samples)
    sides: dict[Key, Step] = {}
    for precision in precisions:
        sides[precision, NOBODY, ""] = learner_step(config, precision, wave)
        for hearing, heard in HEARING.items():
            for judge, discriminators in WAVE_JUDGES.items():
                playing = load_config(CONFIG, [*plain, *PLAYS, *discriminators, *heard])
                sides[precision, judge, hearing] = learner_step(playing, precision, wave)
            playing = load_config(CONFIG, [*plain, "discriminators.parameters={}", *heard])
            sides[precision, PARAMETERS, hearing] = ParameterGame(playing, precision)
    return sides


def taken(side: Step, step: int) -> float:
    """CPU seconds of a step."""
    start = time.process_time()
    side(step)
    return time.process_time() - start


def measure(sides: dict[Key, Step], rounds: int) -> dict[Key, list[float]]:
    """Every side's costs in steps of the generator, and the generator's own in seconds.

    A cost is of two steps in a row, halved. Each side's first two go untimed.
    """
    for side in sides.values():
        side(0)
        side(1)
    costs: dict[Key, list[float]] = {key: [] for key in sides}
    for turn in track(range(1, rounds + 1), "rounds", console=Console(stderr=True)):
        for (precision, judge, hearing), side in sides.items():
            if judge == NOBODY:
                continue
            nobody = (precision, NOBODY, "")
            first = taken(sides[nobody], 2 * turn)
            steps = taken(side, 2 * turn) + taken(side, 2 * turn + 1)
            alone = first + taken(sides[nobody], 2 * turn + 1)
            costs[nobody].append(alone / 2)
            # The game of parameters is timed by itself, a learner with all that it does.
            costs[precision, judge, hearing].append(steps / alone - (judge != PARAMETERS))
    return costs


def table_of(costs: dict[Key, list[float]], precision: str) -> Table:
    """Cost by who judges and what they hear, in steps of the generator."""
    table = Table(title=f"Cost of discriminators in steps of the generator, {precision}")
    table.add_column("discriminators")
    for hearing in HEARING:
        table.add_column(hearing, justify="right")
    for judge in (*WAVE_JUDGES, PARAMETERS):
        cells = (f"{median(costs[precision, judge, hearing]):.2f}" for hearing in HEARING)
        table.add_row(judge, *cells)
    alone = median(costs[precision, NOBODY, ""])
    table.caption = f"The generator's step takes {alone:.2f} s of one core"
    return table


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="What discriminators cost a step.")
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds of two steps a side")
    parser.add_argument("--precision", nargs="+", choices=PRECISIONS, default=list(PRECISIONS))
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    warnings.filterwarnings("ignore", category=UserWarning)
    torch.manual_seed(0)
    sides = build_sides(arguments.precision)
    torch.set_num_threads(1)  # last: accelerators set it, too
    costs = measure(sides, arguments.rounds)
    console = Console()
    for precision in arguments.precision:
        console.print(table_of(costs, precision))


if __name__ == "__main__":
    main()
