import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

TINY = """
name: tiny
threads: 1
model:
  hop_length: 20
  strides: [4, 5]
  dimension: 8
  encoder: {channels: 4, dilations: [1]}
  decoder: {channels: 4, dilations: [1]}
  quantizer: {n_quantizers: 2, codebook_size: 16}
  default_kbps: 6.4
data: {source: random, segment_samples: 800, batch_size: 2, workers: 0}
losses: {mel: {n_ffts: [64]}, adversarial: {weight: 0}, feature_matching: {weight: 0}}
discriminators: {stft: null}
training: {steps: 2}
validation: {clips: 1, workers: 0}
"""


def run_train(*arguments, cwd):
    return subprocess.run(
        [sys.executable, str(ROOT / "train.py"), *map(str, arguments)],
        cwd=cwd,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": str(cwd)},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_paths_are_printed_as_they_are(tmp_path):
    (tmp_path / "tiny.yaml").write_text(TINY.replace("source: random", 'path: "x[/old]y"'))
    done = run_train("tiny.yaml", cwd=tmp_path)
    assert done.returncode == 1
    assert "x[/old]y: there is no such" in done.stderr


def test_trains_from_yaml_and_overrides_and_says_where_the_models_are(tmp_path):
    (tmp_path / "tiny.yaml").write_text(TINY)
    done = run_train("tiny.yaml", "name=other", "training.steps=1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "runs" / "other"
    assert "runs/other/last.safetensors" in done.stderr
    assert (folder / "last.safetensors").is_file()
    assert "steps: 1\n" in (folder / "config.yaml").read_text()
    again = run_train("tiny.yaml", "name=other", "training.steps=1", cwd=tmp_path)
    assert again.returncode == 1
    assert "add --resume" in again.stderr


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("training: {stpes: 3}", "did you mean training.steps?"),
        ("\x00\x01\x02", "not valid YAML"),
        (TINY + "codec: fast", "codec: 'fast': unknown key"),
        (TINY.replace("source: random", "path: nowhere"), "nowhere"),
        (TINY.replace("steps: 2", "steps: 2, initial_model: no.safetensors"), "no.safetensors"),
    ],
    ids=["misspelt", "binary", "unknown-section", "no-corpus", "no-model"],
)
def test_mistakes_end_in_one_line_and_leave_nothing(tmp_path, text, told):
    (tmp_path / "bad.yaml").write_text(text)
    done = run_train("bad.yaml", cwd=tmp_path)
    assert done.returncode == 1
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert told in lines[0]
    # Hidden folders are the caches that libraries keep in a home.
    assert [e.name for e in tmp_path.iterdir() if not e.name.startswith(".")] == ["bad.yaml"]
