"""Runs that are stopped or killed, as processes of their own.

One process imports everything and forks a child for each run: starting Python with PyTorch takes
seconds, and these take none.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from codec import audio
from codec.codec import Codec

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks processes and kills them")

PROGRAM = """
import json, os, random, signal, sys, time
import torch
torch.set_num_threads(1)
from infer import bitstream, cli, files
from infer.batch import run

folder, model = sys.argv[1:]
write = bitstream.Writer.write

def start(out, started=None):
    pid = os.fork()
    if pid:
        return pid
    # From here on this is `sotto encode FOLDER OUT`.
    os.dup2(os.open(out + ".txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    if started:
        def writes(self, codes):
            write(self, codes)
            open(started, "w").close()
            time.sleep(60)
        bitstream.Writer.write = writes
    sys.argv = ["sotto", "encode", folder, out, "--model", model, "--codebooks", "2", "--jobs", "1"]
    try:
        cli.main()
    except SystemExit as end:
        sys.stderr.flush()
        os._exit(end.code or 0)
    os._exit(99)

def end(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def listing(out):
    return sorted(os.listdir(out)) if os.path.isdir(out) else []

found = {}
began = time.monotonic()
found["reference"] = end(start("reference"))
duration = time.monotonic() - began

random.seed(int(os.environ.get("SEED", "0")))
found["kills"] = []
for _ in range(6):
    pid = start("killed")
    time.sleep(random.uniform(0.0, 0.3) * duration)
    os.kill(pid, signal.SIGKILL)
    found["kills"].append([end(pid), listing("killed")])
found["rerun"] = end(start("killed"))

for name in ("SIGINT", "SIGTERM", "SIGHUP"):
    pid = start(name, "started")
    while not os.path.exists("started"):
        time.sleep(0.01)
    os.remove("started")
    there = listing(name)
    os.kill(pid, signal.Signals[name])
    found[name] = [end(pid), there, listing(name), open(name + ".txt").read()]
print(json.dumps(found))
"""
FILES = 24


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, make_codec: Callable[[int], Codec]) -> Path:
    folder = tmp_path_factory.mktemp("reliability")
    make_codec(0).save(folder / "model.safetensors")
    rng = np.random.default_rng(0)
    for number in range(FILES):
        noise = rng.uniform(-0.3, 0.3, (1, 8000 * (1 + number % 3))).astype(np.float32)
        audio.write_wav(folder / "in" / f"{number:02}.wav", noise, 8000)
    return folder


@pytest.fixture(scope="module")
def found(work: Path) -> dict[str, list]:
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, "in", "model.safetensors"],
        cwd=work,
        env=environment,
        stdout=subprocess.PIPE,
        check=True,
        text=True,
        timeout=300,
    )
    return json.loads(done.stdout)


def test_a_folder_killed_at_random_moments_and_done_again_is_right(
    work: Path, found: dict[str, list]
) -> None:
    assert found["reference"] == found["rerun"] == 0
    assert all(code == -9 for code, _ in found["kills"])
    complete = [sum(name.endswith(".sc") for name in names) for _, names in found["kills"]]
    assert complete[0] < FILES  # the kills came in the middle of it
    expected = {path.name: path.read_bytes() for path in (work / "reference").iterdir()}
    rerun = {path.name: path.read_bytes() for path in (work / "killed").iterdir()}
    assert len(expected) == FILES and rerun == expected


@pytest.mark.parametrize(
    ("name", "code", "line"),
    [
        ("SIGINT", 130, "error: interrupted\n"),
        ("SIGTERM", 143, "error: ended by SIGTERM\n"),
        ("SIGHUP", 143, "error: ended by SIGHUP\n"),
    ],
)
def test_a_run_that_is_stopped_leaves_nothing_half_done(
    found: dict[str, list], name: str, code: int, line: str
) -> None:
    ended, before, after, said = found[name]
    assert (ended, said) == (code, line)
    assert len(before) == 1 and before[0].endswith(".part")
    assert after == []
