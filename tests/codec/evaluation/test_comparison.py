import numpy as np
import pytest
import torch
from rich.console import Console

from codec.audio import write_wav
from codec.building import build_autoencoder, inference_tensors
from codec.codec import Codec
from codec.config_model import ModelConfig, QuantizerConfig, SEANetConfig
from codec.data.manifest import Entry
from codec.evaluation.comparison import changed_codes, score_changes, score_table
from codec.evaluation.metrics import Scores
from codec.evaluation.report import Evaluation, Row


def row(file: str, kbps: float, pesq: float) -> Row:
    return Row(file, 1.0, "Sotto", 1, kbps, kbps, Scores(pesq, pesq, pesq / 10, 1.0, 0.1))


def test_changes_are_taken_file_by_file():
    """Recordings differ by 1; what changed is 0.1 and 0.3, so the interval is of these."""
    before = Evaluation([row("a", 2, 1.0), row("b", 2, 2.0), row("a", 1, 1.5)], [])
    after = Evaluation([row("b", 2, 2.3), row("a", 2, 1.1), row("a", 1, 1.5)], [])
    lower, higher = score_changes(before, after)
    assert (lower.kbps, lower.n_files, higher.kbps, higher.n_files) == (1, 1, 2, 2)
    assert lower.intervals["pesq_wb"].mean == 0
    assert higher.intervals["pesq_wb"].mean == pytest.approx(0.2)
    assert higher.intervals["pesq_wb"].half_width == pytest.approx(12.7062 * 0.1, rel=1e-4)
    console = Console(width=80)
    with console.capture() as capture:
        console.print(score_table([lower, higher], "Change"))
    assert "Change, 2 files" in capture.get()
    assert "+0.200±1.271" in capture.get()


def test_codes_that_differ_are_counted_by_codebook(tmp_path):
    """A last codebook whose rows are turned about tells every code but its middle differently."""
    half = SEANetConfig(channels=2, dilations=[1])
    config = ModelConfig(
        hop_length=20,
        strides=[4, 5],
        dimension=4,
        encoder=half,
        decoder=half,
        quantizer=QuantizerConfig(n_quantizers=3, codebook_size=8),
        default_kbps=2.4,
    )
    torch.manual_seed(0)
    tensors = inference_tensors(build_autoencoder(config))
    name = next(name for name in tensors if name.endswith("2.codebook"))
    turned = tensors | {name: tensors[name].flip(0)}
    noise = np.random.default_rng(0).standard_normal((1, 16_000)).astype(np.float32)
    write_wav(tmp_path / "a.wav", 0.1 * noise, 16_000)
    files = [Entry(tmp_path / "a.wav", 1.0)]
    told = []
    codecs = Codec(config, tensors), Codec(config, turned)
    assert changed_codes(*codecs, files, lambda: told.append(1)) == [0, 0, 1]
    assert changed_codes(codecs[0], codecs[0], files, lambda: told.append(1)) == [0, 0, 0]
    assert len(told) == 2
