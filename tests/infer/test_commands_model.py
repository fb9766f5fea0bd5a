import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from torch.utils.tensorboard import SummaryWriter
from typer.testing import CliRunner

from codec import shipped
from codec.codec import Codec
from infer import cli

Wav = Callable[..., Path]

pytestmark = pytest.mark.usefixtures("quiet_environment")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


def succeed(*arguments: object) -> str:
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture
def speech(wav: Wav, tmp_path: Path) -> Path:
    """A folder of two recordings."""
    (tmp_path / "speech").mkdir()
    for name in ("a.wav", "b.wav"):
        wav(f"speech/{name}", 8000)
    return tmp_path / "speech"


@pytest.fixture
def shipped_model(model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(shipped, "SHIPPED", model)
    return model


def test_without_a_name_the_shipped_model_does_it(
    shipped_model: Path, make_codec: Callable[[int], Codec], speech: Path, tmp_path: Path
) -> None:
    coded = tmp_path / "a.sc"
    succeed("encode", speech / "a.wav", coded)
    succeed("decode", coded, tmp_path / "a.wav")
    assert "1.2" in succeed("evaluate", speech, "--bitrates", 1.2, "--workers", 1)
    assert "with tables" in succeed("tables", speech, tmp_path / "tables.safetensors")
    make_codec(1).save(tmp_path / "other.safetensors")
    result = run("decode", coded, tmp_path / "b.wav", "--model", tmp_path / "other.safetensors")
    assert result.exit_code == 1 and "was encoded with model" in result.stderr
    succeed("encode", speech / "a.wav", coded, "--model", tmp_path / "other.safetensors", "--force")
    result = run("decode", coded, tmp_path / "b.wav")
    assert result.exit_code == 1 and "was encoded with model" in result.stderr


def test_opus_is_scored_beside_the_model(model: Path, speech: Path, tmp_path: Path) -> None:
    csv = tmp_path / "scores.csv"
    arguments = ["--bitrates", "1.2,4.8", "--opus", "8,12", "--csv", csv, "--workers", 1]
    arguments += ["--metrics", "stoi,buzz"]
    out = succeed("evaluate", model, speech, *arguments)
    assert out.count("Sotto") == 2 and out.count("Opus") == 2
    assert len(csv.read_text().splitlines()) == 1 + 2 * 4


def test_a_model_is_held_against_the_scores_of_another(
    model: Path, make_codec: Callable[[int], Codec], speech: Path, tmp_path: Path
) -> None:
    other, csv = make_codec(1), tmp_path / "scores.csv"
    other.losses = {"disturbance": 1.0}
    other.save(tmp_path / "other.safetensors")
    common = [speech, "--bitrates", "1.2", "--metrics", "pesq_wb,mel_distance", "--workers", 1]
    out = succeed("evaluate", tmp_path / "other.safetensors", *common, "--csv", csv)
    assert "PESQ-wb†" in out and "mel (dB)†" not in out
    out = succeed("evaluate", model, *common, "--tandem", "2", "--against", csv)
    assert "Sotto ×2" in out and "Against scores.csv" in out and "2 files" in out
    lines = {line.split()[2]: line for line in out.splitlines() if line.count("±") == 1}
    assert "before, after?" in lines["PESQ-wb"] and "after?" in lines["mel"]
    assert "before" not in lines["mel"]
    assert "±" in lines["mel"] and "%" not in lines["mel"]


def test_a_package_that_is_missing_is_told(
    model: Path, speech: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    hidden = ("visqol", "speechmos", "distillmos", "resemblyzer")
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name in hidden else find(name)
    )
    result = run("evaluate", model, speech, "--metrics", "stoi,visqol")
    assert result.exit_code == 1 and result.stderr.count("\n") == 1
    assert "visqol needs visqol, which is not installed" in result.stderr
    assert "pip install 'sotto[metrics]'" in result.stderr
    out = succeed("evaluate", model, speech, "--metrics", "all", "--workers", 1)
    assert "STOI" in out and "ViSQOL" not in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param("evaluate {model}", "FOLDER is missing", id="no-folder"),
        pytest.param("evaluate {model} a b", "expected [MODEL] FOLDER", id="too-many"),
        pytest.param("evaluate {model} a --model b", "two models", id="two-models"),
        pytest.param("tables {speech}", "OUT is missing", id="tables-of-nothing"),
        pytest.param("export {model}", "OUT is missing", id="export-of-nothing"),
    ],
)
def test_names_that_do_not_fit_are_told(
    arguments: str, message: str, model: Path, speech: Path
) -> None:
    result = run(*arguments.format(model=model, speech=speech).split())
    assert result.exit_code == 2 and message in result.stderr


