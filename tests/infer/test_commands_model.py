from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
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
    out = succeed("evaluate", model, speech, *arguments)
    assert out.count("Sotto") == 2 and out.count("Opus") == 2
    assert len(csv.read_text().splitlines()) == 1 + 2 * 4


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
