import re
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from codec.codec import Codec
from infer import cli

pytestmark = pytest.mark.usefixtures("quiet_environment")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


def test_the_smaller_model_is_another_and_encodes(
    model: Path, codec: Codec, wav: Callable[..., Path], tmp_path: Path
) -> None:
    small = tmp_path / "small.safetensors"
    result = run("shrink", model, small)
    assert result.exit_code == 0, result.output
    half = Codec.load(small)
    assert codec.fingerprint in result.stdout and half.fingerprint in result.stdout
    assert half.fingerprint != codec.fingerprint
    assert small.stat().st_size < model.stat().st_size
    coded = tmp_path / "a.sc"
    assert run("encode", wav("a.wav", 4000), coded, "--model", small).exit_code == 0
    assert run("decode", coded, tmp_path / "b.wav", "--model", small).exit_code == 0
    assert run("decode", coded, tmp_path / "c.wav", "--model", model).exit_code == 1
    assert "is there already" in run("shrink", model, small).stderr


def test_what_it_costs_is_measured_on_speech(
    model: Path, wav: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "speech").mkdir()
    for name in ("a.wav", "b.wav"):
        wav(f"speech/{name}", 8000)
    arguments = ["--speech", tmp_path / "speech", "--bitrates", "1.2,4.8", "--workers", 1]
    result = run("shrink", model, tmp_path / "small.safetensors", *arguments)
    assert result.exit_code == 0, result.output
    assert "interval, 2 files" in result.stdout
    assert re.search(r"4\.8 +PESQ-nb .*[+-]\d", result.stdout)
    assert re.search(r"first codebook to last:( \d+\.\d\d%,){3} \d+\.\d\d%", result.stdout)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param("{model} out.safetensors --bitrates 2", "1.2, 2.4", id="impossible-rate"),
        pytest.param("{model} out.safetensors --speech gone", "gone", id="no-speech"),
        pytest.param("gone out.safetensors", "gone", id="no-model"),
        pytest.param("{model} no/out.safetensors", "no folder", id="no-folder"),
    ],
)
def test_bad_input_ends_in_one_line_and_writes_nothing(
    arguments: str, message: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    result = run("shrink", *arguments.format(model=model).split())
    assert result.exit_code == 1 and message in result.stderr
    assert result.stderr.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before
