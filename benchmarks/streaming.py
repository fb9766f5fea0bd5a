"""Speed beside EnCodec and Mimi: pushes of a stream, whole signals, memory and start-up.

    pip install -e '.[benchmarks]'
    pip install --no-deps moshi==0.2.13        # its other dependencies are of no use here
    nice python -m benchmarks.streaming MODEL

MODEL is a model file, or a run's YAML: its architecture with random weights then, biases too. Each
codec runs at its own rate on one thread, with 8 codebooks. All take turns within one run, by bursts
of pushes whose first ones are not counted, so that whatever else the machine does falls on all.
Times are of CPU, milliseconds for 20 ms of audio: a busy machine disturbs them less than the clock.
It does disturb them, and small networks most, whose time is that of reading weights into caches:
p10 is near what a quiet machine gives. `--pause 0.02` waits between pushes, as live audio does.

Pushes are of 20, 40, 80 and 160 ms: 1 to 8 frames. What EnCodec (frames of 13.3 ms) and Mimi (of
80 ms) cannot push in just that time is the number of frames that comes closest; "ms" says which.
RTF is the real-time factor: seconds of audio in a second, at the median.

Memory and start-up are measured in processes of their own: CPU seconds from the interpreter's start
to the first frame decoded, and the highest resident memory of coding and decoding 10 s at once.
"""

import os

# Threads that wait should sleep, and there is one.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import importlib
import json
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.streaming_peers import N_CODEBOOKS, Contestant, encodec, mimi, sotto, sotto_onnx

_SECONDS = (0.02, 0.04, 0.08, 0.16)
_FRAME = 0.02
_WHOLE_SECONDS = 10.0
_BURST_SECONDS = 0.2  # after which a turn ends, however few pushes it had
_CODES = 1024  # of every codebook, or more
_MODEL, _EXPORT = "model.safetensors", "export"

# How each is made from a folder with the model and its export, and what it imports.
MAKERS: dict[str, tuple[Callable[[Path], Contestant], tuple[str, ...]]] = {
    "sotto": (lambda folder: sotto(folder / _MODEL), ("codec.codec",)),
    "sotto-fp32": (lambda folder: sotto_onnx(folder / _EXPORT, "fp32"), ("infer.runtime",)),
    "sotto-int8": (lambda folder: sotto_onnx(folder / _EXPORT, "int8"), ("infer.runtime",)),
    "encodec": (lambda folder: encodec(), ("encodec",)),
    "mimi": (lambda folder: mimi(), ("moshi.models.loaders",)),
}

