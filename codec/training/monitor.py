"""What a person sees of a run: TensorBoard and the progress bar."""

import logging
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from rich.console import Console
from rich.logging import RichHandler
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from codec.config import Config
from codec.spectra import MelSpectrogram
from codec.training.validation import Clip, Validation

Wave = NDArray[np.float32]

_SECONDS_BETWEEN_LINES = 30.0
_SHOWN = {
    "parameters/envelope": "envelope",
    "parameters/f0": "f0",
    "loss/mel": "mel",
    "loss/disturbance": "disturbance",
    "loss/adversarial": "adversarial",
    "loss/discriminator": "discriminator",
    "loss/whisper": "whisper",
    "loss/commitment": "commitment",
}


class Monitor:
    """TensorBoard events in the run's folder and a progress bar in the terminal.

    Args:
        folder: the run's.
        steps: length of the run.
        begun: completed steps; TensorBoard drops what an interrupted run logged after them.
        sample_rate: Hz of the audio that is logged.
        console: where the bar is drawn.
    """

    def __init__(
        self, folder: Path, *, steps: int, begun: int, sample_rate: int, console: Console
    ) -> None:
        self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=begun + 1)
        self._sample_rate = sample_rate
        self.console = console
        self._said = time.monotonic()
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[losses]}", markup=False),
            TimeRemainingColumn(),
            console=console,
            refresh_per_second=2,
        )
        self._task = self._progress.add_task(
            folder.name, total=steps, completed=begun, losses="starting"
        )

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()
        self._writer.close()

    def say(self, message: str) -> None:
        """Prints one line above the progress bar."""
        self.console.print(message, markup=False, highlight=False, soft_wrap=True)

    def advance(self, step: int) -> None:
        """Moves the bar to `step` completed steps."""
        self._progress.update(self._task, completed=step)

    def log_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        """Writes values by tag, and shows the losses that matter beside the bar."""
        for tag, value in scalars.items():
            self._writer.add_scalar(tag, value, step)
        shown = [f"{name} {scalars[tag]:.3f}" for tag, name in _SHOWN.items() if tag in scalars]
        if shown:
            self._progress.update(self._task, losses=" · ".join(shown))
            self._say_now_and_then(step, " · ".join(shown))

    def _say_now_and_then(self, step: int, losses: str) -> None:
        """Where there is no terminal to draw a bar in, a line every half minute, for a log file."""
        now = time.monotonic()
        if not self.console.is_terminal and now - self._said > _SECONDS_BETWEEN_LINES:
            self._said = now
            self.say(f"step {step}: {losses}")

    def log_codebooks(self, step: int, perplexity: Sequence[float], used: Sequence[float]) -> None:
        """Writes perplexity and used share of each codebook, and the bits in use of a frame."""
        for i, (each_perplexity, each_used) in enumerate(zip(perplexity, used, strict=True), 1):
            self._writer.add_scalar(f"codebook_perplexity/{i}", each_perplexity, step)
            self._writer.add_scalar(f"codebook_used/{i}", each_used, step)
        bits = sum(math.log2(max(each, 1.0)) for each in perplexity)
        self._writer.add_scalar("codebooks/bits_a_frame", bits, step)

    def log_validation(
        self, step: int, validation: Validation, clips: Sequence[Clip], logged_clips: int
    ) -> None:
        """Writes scores by rate, and audio and spectrograms of the first clips."""
        for kbps, scores in validation.scores.items():
            for name, value in scores.items():
                self._writer.add_scalar(f"validation_{name}/{kbps:g}_kbps", value, step)
        for clip, decoded in list(zip(clips, validation.decoded, strict=True))[:logged_clips]:
            for kind, wave in (("original", clip.wave), ("decoded", decoded)):
                self._writer.add_audio(
                    f"{clip.name}/{kind}",
                    np.clip(wave, -1, 1)[None],
                    step,
                    sample_rate=self._sample_rate,
                )
            image = _spectrograms(clip, decoded, self._sample_rate)
            self._writer.add_image(f"{clip.name}/spectrograms", image, step, dataformats="HWC")
        self._writer.flush()

    def log_text(self, tag: str, text: str) -> None:
        """Writes a text, such as the config."""
        self._writer.add_text(tag, text, 0)


def _spectrograms(clip: Clip, decoded: Wave, sample_rate: int) -> NDArray[np.uint8]:
    """Log-mel spectrograms of original and decoded on one colour scale, as an (H, W, 3) image."""
    figure = Figure(figsize=(9, 5), layout="constrained", dpi=80)
    canvas = FigureCanvasAgg(figure)
    mel = MelSpectrogram(sample_rate=sample_rate, n_fft=1024, n_mels=80)
    original = _decibels(mel, clip.wave)
    top = float(original.max())
    for axes, title, image in zip(
        figure.subplots(2, 1, sharex=True),
        (f"{clip.name}: original", "decoded"),
        (original, _decibels(mel, decoded)),
        strict=True,
    ):
        axes.imshow(
            image,
            origin="lower",
            aspect="auto",
            vmin=top - 80,
            vmax=top,
            cmap="magma",
            extent=(0, len(clip.wave) / sample_rate, 0, image.shape[0]),
        )
        axes.set_title(title, fontsize=9)
        axes.set_ylabel("mel band")
    axes.set_xlabel("seconds")
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _decibels(mel: MelSpectrogram, wave: Wave) -> NDArray[np.float32]:
    """(bands, frames) in dB of a (samples,) wave."""
    with torch.no_grad():
        magnitude = mel(torch.from_numpy(wave)[None, None])[0]
    return 20 * torch.log10(magnitude.clamp(min=1e-5)).numpy()


class Means:
    """Mean of each scalar over the steps that had it, since it was last read.

    The last step alone would show little of a noisy loss, and of the discriminators, which may
    learn at every other step only, nothing at all.
    """

    def __init__(self) -> None:
        self._sums: dict[str, tuple[Tensor | float, int]] = {}

    def add(self, scalars: dict[str, Tensor | float]) -> None:
        """Takes in what one step had, by tag."""
        for tag, value in scalars.items():
            total, count = self._sums.get(tag, (0.0, 0))
            self._sums[tag] = (total + value, count + 1)

    def read(self) -> dict[str, float]:
        """The means by tag; the next ones begin."""
        means = {tag: float(total) / count for tag, (total, count) in self._sums.items()}
        self._sums = {}
        return means


class Meter:
    """Steps and seconds of audio per second since it was last read."""

    def __init__(self, config: Config, processes: int) -> None:
        data = config.data
        self._seconds_a_step = (
            processes * data.batch_size * data.segment_samples / config.model.sample_rate
        )
        self._steps, self._since = 0, time.monotonic()

    def count(self) -> None:
        """Takes in a step."""
        self._steps += 1

    def read(self) -> dict[str, float]:
        """Rates by tag; the next ones begin."""
        now = time.monotonic()
        rate = self._steps / max(now - self._since, 1e-9)
        self._steps, self._since = 0, now
        return {
            "throughput/steps_per_second": rate,
            "throughput/audio_seconds_per_second": rate * self._seconds_a_step,
        }


@contextmanager
def logging_to(console: Console) -> Iterator[None]:
    """Warnings, of damaged files say, appear above the progress bar."""
    handler = RichHandler(console=console, show_path=False, show_time=False)
    root = logging.getLogger("codec")
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
