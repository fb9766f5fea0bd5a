import numpy as np
import pytest
import torch
from rich.console import Console
from rich.table import Table

from codec.audio import write_wav
from codec.building import build_autoencoder, inference_tensors
from codec.codec import Codec
from codec.config_model import ModelConfig, QuantizerConfig, SEANetConfig
from codec.data.manifest import Entry
from codec.errors import SottoError
from codec.evaluation.comparison import changed_codes, score_changes, score_table
from codec.evaluation.results import Evaluation, Row

SCORED = ["pesq_wb", "mel_distance", "pauses"]


def row(file: str, kbps: float, pesq: float, mel: float = 1.0, codec: str = "Sotto") -> Row:
    scores = {"pesq_wb": pesq, "mel_distance": mel, "pauses": mel - 2}
    return Row(file, 1.0, codec, 1, kbps, kbps, scores)


def evaluation(*rows: Row, losses: dict[str, float] | None = None) -> Evaluation:
    return Evaluation(list(rows), [], [], SCORED, losses)


def shown(table: Table) -> str:
    console = Console(width=80)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def test_changes_are_taken_file_by_file():
    """Recordings differ by 1; what changed is 0.1 and 0.3, so the interval is of these."""
    before = evaluation(row("a", 2, 1.0), row("b", 2, 2.0), row("a", 1, 1.5))
    after = evaluation(row("b", 2, 2.3), row("a", 2, 1.1), row("a", 1, 1.5))
    lower, higher = score_changes(before, after)
    assert (lower.kbps, lower.n_files, higher.kbps, higher.n_files) == (1, 1, 2, 2)
    assert lower.changes["pesq_wb"].difference.mean == 0
    change = higher.changes["pesq_wb"]
    assert (change.before, change.after) == (1.5, pytest.approx(1.7))
    assert change.difference.mean == pytest.approx(0.2)
    assert change.difference.half_width == pytest.approx(12.7062 * 0.1, rel=1e-4)
    text = shown(score_table([lower, higher], "Change", {"the model": None}))
    assert "Change, 2 files" in text
    assert "+0.200±1.271" in text and "…" not in text


def test_better_is_what_the_metric_says():
    """A smaller distance is; so is a level in pauses that came nearer to 0 from either side."""
    files = "abcd"
    before = evaluation(*(row(file, 3, 1, mel=4 + n / 100) for n, file in enumerate(files)))
    after = evaluation(*(row(file, 3, 1, mel=3 + n / 90) for n, file in enumerate(files)))
    (change,) = score_changes(before, after)
    verdicts = {name: one.verdict for name, one in change.changes.items()}
    assert verdicts == {"pesq_wb": "–", "mel_distance": "better", "pauses": "better"}
    (back,) = score_changes(after, before)
    assert back.changes["mel_distance"].verdict == "worse"
    assert back.changes["pauses"].difference.mean == -change.changes["pauses"].difference.mean


def test_rates_are_paired_with_the_nearest_and_codecs_with_their_like():
    before = evaluation(row("a", 1.6, 1), row("a", 3.2, 2), row("a", 3, 9, codec="Sotto ×2"))
    after = evaluation(row("a", 1.5, 2), row("a", 3, 4), row("a", 6, 1, codec="Opus"))
    lower, higher = score_changes(before, after)
    assert (lower.before_kbps, higher.before_kbps) == (1.6, 3.2)
    assert higher.changes["pesq_wb"].difference.mean == 2
    assert "3.2 → 3" in shown(score_table([lower, higher], "Change", {}))


def test_an_undefined_score_leaves_its_pair_out():
    before = evaluation(row("a", 3, float("nan")), row("b", 3, 1))
    (change,) = score_changes(before, evaluation(row("a", 3, 3), row("b", 3, 2)))
    assert change.changes["pesq_wb"].difference.n == 1
    assert change.changes["pesq_wb"].after == 2
    line = next(
        line for line in shown(score_table([change], "", {})).splitlines() if "PESQ" in line
    )
    assert "+1.000 " in line and "nan" not in line


def test_what_has_nothing_in_common_is_told():
    with pytest.raises(SottoError, match="no recording in common"):
        score_changes(evaluation(row("a", 3, 1)), evaluation(row("b", 3, 1)))
    other = Evaluation([Row("a", 1.0, "Sotto", 1, 3, 3, {"stoi": 1.0})], [], [], ["stoi"])
    with pytest.raises(SottoError, match="no metric in common"):
        score_changes(evaluation(row("a", 3, 1)), other)


def test_each_metric_says_which_model_learnt_from_it():
    changes = score_changes(evaluation(row("a", 3, 1)), evaluation(row("a", 3, 1)))
    losses = {"before": {"mel": 1.0, "disturbance": 0.5}, "after": None}
    lines = shown(score_table(changes, "Change", losses)).splitlines()
    assert [line.split()[-2:] for line in lines if "PESQ" in line] == [["before,", "after?"]]
    assert [line.split()[-1] for line in lines if "pauses" in line] == ["none"]


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