Push = Callable[[Any], Any]
Record = dict[str, Any]
Records = dict[str, list[Record]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", default="configs/default.yaml")
    parser.add_argument("--only", nargs="+", choices=MAKERS, default=list(MAKERS))
    parser.add_argument("--rounds", type=int, default=10, help="turns of each codec")
    parser.add_argument("--burst", type=int, default=60, help="pushes a turn, at most")
    parser.add_argument("--pause", type=float, default=0.0, help="seconds between pushes")
    parser.add_argument("--starts", type=int, default=3, help="processes of each codec")
    parser.add_argument("--json", type=Path, help="where to write all figures too")
    parser.add_argument("--probe", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    warnings.filterwarnings("ignore", category=FutureWarning)
    if options.probe:
        print(json.dumps(probe(options.only[0], options.probe)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        prepare(options.model, folder)
        contestants = {name: MAKERS[name][0](folder) for name in options.only}
        records = {
            "pushes": time_pushes(contestants, options),
            "whole": time_whole(contestants, -(-options.rounds // 2)),
            "processes": time_processes(options.only, folder, options.starts),
        }
    console = Console()
    for part in ("encode", "decode"):
        console.print(pushes_table(records, part))
    console.print(whole_table(records))
    console.print(processes_table(records))
    if options.json:
        options.json.write_text(json.dumps(records, indent=1), encoding="utf-8")


def prepare(model: str, folder: Path) -> None:
    """Puts a model file and its export in both precisions into the folder."""
    import torch

    from codec.building import build_autoencoder, inference_tensors
    from codec.codec import Codec
    from codec.config_files import load_config
    from infer.export import export
    from infer.export_check import probe_waves

    if model.endswith(".safetensors"):
        codec = Codec.load(model)
    else:
        config = load_config(model).model
        torch.manual_seed(0)
        tensors = inference_tensors(build_autoencoder(config))
        for name, tensor in tensors.items():
            if name.endswith("bias"):  # trained ones are not zero, which exports make use of
                tensor += 0.01 * torch.randn_like(tensor)
        codec = Codec(config, tensors)
    if codec.n_quantizers != N_CODEBOOKS:
        warnings.warn(f"this model has {codec.n_quantizers} codebooks, the others 8", stacklevel=1)
    codec.save(folder / _MODEL)
    waves = [wave for seed in range(4) for wave in probe_waves(codec, seed)]
    export(codec, folder / _EXPORT, calibration=waves)


def time_pushes(contestants: dict[str, Contestant], options: argparse.Namespace) -> list[Record]:
    """Milliseconds of CPU and of wall time a frame of 20 ms, of each kind of push."""
    generator = np.random.default_rng(0)
    kinds: dict[tuple[str, str, float], tuple[Push, Any, float]] = {}
    for name, one in contestants.items():
        for seconds in _SECONDS:
            frames = one.frames(seconds)
            pushed = frames * one.hop_length / one.sample_rate
            noise = generator.standard_normal(frames * one.hop_length)
            wave = (0.1 * noise).astype(np.float32)
            codes = generator.integers(_CODES, size=(N_CODEBOOKS, frames))
            kinds[name, "encode", seconds] = one.encoder(), wave, pushed
            kinds[name, "decode", seconds] = one.decoder(), codes, pushed
    times: dict[tuple[str, str, float], list[tuple[float, float]]] = {kind: [] for kind in kinds}
    for _ in track(range(options.rounds), "pushes", console=Console(stderr=True)):
        for kind, (push, x, _) in kinds.items():
            times[kind] += burst(push, x, options.burst, options.pause)
    records = []
    for (name, part, seconds), values in times.items():
        pushed = kinds[name, part, seconds][2]
        record = {"codec": name, "part": part, "seconds": seconds, "pushed": pushed}
        for clock, column in (("cpu", 0), ("wall", 1)):
            figures = 1e3 * _FRAME / pushed * np.array(values)[:, column]
            for percent in (10, 50, 95):
                record[f"{clock}_p{percent}"] = float(np.percentile(figures, percent))
        records.append(record)
    return records


def burst(push: Push, x: Any, pushes: int, pause: float) -> list[tuple[float, float]]:
    """Seconds of CPU and of wall time of some pushes, without a first quarter of them."""
    times: list[tuple[float, float]] = []
    while len(times) < pushes and sum(cpu for cpu, _ in times) < _BURST_SECONDS:
        if pause:  # even a pause of nothing hands the processor to whoever waits
            time.sleep(pause)
        times.append(timed(push, x))
    return times[-(-len(times) // 4) :] if len(times) > 1 else times


def time_whole(contestants: dict[str, Contestant], rounds: int) -> list[Record]:
    """CPU seconds that 10 s take at once, each direction."""
    generator = np.random.default_rng(0)
    times: dict[tuple[str, str], list[float]] = {}
    for index in track(range(-1, rounds), "whole signals", console=Console(stderr=True)):
        for name, one in contestants.items():
            samples = round(_WHOLE_SECONDS * one.sample_rate)
            wave = (0.1 * generator.standard_normal(samples)).astype(np.float32)
            codes: list[Any] = []
            encode, _ = timed(partial(_append, codes, one.encode), wave)
            decode, _ = timed(one.decode, codes[0])
            if index >= 0:
                times.setdefault((name, "encode"), []).append(encode)
                times.setdefault((name, "decode"), []).append(decode)
    return [
        {"codec": name, "part": part, "p50": median, "rtf": _WHOLE_SECONDS / median}
        for (name, part), values in times.items()
        for median in [float(np.median(values))]
    ]


def _append(answers: list[Any], push: Push, x: Any) -> None:
    answers.append(push(x))


def time_processes(names: Sequence[str], folder: Path, starts: int) -> list[Record]:
    """Start-up and memory: medians over processes, which take turns too."""
    found: dict[str, list[Record]] = {name: [] for name in names}
    for _ in track(range(starts), "processes", console=Console(stderr=True)):
        for name in names:
            command = [sys.executable, "-W", "ignore", "-m", "benchmarks.streaming"]
            command += ["--only", name, "--probe", str(folder)]
            answer = subprocess.run(command, check=True, capture_output=True, text=True)
            found[name].append(json.loads(answer.stdout.splitlines()[-1]))
    return [
        {"codec": name} | {key: float(np.median([r[key] for r in given])) for key in given[0]}
        for name, given in found.items()
    ]


def probe(name: str, folder: Path) -> Record:
    """Measures this very process; what this module imports itself (NumPy, rich) comes before."""
    make, modules = MAKERS[name]
    for module in modules:
        importlib.import_module(module)
    imported, resident = time.process_time(), _peak_megabytes()
    one = make(folder)
    loaded = time.process_time()
    codes = np.zeros((N_CODEBOOKS, 1), np.int64)
    one.encoder()(np.zeros(one.hop_length, np.float32))
    one.decoder()(codes)
    first = time.process_time()
    samples = round(_WHOLE_SECONDS * one.sample_rate)
    wave = 0.1 * np.random.default_rng(0).standard_normal(samples)
    one.decode(one.encode(wave.astype(np.float32)))
    return {
        "import_s": imported,
        "load_s": loaded - imported,
        "first_s": first - loaded,
        "import_mb": resident,
        "peak_mb": _peak_megabytes(),
    }


def pushes_table(records: Records, part: str) -> Table:
    table = Table(title=f"{part}: CPU ms for 20 ms of audio, one thread")
    table.add_column("ms", justify="right")
    table.add_column("codec", no_wrap=True)
    for heading in ("p10", "p50", "p95", "RTF", "×EnCodec", "×Mimi"):
        table.add_column(heading, justify="right")
    found = {(r["codec"], r["seconds"]): r for r in records["pushes"] if r["part"] == part}
    for seconds in _SECONDS:
        for name in dict.fromkeys(r["codec"] for r in records["pushes"]):
            row = found[name, seconds]
            cells = [f"{row[f'cpu_p{percent}']:.3f}" for percent in (10, 50, 95)]
            cells.append(f"{1e3 * _FRAME / row['cpu_p50']:.1f}")
            for peer in ("encodec", "mimi"):
                its = found.get((peer, seconds))
                cells.append(f"{its['cpu_p50'] / row['cpu_p50']:.1f}" if its else "–")
            table.add_row(f"{1e3 * row['pushed']:.3g}", name, *cells)
        table.add_section()
    return table


def whole_table(records: Records) -> Table:
    table = Table("codec", title=f"{_WHOLE_SECONDS:g} s at once, one thread, CPU time")
    parts = ("encode", "decode")
    for part in parts:
        table.add_column(f"{part}, × real time", justify="right")
        table.add_column("× EnCodec", justify="right")
    found = {(r["codec"], r["part"]): r["p50"] for r in records["whole"]}
    for name in dict.fromkeys(r["codec"] for r in records["whole"]):
        cells = []
        for part in parts:
            peer = found.get(("encodec", part))
            ratio = "–" if peer is None else f"{peer / found[name, part]:.1f}"
            cells += [f"{_WHOLE_SECONDS / found[name, part]:.0f}", ratio]
        table.add_row(name, *cells)
    return table


def processes_table(records: Records) -> Table:
    table = Table("codec", title="A process of its own: CPU seconds to the first frame, and memory")
    headings = (
        "import",
        "load",
        "first frame",
        "all",
        "imports MB",
        "over imports MB, 10 s at once",
    )
    for heading in headings:
        table.add_column(heading, justify="right")
    for record in records["processes"]:
        seconds = [record[key] for key in ("import_s", "load_s", "first_s")]
        cells = [f"{value:.2f}" for value in (*seconds, sum(seconds))]
        over = record["peak_mb"] - record["import_mb"]
        table.add_row(record["codec"], *cells, f"{record['import_mb']:.0f}", f"{over:.0f}")
    return table


def timed(push: Push, x: Any) -> tuple[float, float]:
    """Seconds of CPU, of all threads, and of wall time."""
    wall, cpu = time.perf_counter(), time.process_time()
    push(x)
    return time.process_time() - cpu, time.perf_counter() - wall


def _peak_megabytes() -> float:
    """The highest resident memory so far, as Linux counts it (getrusage counts the parent's)."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


if __name__ == "__main__":
    main()
