"""A long mp3 to a `.sc` file and back: time, real-time factor, memory, and where the time goes.

    nice python -m benchmarks.hour --speech FOLDER --model MODEL --minutes 60 --threads 2

The mp3, 44.1 kHz stereo as podcasts are, is made of the folder's recordings, over and over. Each
way of working runs in a process of its own, so that its peak memory is its own:

- serial: one thing after the other, as a plain program would;
- interleaved: as Sotto does it, audio decoded and resampled on a thread beside the network, and the
  network on one beside the writing of audio.

Both are given the same number of threads for the network. The time of a stage is that of the clock
while it was at work, without the stages that it waited for in the same thread: interleaved, the
stages overlap and their sum is more than the whole.
"""

import os

# Threads that wait should sleep: spinning ones take the cores from the audio.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from codec import audio
from codec.audio_writing import AudioWriter
from codec.resampling import resample

RATE = 44_100
MODES = ("serial", "interleaved")
STAGES = ("audio decoding", "loudness", "resampling", "network", "packing", "audio writing")


def main() -> None:
    options = parse()
    if options.run:
        print(json.dumps(measure(options)))
        return
    console = Console()
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch) if options.work is None else options.work
        work.mkdir(parents=True, exist_ok=True)
        source = work / f"speech-{options.minutes:g}.mp3"
        if not source.exists():
            make_mp3(options.speech, source, options.minutes)
        results = []
        for mode in MODES:
            for direction in ("encode", "decode"):
                console.print(f"{direction}, {mode} ...")
                results.append(in_process(options, direction, mode, work, source))
    console.print(table(results, options, source.name))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--speech", type=Path, help="folder of recordings to make the mp3 of")
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--threads", type=int, default=2, help="of the network")
    parser.add_argument("--kbps", type=float, default=None)
    parser.add_argument("--work", type=Path, help="folder for the files; else one that is deleted")
    parser.add_argument("--run", nargs=2, metavar=("DIRECTION", "MODE"), help=argparse.SUPPRESS)
    parser.add_argument("--source", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def make_mp3(speech: Path, target: Path, minutes: float) -> None:
    """Loops the recordings of a folder until the file is long enough."""
    endings = {".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a"}
    found = sorted(path for path in speech.rglob("*") if path.suffix.lower() in endings)[:200]
    if not found:
        sys.exit(f"{speech}: no recordings found")
    wanted, number = round(minutes * 60 * RATE), 0
    with AudioWriter(target, sample_rate=RATE, channels=2) as writer:
        for percent in track(range(100), description=f"making {target.name}"):
            while writer.samples < wanted * (percent + 1) // 100:
                samples, rate = audio.read(found[number % len(found)])
                wave = resample(audio.to_mono(samples), rate, RATE)
                writer.write(np.repeat(wave[:, : wanted - writer.samples], 2, axis=0))
                number += 1


def in_process(
    options: argparse.Namespace, direction: str, mode: str, work: Path, source: Path
) -> dict[str, Any]:
    """Runs one way of working in a process of its own."""
    arguments = ["--model", options.model, "--run", direction, mode, "--source", source]
    arguments += ["--work", work, "--threads", options.threads]
    if options.kbps is not None:
        arguments += ["--kbps", options.kbps]
    command = [sys.executable, "-m", "benchmarks.hour", *(str(one) for one in arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads)}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, text=True)
    return {"direction": direction, "mode": mode, **json.loads(done.stdout.splitlines()[-1])}


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Codes the file in this process, and says what it took."""
    import torch

    from codec.codec import Codec
    from infer import files

    torch.set_num_threads(options.threads)
    direction, mode = options.run
    codec = Codec.load(options.model)
    if mode == "serial":
        files.decoded_ahead = in_turn  # type: ignore[assignment]
    clock = Clock()
    watch(clock)
    if mode == "interleaved":
        clock.generator(files, "decoded_ahead", "waiting")
    coded = options.work / f"{options.source.stem}.sc"
    before = peak_megabytes()
    began, cpu = time.perf_counter(), time.process_time()
    if direction == "encode":
        kbps = codec.default_kbps if options.kbps is None else options.kbps
        n_quantizers = codec.n_quantizers_for(kbps)
        done = files.encode_file(codec, options.source, coded, n_quantizers=n_quantizers)
    else:
        done = files.decode_file(codec, coded, coded.with_suffix(".wav"), restore=True)
    return {
        "wall": time.perf_counter() - began,
        "cpu": time.process_time() - cpu,
        "seconds": done.seconds,
        "before": before,
        "peak": peak_megabytes(),
        "bytes": done.target_bytes,
        "stages": dict(clock.spent),
    }


def in_turn(waves: Iterator[Any], depth: int = 0) -> Iterator[Any]:
    """Stands in for `decoded_ahead`: makes each item when it is asked for."""
    yield from waves


class Clock:
    """Time spent in stages, each without those it calls; by thread."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = defaultdict(float)
        self._local = threading.local()

    def call(self, stage: str, function: Callable[[], Any]) -> Any:
        """Calls a function as part of a stage."""
        stack = self._local.__dict__.setdefault("stack", [])
        stack.append(0.0)
        began = time.perf_counter()
        try:
            return function()
        finally:
            took = time.perf_counter() - began
            self.spent[stage] += took - stack.pop()
            if stack:
                stack[-1] += took

    def method(self, owner: type, name: str, stage: str) -> None:
        """Counts the calls of a method to a stage."""
        plain = getattr(owner, name)
        setattr(owner, name, lambda *a, **k: self.call(stage, lambda: plain(*a, **k)))

    def generator(self, owner: Any, name: str, stage: str) -> None:
        """Counts what a function that gives an iterator does for each item."""
        plain = getattr(owner, name)
        end = object()

        def timed(*arguments: Any, **keywords: Any) -> Iterator[Any]:
            items = plain(*arguments, **keywords)
            while (item := self.call(stage, lambda: next(items, end))) is not end:
                yield item

        setattr(owner, name, timed)


