"""A small synthetic speech corpus by espeak-ng: many voices, several languages, no download.

python -m data_scripts.synthesise OUT --minutes 10 --seed 0

It is machine speech, for trying things out and for tests: a codec trained on it has learnt
espeak-ng's formant synthesis, not people. Every manifest line says ``"synthetic": true``.
"""

import json
import multiprocessing
import shutil
import signal
import sys
import uuid
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress

from codec.audio import Samples, write_flac
from codec.data.manifest import MANIFEST_NAME, Entry, write_manifest
from codec.errors import DataError, SottoError
from codec.resampling import resample
from data_scripts import espeak
from data_scripts.sentences import SENTENCES

SAMPLE_RATE = 16000
SOURCE = "espeak-ng (synthetic)"

# Variants of espeak-ng that sound like people rather than effects, by split: no voice is in two.
VOICES: dict[str, tuple[str, ...]] = {
    "train": (
        *("f1", "f2", "f4", "f5", "m1", "m2", "m3", "m5", "m6", "m7", "m8"),
        *("Alex", "Alicia", "Andrea", "Andy", "Annie", "Denis", "Diogo", "Gene", "Henrique"),
        *("Jacky", "Lee", "Marco", "Mario", "Michael", "Mike", "Nguyen", "RicishayMax", "Storm"),
        *("adam", "anika", "antonio", "aunty", "belinda", "boris", "caleb", "ed", "edward"),
        *("grandma", "grandpa", "gustave", "ian", "iven", "john", "klatt2", "marcelo", "max"),
        *("michel", "norbert", "pablo", "paul", "pedro", "quincy", "rob", "robert", "sandro"),
    ),
    "valid": ("f3", "m4", "linda", "david", "miguel"),
    "test": ("steph", "benjamin", "victor", "shelby", "Hugo", "travis"),
}
_HELD_OUT = {"valid": 0.06, "test": 0.08}  # of the minutes
_FORMAT = 1  # raised when the same parameters would make other files
_EDGE = 0.05  # seconds of near silence left at both ends


@dataclass(frozen=True, slots=True)
class _Plan:
    """One utterance to be made."""

    split: str
    voice: str
    lang: str
    prompt: espeak.Prompt
    level_db: float
    """RMS of the result, dB of full scale."""


