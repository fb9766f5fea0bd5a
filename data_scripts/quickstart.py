"""The whole of Sotto in a few minutes: corpus, training, scores, a file encoded and decoded.

python -m data_scripts.quickstart

Each part is what the command printed above it does. Run again, it goes on from where it stopped.
"""

import sys
import time
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from codec.codec import Codec
from codec.config_files import load_config
from codec.data.manifest import Entry, load_entries
from codec.errors import SottoError
from codec.evaluation.report import evaluate
from codec.evaluation.results import Evaluation
from codec.evaluation.score_files import write_scores
from codec.training.trainer import Trainer
from data_scripts.synthesise import synthesise
from infer.files import Conversion, decode_file, encode_file

CORPUS = Path("corpus/synthetic")
CONFIG = Path("configs/quickstart.yaml")
MINUTES = 20.0
KBPS = (1.5, 3.0)


@dataclass(frozen=True)
class Encoded:
    """One held-out file at one rate."""

    kbps: float
    conversion: Conversion
    decoded: Path


def main() -> None:
    """Runs every part and ends with a table."""
    console = Console()
    try:
        run(console)
    except (SottoError, OSError) as error:
        line = f"error: {error}"
        console.print(line, style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(1)
    except KeyboardInterrupt:
        console.print("interrupted; run it again to go on", highlight=False)
        sys.exit(130)


def run(console: Console) -> None:
    """Runs every part; errors are the parts' own."""
    said(console, f"python -m data_scripts.synthesise {CORPUS} --minutes {MINUTES:g}")
    with Progress(console=console) as progress:
        synthesise(CORPUS, minutes=MINUTES, progress=progress)
    said(console, f"python train.py {CONFIG} --resume")
    begun = time.monotonic()
    trainer = Trainer(load_config(CONFIG), resume=True, console=console)
    folder = trainer.run()
    if trainer.stopped:
        raise KeyboardInterrupt
    console.print(f"trained for {time.monotonic() - begun:.0f} s", highlight=False)
    rates = ",".join(f"{kbps:g}" for kbps in KBPS)
    said(console, f"sotto evaluate {folder.best} {CORPUS} --split test --bitrates {rates}")
    codec = Codec.load(folder.best)
    held_out = load_entries(CORPUS, split="test")
    evaluation = evaluate(codec, held_out, kbps=KBPS, workers=2, progress=True)
    write_scores(evaluation, folder.path / "scores.csv")
    evaluation.plot(folder.path / "rate-quality.png")
    longest = max(held_out, key=lambda entry: entry.seconds)
    encoded = [_encode(console, codec, folder.best, longest, kbps, folder.path) for kbps in KBPS]
    console.print()
    console.print(summary(evaluation, encoded, longest))
    console.print(
        f"Scores of every file: {folder.path}/scores.csv, plot: {folder.path}/rate-quality.png\n"
        f"Listen: {longest.path} and {encoded[-1].decoded}\n"
        f"Curves, audio and spectrograms: [bold].venv/bin/tensorboard --logdir "
        f"{folder.path.parent}[/], then open http://localhost:6006",
        highlight=False,
        soft_wrap=True,
    )


def summary(evaluation: Evaluation, encoded: list[Encoded], entry: Entry) -> Table:
    """Scores and file sizes by rate."""
    n_files = max(rate.n_files for rate in evaluation.summaries())
    table = Table(
        title=f"Synthetic speech, {n_files} held-out files of unseen voices: mean scores",
        caption=f"file: {entry.path.name}, {entry.seconds:.1f} s",
    )
    for heading in ("kbps", "PESQ-nb", "PESQ-wb", "STOI", ".sc bytes", "16-bit WAV", "smaller"):
        table.add_column(heading, justify="right")
    for rate, file in zip(evaluation.summaries(), encoded, strict=True):
        wav = file.decoded.stat().st_size
        table.add_row(
            f"{rate.kbps:g}",
            f"{rate.intervals['pesq_nb'].mean:.2f}",
            f"{rate.intervals['pesq_wb'].mean:.2f}",
            f"{rate.intervals['stoi'].mean:.3f}",
            f"{file.conversion.target_bytes:,}",
            f"{wav:,}",
            f"{wav / file.conversion.target_bytes:.0f} ×",
        )
    return table


def said(console: Console, command: str) -> None:
    """Shows the command that a part stands for."""
    console.print(f"\n[bold]$ {command}[/]", highlight=False, soft_wrap=True)


def _encode(
    console: Console, codec: Codec, model: Path, entry: Entry, kbps: float, folder: Path
) -> Encoded:
    target = folder / f"{entry.path.stem}-{kbps:g}.sc"
    decoded = target.with_suffix(".wav")
    said(console, f"sotto encode {entry.path} {target} --model {model} --kbps {kbps:g}")
    done = encode_file(codec, entry.path, target, n_quantizers=codec.n_quantizers_for(kbps))
    said(console, f"sotto decode {target} {decoded} --restore --model {model}")
    decode_file(codec, target, decoded, restore=True)
    return Encoded(kbps, done, decoded)


if __name__ == "__main__":
    main()