def watch(clock: Clock) -> None:
    """Puts the clock into the stages."""
    from codec.chunking import ChunkedDecoder, ChunkedEncoder
    from codec.loudness import Loudness
    from infer import intake, outlet
    from infer.bitstream import Reader, Writer

    clock.generator(audio.AudioReader, "pieces", "audio decoding")
    clock.generator(intake, "resample_stream", "resampling")
    clock.generator(outlet, "resample_stream", "resampling")
    clock.generator(Reader, "blocks", "packing")
    for owner, stage in (
        (ChunkedEncoder, "network"),
        (ChunkedDecoder, "network"),
        (Loudness, "loudness"),
    ):
        clock.method(owner, "push", stage)
    for owner, stage in ((ChunkedEncoder, "network"), (ChunkedDecoder, "network")):
        clock.method(owner, "finish", stage)
    clock.method(Loudness, "lufs", "loudness")
    clock.method(Writer, "write", "packing")
    clock.method(Writer, "finish", "packing")
    clock.method(AudioWriter, "write", "audio writing")


def peak_megabytes() -> float:
    """The most memory that this process has held, resident, in MB."""
    status = Path("/proc/self/status")
    if status.exists():
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return int(lines["VmHWM"].split()[0]) / 1024
    import resource  # not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def table(results: list[dict[str, Any]], options: argparse.Namespace, name: str) -> Table:
    """Times in seconds of the clock, memory in MB."""
    title = f"{name}: {results[0]['seconds'] / 60:.1f} minutes, {options.threads} network threads"
    out = Table(title=title)
    for heading in ("", *(f"{result['direction']}\n{result['mode']}" for result in results)):
        out.add_column(heading, justify="right" if heading else "left")

    def row(heading: str, value: Callable[[dict[str, Any]], float | None], digits: int = 1) -> None:
        found = [value(result) for result in results]
        out.add_row(heading, *("" if one is None else f"{one:.{digits}f}" for one in found))

    row("wall, s", lambda result: result["wall"])
    row("times real time", lambda result: result["seconds"] / result["wall"])
    row("CPU, s", lambda result: result["cpu"])
    row("peak memory, MB", lambda result: result["peak"], 0)
    row("  of it before coding", lambda result: result["before"], 0)
    for stage in STAGES:
        row(f"{stage}, s", lambda result, stage=stage: result["stages"].get(stage))  # type: ignore
    row("other, s", other)
    return out


def other(result: dict[str, Any]) -> float | None:
    """Seconds in no stage; none where stages overlap."""
    if result["mode"] != "serial":
        return None
    return float(result["wall"] - sum(result["stages"].values()))


if __name__ == "__main__":
    main()