def synthesise(
    out: Path, minutes: float = 10.0, seed: int = 0, progress: Progress | None = None
) -> Path:
    """Make the synthetic corpus, or leave it if it is there; the same bytes for the same seed.

    The splits train, valid and test share no voice; each has every language in turn. Files are
    16 kHz mono FLAC of 1 to 15 seconds.

    Args:
        out: folder to be made; replaced if it is an older synthetic corpus.
        minutes: of speech, about.
        seed: of voices, sentences, pitch, speed and level.
        progress: shows how far it is.

    Returns:
        The path of the manifest.

    Raises:
        DataError: espeakng-loader is missing, ``out`` holds something else or cannot be written.
    """
    if minutes <= 0:
        raise DataError(f"minutes must be above 0, not {minutes}")
    made_from = {
        "format": _FORMAT,
        "minutes": float(minutes),
        "seed": seed,
        "espeak": _espeak_version(),
    }
    parameters = out / "synthetic.json"
    if _there(parameters, made_from):
        return out / MANIFEST_NAME
    if out.exists() and any(out.iterdir()) and not parameters.exists():
        raise DataError(f"{out}: is not empty and no synthetic corpus; name another folder")
    temporary = out.with_name(f".{out.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        temporary.mkdir(parents=True)
        _fill(temporary, minutes, seed, progress)
        text = json.dumps({"synthetic": True, "source": SOURCE, "made_from": made_from}, indent=1)
        (temporary / parameters.name).write_text(text + "\n", encoding="utf-8")
        shutil.rmtree(out, ignore_errors=True)
        temporary.rename(out)
    except OSError as error:
        raise DataError(f"{out}: cannot be written ({error.strerror or error})") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return out / MANIFEST_NAME


def _espeak_version() -> str:
    try:
        return version("espeakng-loader")
    except PackageNotFoundError as error:
        raise DataError(
            "the synthetic corpus needs espeak-ng; install it with: pip install 'sotto[data]'"
        ) from error


def _there(parameters: Path, made_from: dict[str, Any]) -> bool:
    try:
        found = json.loads(parameters.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    manifest = parameters.with_name(MANIFEST_NAME)
    return isinstance(found, dict) and found.get("made_from") == made_from and manifest.is_file()


def _fill(out: Path, minutes: float, seed: int, progress: Progress | None) -> None:
    """Write the files and the manifest into ``out``."""
    task = None
    if progress is not None:
        task = progress.add_task("synthesising speech", total=60 * minutes)
    entries: list[Entry] = []
    # A fresh process, because espeak-ng's state can only be reset by starting it anew. The
    # plans of a split end with its share of the minutes, which only the sound tells.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, initializer=_leave_ctrl_c) as pool:
        for number, split in enumerate(VOICES):
            share = _HELD_OUT.get(split, 1 - sum(_HELD_OUT.values()))
            left = 60 * minutes * share
            for plan, wave in _spoken(pool, _plans(split, [seed, number])):
                name = f"{split}/{plan.voice}/{plan.lang}-{len(entries):05d}.flac"
                write_flac(out / name, wave, SAMPLE_RATE)
                seconds = wave.shape[1] / SAMPLE_RATE
                entries.append(_entry(out / name, seconds, plan))
                left -= seconds
                if progress is not None and task is not None:
                    progress.advance(task, seconds)
                if left <= 0:
                    break
    write_manifest(out / MANIFEST_NAME, entries)


def _leave_ctrl_c() -> None:
    """Leave Ctrl-C to the parent process, whose end is this one's."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _spoken(
    pool: ProcessPoolExecutor, plans: Iterator[_Plan], ahead: int = 16
) -> Iterator[tuple[_Plan, Samples]]:
    """Plans with their finished sound, (1, samples) at 16 kHz, in whole batches of ``ahead``.

    Whole batches, so that what the process has said before a split is always the same.
    """
    while True:
        batch = [next(plans) for _ in range(ahead)]
        try:
            spoken = list(pool.map(espeak.say, [plan.prompt for plan in batch]))
        except BrokenProcessPool as error:
            raise DataError("espeak-ng crashed while speaking") from error
        for plan, (samples, rate) in zip(batch, spoken, strict=True):
            wave = _finish(samples, rate, plan.level_db)
            if wave is not None:
                yield plan, wave


def _plans(split: str, seed: list[int]) -> Iterator[_Plan]:
    """Utterances without end, languages and voices in turn but shuffled."""
    rng = np.random.default_rng(seed)
    languages: list[str] = []
    voices: list[str] = []
    while True:
        languages = languages or [str(name) for name in rng.permutation(list(SENTENCES))]
        voices = voices or [str(name) for name in rng.permutation(VOICES[split])]
        lang, voice = languages.pop(), voices.pop()
        chosen = rng.permutation(len(SENTENCES[lang]))[: rng.integers(1, 3)]
        text = " ".join(SENTENCES[lang][i].format(n=rng.integers(2, 100)) for i in chosen)
        prompt = espeak.Prompt(
            text=text,
            voice=f"{lang}+{voice}",
            rate=int(rng.integers(140, 200)),
            pitch=int(rng.integers(35, 66)),
            pitch_range=int(rng.integers(35, 80)),
        )
        yield _Plan(split, voice, lang, prompt, float(rng.uniform(-30, -20)))


def _finish(samples: NDArray[np.int16], rate: int, level_db: float) -> Samples | None:
    """Trimmed, at 16 kHz and at its level; None if it is silent, too short or too long."""
    wave = resample(samples.astype(np.float32)[None] / np.float32(32768), rate, SAMPLE_RATE)
    peak = float(np.abs(wave).max(initial=0.0))
    loud = np.flatnonzero(np.abs(wave[0]) > 0.02 * peak)
    if peak < 0.01 or not loud.size:
        return None
    edge = int(_EDGE * SAMPLE_RATE)
    wave = wave[:, max(0, loud[0] - edge) : loud[-1] + edge]
    if not 1.0 <= wave.shape[1] / SAMPLE_RATE <= 15.0:
        return None
    rms = float(np.sqrt(np.mean(np.square(wave), dtype=np.float64)))
    gain = min(10 ** (level_db / 20) / rms, 0.95 / peak)
    return wave * np.float32(gain)


def _entry(path: Path, seconds: float, plan: _Plan) -> Entry:
    details = {
        "lang": plan.lang,
        "synthetic": True,
        "source": SOURCE,
        "text": plan.prompt.text,
    }
    return Entry(path, seconds, plan.split, f"espeak-{plan.voice}", details)


def main(
    out: Annotated[Path, typer.Argument(help="Folder of the corpus to be made.")],
    minutes: Annotated[float, typer.Option(help="How much synthetic speech.")] = 10.0,
    seed: Annotated[int, typer.Option(help="Another seed, other utterances.")] = 0,
) -> None:
    """Make a synthetic speech corpus with espeak-ng; the same seed makes the same files."""
    try:
        with Progress(console=Console(stderr=True)) as progress:
            manifest = synthesise(out, minutes, seed, progress)
    except SottoError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        print("interrupted; nothing was written", file=sys.stderr)
        raise SystemExit(130) from None
    print(f"{manifest}: {minutes:g} minutes of synthetic speech")


if __name__ == "__main__":
    typer.run(main)
