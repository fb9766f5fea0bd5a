import math
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

from codec.evaluation.intervals import summary
from codec.evaluation.judges import METRICS
from codec.evaluation.results import Evaluation, Original, Row, Skipped


def row(file: str, kbps: float, value: float, codec: str = "Sotto", metrics=METRICS) -> Row:
    books = int(kbps / 0.5) if codec.startswith("Sotto") else None
    return Row(file, 2.0, codec, books, kbps, kbps + 0.01, dict.fromkeys(metrics, value))


def shown(evaluation: Evaluation) -> str:
    console = Console(width=80)
    with console.capture() as capture:
        console.print(evaluation.table())
    return capture.get()


@pytest.fixture
def all_metrics() -> Evaluation:
    rows = [row(file, kbps, 4.44 + len(file)) for file in ("a", "bb") for kbps in (1.5, 3)]
    rows += [row(file, 6, 4.0 + len(file), "Sotto ×2") for file in ("a", "bb")]
    alone = [name for name, metric in METRICS.items() if metric.alone]
    originals = [Original(file, 2.0, dict.fromkeys(alone, 4.9)) for file in ("a", "bb")]
    return Evaluation(rows, [], originals, list(METRICS))


def test_tables_of_any_number_of_metrics_fit_a_terminal(all_metrics):
    tables = [part for part in all_metrics.table().renderables if isinstance(part, Table)]
    assert 3 <= len(tables) <= 6
    assert all(Console(width=200).measure(table).maximum <= 80 for table in tables)
    text = shown(all_metrics)
    for metric in METRICS.values():
        assert text.count(f" {metric.heading}") >= 1
    assert "…" not in text


def test_originals_have_a_row_where_a_metric_judges_them(all_metrics, tmp_path):
    text = shown(all_metrics)
    tables = text.split(" codec ")[1:]
    assert "original" not in tables[0]  # PESQ and the like
    assert any("original" in table and "4.90" in table and "DNSMOS" in table for table in tables)
    all_metrics.plot(tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_means_weigh_files_alike_and_rates_by_length():
    rows = [row("a", 3, 1.0), Row("b", 6.0, "Sotto", 6, 3, 3.41, dict.fromkeys(METRICS, 2.0))]
    (rate,) = Evaluation(rows, []).summaries()
    assert rate.intervals["stoi"] == summary([1.0, 2.0])
    assert rate.real_kbps == pytest.approx((2 * 3.01 + 6 * 3.41) / 8)


@pytest.mark.parametrize(
    ("losses", "told"),
    [
        (None, "† perhaps learnt from, as the model file does not tell its losses: PESQ-wb"),
        ({"mel": 1.0, "disturbance": 0.5}, "† learnt from, so no independent judge: PESQ-wb"),
        ({"waveform": 1.0}, ""),
    ],
)
def test_what_a_model_learnt_from_is_marked(losses, told):
    scored = ["pesq_wb", "stoi"]
    evaluation = Evaluation([row("a", 3, 1.0, metrics=scored)], [], [], scored, losses)
    text = " ".join(shown(evaluation).split())
    assert told in text and ("†" in text) == bool(told)
    assert ("PESQ-wb† STOI" in text) == bool(told)


def test_undefined_scores_and_skipped_files_are_counted():
    rows = [row("a", 3, math.nan, metrics=["stoi"]), row("b", 3, 0.5, metrics=["stoi"])]
    skipped = [Skipped("c", "too short"), Skipped("d", "too short")]
    text = shown(Evaluation(rows, skipped, [], ["stoi"]))
    assert "1 undefined" in text and "2 files passed over: 2 × too short" in text


def test_a_plot_has_room_for_more_codecs_than_styles(tmp_path: Path):
    rows = [row("a", 3, 1.0, f"Sotto ×{n}", ["stoi"]) for n in range(2, 9)]
    Evaluation(rows, [], [], ["stoi"]).plot(tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 5000