@pytest.mark.parametrize(("rates", "message"), [("8,x", "--opus '8,x'"), ("999", "rate of Opus")])
def test_rates_that_opus_lacks_are_told(
    model: Path, speech: Path, rates: str, message: str
) -> None:
    result = run("evaluate", model, speech, "--opus", rates)
    assert result.exit_code == 1 and message in result.stderr


def test_report_makes_a_page(shipped_model: Path, speech: Path, tmp_path: Path) -> None:
    target = tmp_path / "page"
    arguments = ["report", speech, "--out", target, "--kbps", "1.2,4.8", "--workers", 1]
    arguments += ["--metrics", "pesq_wb,buzz"]
    out = succeed(*arguments, "--opus", "8")
    assert "2 recordings" in out and out.count("Sotto") == 2
    assert (target / "index.html").is_file()
    assert run(*arguments).exit_code == 1
    succeed(*arguments, "--opus", "", "--clips", 1, "--force")
    assert not (target / "02").exists()


def test_usage_shows_every_codebook(model: Path, speech: Path, tmp_path: Path) -> None:
    plot = tmp_path / "usage.png"
    out = succeed("usage", model, speech, "--plot", plot)
    assert "Codebooks of 64 rows over 400 frames" in out and "perplexity" in out
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_curves_of_a_run(tmp_path: Path) -> None:
    with SummaryWriter(str(tmp_path / "run/tensorboard")) as writer:
        writer.add_scalar("loss/mel", 1.0, 7)
    target = tmp_path / "curves.png"
    assert "1 curve, up to step 7" in succeed("curves", tmp_path / "run", target)
    assert target.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param("report {speech} --out page", "no model", id="report-without-model"),
        pytest.param("report {model} empty --out page --kbps 1.2", "empty", id="report-empty"),
        pytest.param("report {model} {speech} --out page --kbps 2", "1.2, 2.4", id="report-rate"),
        pytest.param("report {model} {speech} --out {speech}", "name another", id="report-onto"),
        pytest.param("usage {model} empty", "empty", id="usage-empty"),
        pytest.param("evaluate {model} {speech} --metrics stoi,x", "'x' is no", id="metric"),
        pytest.param("evaluate {model} {speech} --metrics dwer", "--whisper", id="dwer"),
        pytest.param("evaluate {model} {speech} --tandem 1", "from 2 up", id="tandem-of-one"),
        pytest.param("evaluate {model} {speech} --tandem x", "from 2 up", id="tandem-of-none"),
        pytest.param("evaluate {model} {speech} --against a.csv", "a.csv: cannot", id="against"),
        pytest.param("usage {speech}", "no model", id="usage-without-model"),
        pytest.param("curves gone out.png", "no such run", id="curves-of-nothing"),
        pytest.param("curves empty out.png", "no TensorBoard events", id="curves-empty"),
        pytest.param("curves empty no/out.png", "no folder", id="curves-to-nowhere"),
    ],
)
def test_bad_input_ends_in_one_line(
    arguments: str,
    message: str,
    model: Path,
    speech: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    before = sorted(tmp_path.rglob("*"))
    result = run(*arguments.format(model=model, speech=speech).split())
    assert result.exit_code == 1 and message in result.stderr
    assert result.stderr.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before
