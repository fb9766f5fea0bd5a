import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from codec.codec import Codec
from infer import cli

Wav = Callable[..., Path]


@pytest.fixture
def model(codec: Codec, tmp_path: Path) -> Path:
    codec.save(tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


@pytest.fixture
def encoded(wav: Wav, model: Path, tmp_path: Path) -> Path:
    succeed("encode", wav("in.wav", 8030), tmp_path / "in.sc", "--model", model)
    return tmp_path / "in.sc"


@pytest.fixture(autouse=True)
def _no_model_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOTTO_MODEL", raising=False)
    monkeypatch.setenv("COLUMNS", "200")


def succeed(*arguments: object) -> str:
    result = CliRunner().invoke(cli.app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def fail(*arguments: object) -> str:
    """Runs a command that must end in exit code 1, one line on stderr and nothing else."""
    result = CliRunner().invoke(cli.app, [str(argument) for argument in arguments])
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == 1, result.output
    assert result.stdout == ""
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1
    return result.stderr


def sizes(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in folder.iterdir()}


def test_encode_info_decode(model: Path, wav: Wav, tmp_path: Path) -> None:
    source, target, back = wav("in.wav", 8030), tmp_path / "in.sc", tmp_path / "out.wav"
    out = succeed("encode", source, target, "--model", model, "--kbps", 2.4)
    assert target.stat().st_size == 27 + 302  # 201 frames of 2 codes of 6 bits
    assert "329 bytes" in out and "48.9 times smaller" in out and "16,104" in out
    assert "1.00 s of audio at 2.4 kbps (2 of 4 codebooks)" in out and "times real time" in out

    out = succeed("info", target)
    assert "201" in out and "2 of 6 bits" in out and "--model" in out
    assert "1.00 s" in succeed("info", target, "--model", model)

    assert "1.00 s of audio at 2.4 kbps" in succeed("decode", target, back, "--model", model)
    assert back.stat().st_size == 44 + 2 * 201 * 40
    assert sizes(tmp_path).keys() == {"in.wav", "in.sc", "out.wav", "model.safetensors"}


@pytest.mark.parametrize(
    ("options", "codebooks"),
    [
        pytest.param([], 3, id="the-models-own-rate"),
        pytest.param(["--kbps", "4.8"], 4, id="kbps"),
        pytest.param(["--codebooks", "1"], 1, id="codebooks"),
    ],
)
def test_the_rate_is_what_was_asked_for(
    model: Path, wav: Wav, tmp_path: Path, options: list[str], codebooks: int
) -> None:
    target = tmp_path / "in.sc"
    succeed("encode", wav("in.wav", 4000), target, "--model", model, *options)
    assert target.stat().st_size == 27 + 75 * codebooks


def test_the_model_is_found_in_the_environment(
    model: Path, wav: Wav, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOTTO_MODEL", str(model))
    succeed("encode", wav("in.wav", 800), tmp_path / "in.sc")
    succeed("decode", tmp_path / "in.sc", tmp_path / "out.wav")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param(["--kbps", "3"], "possible: 1.2, 2.4, 3.6, 4.8", id="impossible-rate"),
        pytest.param(["--kbps", "nan"], "possible: 1.2, 2.4, 3.6, 4.8", id="nan-rate"),
        pytest.param(["--codebooks", "9"], "1 to 4", id="impossible-codebooks"),
        pytest.param(["--codebooks", "0"], "1 to 4", id="no-codebooks"),
        pytest.param(["--codebooks", "2", "--kbps", "2.4"], "give one of them", id="both"),
    ],
)
def test_an_impossible_rate_names_the_possible_ones(
    model: Path, wav: Wav, tmp_path: Path, options: list[str], message: str
) -> None:
    source, before = wav("in.wav", 800), sizes(tmp_path)
    assert message in fail("encode", source, tmp_path / "in.sc", "--model", model, *options)
    assert sizes(tmp_path) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param("encode {text} out.sc --model {model}", "text.mp3", id="text-called-mp3"),
        pytest.param("encode {empty} out.sc --model {model}", "empty.wav", id="empty-file"),
        pytest.param("encode gone.wav out.sc --model {model}", "gone.wav", id="missing-input"),
        pytest.param("encode {folder} out.sc --model {model}", "is a folder", id="input-folder"),
        pytest.param("encode {wav} {folder} --model {model}", "is a folder", id="output-folder"),
        pytest.param("encode {wav} no/out.sc --model {model}", "no folder", id="no-such-folder"),
        pytest.param("encode {wav} out.mp3 --model {model}", "writes .sc files", id="not-sc"),
        pytest.param(
            "encode {wav} {wav} --model {model} --force", "is the input", id="onto-itself"
        ),
        pytest.param("encode {wav} {sc} --model {model}", "--force", id="output-is-there"),
        pytest.param("encode {sc} out.sc --model {model}", "encoded already", id="encode-sc"),
        pytest.param("encode {wav} out.sc", "SOTTO_MODEL", id="no-model"),
        pytest.param("encode {wav} out.sc --model {sc}", "in.sc", id="sc-as-model"),
        pytest.param("encode {wav} out.sc --model gone", "gone", id="missing-model"),
        pytest.param("encode {wav} out.sc --model {folder}", "folder", id="folder-as-model"),
        pytest.param("decode {model} out.wav --model {model}", "not a .sc", id="decode-model"),
        pytest.param("decode {wav} out.wav --model {model}", "not a .sc", id="decode-audio"),
        pytest.param("decode {empty} out.wav --model {model}", "is empty", id="decode-empty"),
        pytest.param("decode {cut} out.wav --model {model}", "cut short", id="decode-cut"),
        pytest.param("decode gone.sc out.wav --model {model}", "gone.sc", id="decode-missing"),
        pytest.param(
            "decode {sc} out.mp3 --model {model}", "writes .wav files", id="decode-to-mp3"
        ),
        pytest.param("decode {sc} {wav} --model {model}", "--force", id="decode-onto"),
        pytest.param("decode {sc} out.wav --model {other}", "encoded with", id="other-model"),
        pytest.param("info gone", "gone: No such file", id="info-missing"),
        pytest.param("info {folder}", "folder: Is a directory", id="info-folder"),
        pytest.param("info {text}", "text.mp3", id="info-text"),
        pytest.param("info {empty}", "empty.wav", id="info-empty"),
        pytest.param("evaluate {model} {folder}", "folder", id="evaluate-empty-folder"),
        pytest.param("evaluate {model} gone", "gone", id="evaluate-missing-folder"),
        pytest.param("evaluate {sc} {folder}", "in.sc", id="evaluate-sc"),
        pytest.param("evaluate {model} . --bitrates 1.2,x", "1.2,x", id="evaluate-no-number"),
        pytest.param("evaluate {model} . --bitrates 2", "1.2, 2.4", id="evaluate-impossible"),
        pytest.param("evaluate {model} . --csv {sc}", "--force", id="evaluate-csv-is-there"),
    ],
)
def test_bad_input_ends_in_one_line_and_changes_nothing(
    arguments: str,
    message: str,
    model: Path,
    encoded: Path,
    tmp_path: Path,
    make_codec: Callable[[int], Codec],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    paths = {
        "wav": tmp_path / "in.wav",
        "sc": encoded,
        "model": model,
        "text": tmp_path / "text.mp3",
        "empty": tmp_path / "empty.wav",
        "cut": tmp_path / "cut.sc",
        "other": tmp_path / "other.safetensors",
        "folder": tmp_path / "folder",
    }
    paths["text"].write_text("No sound in here, only words.\n" * 50)
    paths["empty"].touch()
    paths["cut"].write_bytes(encoded.read_bytes()[:100])
    paths["folder"].mkdir()
    if "{other}" in arguments:
        make_codec(1).save(paths["other"])
    before = sizes(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert message in fail(*arguments.format(**paths).split())
    assert sizes(tmp_path) == before


def test_force_replaces_an_output(model: Path, encoded: Path, tmp_path: Path) -> None:
    size = encoded.stat().st_size
    encoded.write_text("something else")
    succeed("encode", tmp_path / "in.wav", encoded, "--model", model, "--force")
    assert encoded.stat().st_size == size


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(["encode", "a", "b", "--mdel", "c"], "--model", id="misspelt-option"),
        pytest.param(["enocde", "a", "b"], "encode", id="misspelt-command"),
        pytest.param(["encode", "a"], "OUT", id="argument-missing"),
        pytest.param(["encode", "a", "b", "--kbps", "much"], "--kbps", id="no-number"),
    ],
)
def test_a_command_typed_wrongly_is_told_what_would_do(arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(cli.app, arguments)
    assert result.exit_code == 2 and message in result.stderr
    assert "Traceback" not in result.output


def test_info_says_what_a_model_is(model: Path, codec: Codec) -> None:
    out = succeed("info", model)
    assert codec.fingerprint in out and "8,000 Hz" in out and "1.2 to 4.8 kbps" in out


def test_info_says_what_audio_is(wav: Wav) -> None:
    out = succeed("info", wav("in.wav", 6000, sample_rate=24000, channels=2))
    assert "pcm_s16le" in out and "0.25 s" in out and "24,000 Hz" in out


def test_info_says_what_a_cut_file_still_holds(encoded: Path) -> None:
    encoded.write_bytes(encoded.read_bytes()[:100])
    assert "32 of 201 frames" in succeed("info", encoded)  # 73 bytes of 18 bits a frame


def test_info_says_that_a_file_needs_another_model(
    encoded: Path, make_codec: Callable[[int], Codec], tmp_path: Path
) -> None:
    other = make_codec(1)
    other.save(tmp_path / "other.safetensors")
    out = succeed("info", encoded, "--model", tmp_path / "other.safetensors")
    assert "another model" in out and other.fingerprint in out


def test_names_that_look_like_markup_are_printed_as_they_are(wav: Wav) -> None:
    assert "[red]x[/red] :smile:.wav" in succeed("info", wav("[red]x[/red] :smile:.wav", 800))


def test_evaluate_scores_a_folder(model: Path, wav: Wav, tmp_path: Path) -> None:
    (tmp_path / "audio").mkdir()
    for name in ("a.wav", "b.wav"):
        wav(f"audio/{name}", 8000)
    csv, plot = tmp_path / "scores.csv", tmp_path / "plot.png"
    arguments = ["--bitrates", "1.2,4.8", "--csv", csv, "--plot", plot, "--workers", 1]
    out = succeed("evaluate", model, tmp_path / "audio", *arguments)
    assert "1.2" in out and "4.8" in out
    assert len(csv.read_text().splitlines()) == 1 + 2 * 2
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_the_schema_is_json_that_names_the_keys() -> None:
    schema = json.loads(succeed("schema"))
    assert "model" in schema["properties"]


@pytest.mark.parametrize(
    ("fault", "line"),
    [
        pytest.param(OSError(28, "No space left on device", "x.sc"), "x.sc: No space", id="disk"),
        pytest.param(PermissionError(13, "Permission denied", "x.sc"), "x.sc: Perm", id="rights"),
        pytest.param(OSError("torn"), "torn", id="no-number"),
    ],
)
def test_what_the_system_refuses_is_one_line(
    model: Path, monkeypatch: pytest.MonkeyPatch, fault: OSError, line: str
) -> None:
    def failing(*_: object, **__: object) -> None:
        raise fault

    monkeypatch.setattr(Codec, "load", failing)
    assert line in fail("info", model)


def test_ctrl_c_is_130(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Codec, "load", interrupted)
    result = CliRunner().invoke(cli.app, ["info", str(model)])
    assert result.exit_code == 130 and "Traceback" not in result.output


@pytest.mark.skipif(os.name != "posix", reason="sends a signal")
def test_ctrl_c_of_a_process_leaves_nothing_behind(model: Path, wav: Wav, tmp_path: Path) -> None:
    source, before = wav("in.wav", 8000), {"in.wav", "model.safetensors", "started"}
    # Stops in the middle of writing, and says so by a file.
    program = (
        "import pathlib, sys, time\n"
        "from infer import bitstream, cli\n"
        "def pack(*_):\n"
        f"    pathlib.Path({str(tmp_path / 'started')!r}).touch()\n"
        "    time.sleep(60)\n"
        "bitstream.pack = pack\n"
        "cli.main()\n"
    )
    arguments = ["encode", source, tmp_path / "in.sc", "--model", model]
    process = subprocess.Popen(
        [sys.executable, "-c", program, *arguments], stderr=subprocess.PIPE, text=True
    )
    try:
        while not (tmp_path / "started").exists() and process.poll() is None:
            time.sleep(0.02)
        assert len(sizes(tmp_path)) == 4  # with what has been written so far
        process.send_signal(signal.SIGINT)
        error = process.communicate(timeout=30)[1]
    finally:
        process.kill()
    assert process.returncode == 130
    assert error.startswith("error: interrupted") and error.count("\n") == 1
    assert sizes(tmp_path).keys() == before


def test_help_does_not_load_the_model_code() -> None:
    program = (
        "import sys\n"
        "from infer import cli\n"
        "try:\n"
        "    cli.app(['--help'])\n"
        "except SystemExit as end:\n"
        "    assert end.code == 0\n"
        "heavy = {'torch', 'numpy', 'av', 'matplotlib', 'pydantic_core'} & sys.modules.keys()\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.DEVNULL)
