import csv
import math

import pytest

from codec.errors import SottoError
from codec.evaluation.intervals import summary
from codec.evaluation.results import Evaluation, Original, Row
from codec.evaluation.score_files import read_scores, write_scores

METRICS = ["stoi", "distillmos"]


def row(file: str, codec: str, books: int | None, kbps: float, stoi: float) -> Row:
    return Row(file, 1.5, codec, books, kbps, kbps + 0.1, {"stoi": stoi, "distillmos": 3.25})


@pytest.fixture
def evaluation() -> Evaluation:
    rows = [
        row("a, b.wav", "Sotto", 3, 1.5, 0.5),
        row("a, b.wav", "Sotto", 6, 3, 0.75),
        row("c.wav", "Sotto", 3, 1.5, 0.625),
        row("c.wav", "Sotto ×2", 3, 1.5, 0.5),
        row("c.wav", "Opus", None, 6, 0.5),
    ]
    originals = [Original("a, b.wav", 1.5, {"distillmos": 4.5})]
    return Evaluation(rows, [], originals, METRICS, {"mel": 2.0, "disturbance": 0.3})


def test_what_is_written_is_read_again(evaluation, tmp_path):
    write_scores(evaluation, tmp_path / "scores.csv")
    assert {path.name for path in tmp_path.iterdir()} == {"scores.csv", "scores-summary.csv"}
    assert read_scores(tmp_path / "scores.csv") == evaluation


def test_columns_have_the_names_of_metrics(evaluation, tmp_path):
    write_scores(evaluation, tmp_path / "scores.csv")
    with (tmp_path / "scores.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["stoi"] for line in lines] == ["nan", "0.5", "0.75", "0.625", "0.5", "0.5"]
    assert [line["codec"] for line in lines][:2] == ["original", "Sotto"]
    assert lines[0]["kbps"] == "" and lines[0]["distillmos"] == "4.5"
    assert [line["losses"] for line in lines] == ["", *["mel:2 disturbance:0.3"] * 4, ""]


def test_the_summary_has_intervals_by_rate(evaluation, tmp_path):
    write_scores(evaluation, tmp_path / "scores.csv")
    with (tmp_path / "scores-summary.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["codec"] for line in lines] == ["original", "Sotto", "Sotto", "Sotto ×2", "Opus"]
    assert lines[0]["stoi_mean"] == "" and lines[0]["distillmos_mean"] == "4.5"
    interval = summary([0.5, 0.625])
    assert float(lines[1]["stoi_mean"]) == interval.mean
    assert float(lines[1]["stoi_low"]) == pytest.approx(interval.low)
    assert lines[1]["stoi_undefined"] == "0" and lines[1]["files"] == "2"


def test_a_file_of_before_losses_were_written_is_read(tmp_path):
    old = tmp_path / "old.csv"
    old.write_text(
        "file,seconds,codec,n_quantizers,kbps,real_kbps,pesq_wb,something\n"
        "a.wav,1.0,Sotto,6,3.0,3.01,nan,x\n"
    )
    evaluation = read_scores(old)
    assert (evaluation.metrics, evaluation.losses) == (["pesq_wb"], None)
    assert math.isnan(evaluation.rows[0].scores["pesq_wb"])


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "no scores of files"),
        ("a,b\n1,2\n", "no scores of files"),
        ("file,seconds,codec,n_quantizers,kbps,real_kbps,stoi\na,1,Sotto,6,x,3,1\n", "damaged"),
        (None, "cannot be read"),
    ],
    ids=["empty", "other", "damaged", "missing"],
)
def test_what_is_no_csv_of_scores_is_told(tmp_path, text, told):
    path = tmp_path / "scores.csv"
    if text is not None:
        path.write_text(text)
    with pytest.raises(SottoError, match=f"scores.csv: {told}"):
        read_scores(path)
