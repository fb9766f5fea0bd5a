import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from typer.testing import CliRunner

from codec import audio
from codec.codec import Codec
from infer import bitstream, cli

Wav = Callable[..., Path]

pytestmark = pytest.mark.usefixtures("quiet_environment")


@pytest.fixture
def encoded(wav: Wav, model: Path, tmp_path: Path) -> Path:
    succeed("encode", wav("in.wav", 8030), tmp_path / "in.sc", "--model", model)
    return tmp_path / "in.sc"


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


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


def sizes(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in folder.iterdir()}


def shape(path: Path) -> tuple[int, int, int]:
    """Channels, samples, rate."""
    wave, rate = audio.read(path)
    return (*wave.shape, rate)  # type: ignore[return-value]


def test_encode_info_decode(model: Path, wav: Wav, tmp_path: Path) -> None:
    source, target, back = wav("in.wav", 8030), tmp_path / "in.sc", tmp_path / "out.wav"
    out = succeed("encode", source, target, "--model", model, "--kbps", 2.4)
    assert f"{target.stat().st_size} bytes, " in out and "times smaller than the 16,104" in out
    assert "1.00 s of audio at 2.4 kbps (2 codebooks), in " in out and "times real time" in out

    out = succeed("info", target)
    for fact in ("1.00 s", "201, 200 a second", "2 of 6 bits", "2.4 kbps", "8,030 samples", "gain"):
        assert fact in out

    assert "1.00 s of audio at 2.4 kbps" in succeed("decode", target, back, "--model", model)
    assert shape(back) == (1, 8030, 8000)
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
    assert f"{codebooks} of 6 bits" in succeed("info", target)


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
        pytest.param("encode {folder} out --model {model}", "no files found", id="empty-folder"),
        pytest.param("encode {wav} {sc} {wav} --model {model}", "is a file", id="many-to-a-file"),
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
        pytest.param("decode {cut} o.wav --model {model} --strict", "cut", id="decode-cut"),
        pytest.param("decode {sc} out.wav --model {model} --from 5", "ends at", id="decode-beyond"),
        pytest.param("decode {sc} o.wav --model {model} --from 1 --to 0.5", "--to", id="backwards"),
        pytest.param("encode {wav} out.sc --model {model} --compact", "tables", id="no-tables"),
        pytest.param("encode {wav} out.sc --model {model} --block 0", "blocks of", id="no-block"),
        pytest.param("encode {wav} out.sc --model {model} --device cuda", "cuda", id="no-device"),
        pytest.param("encode {wav} - out --model {model}", "one input", id="stdin-among-others"),
        pytest.param("trim {sc} out.sc", "--kbps or --codebooks", id="trim-to-what"),
        pytest.param("trim {sc} out.sc --kbps 4.8", "possible: 1.2, 2.4, 3.6", id="trim-to-more"),
        pytest.param("trim {sc} out.sc --codebooks 9", "has 3 codebooks", id="trim-to-9"),
        pytest.param("trim {wav} out.sc --codebooks 1", "not a .sc", id="trim-audio"),
        pytest.param("cut {sc} out.sc --from 5", "ends at 1.00 s", id="cut-beyond"),
        pytest.param("verify {wav}", "in.wav is not a .sc", id="verify-audio"),
        pytest.param("verify {folder}", "no files found", id="verify-nothing"),
        pytest.param("codes {sc} out.csv", ".npy", id="codes-to-csv"),
        pytest.param("codes {wav} out.npy", "none of 1 files", id="codes-of-audio"),
        pytest.param("codes gone.npy out", "gone.npy is not there", id="codes-missing"),
        pytest.param("decode gone.sc out.wav --model {model}", "gone.sc", id="decode-missing"),
        pytest.param(
            "decode {sc} out.aac --model {model}", "writes .wav .flac", id="decode-to-aac"
        ),
        pytest.param("decode {sc} {wav} --model {model}", "--force", id="decode-onto"),
        pytest.param("decode {sc} out.wav --model {other}", "encoded with", id="other-model"),
        pytest.param("info gone", "gone is not there", id="info-missing"),
        pytest.param("info {folder}", "no files found", id="info-folder"),
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


def test_a_cut_piece_decodes_to_its_stretch(
    model: Path, encoded: Path, wav: Wav, tmp_path: Path
) -> None:
    piece, out = tmp_path / "piece.sc", tmp_path / "piece.wav"
    succeed("cut", encoded, piece, "--from", 0.5)
    succeed("decode", piece, out, "--model", model)
    assert shape(out) == (1, 4030, 8000)
    succeed("decode", encoded, out, "--model", model, "--from", 0.25, "--to", 0.5, "--force")
    assert shape(out) == (1, 2000, 8000)


def test_a_version_0_file_is_cut_by_its_model(model: Path, codec: Codec, tmp_path: Path) -> None:
    old, piece = tmp_path / "old.sc", tmp_path / "piece.sc"
    with open(old, "wb") as file:
        bitstream.write(file, np.zeros((2, 400), int), bits=6, fingerprint=codec.fingerprint)
    assert "no model" in fail("cut", old, piece, "--from", 1)
    succeed("cut", old, piece, "--from", 1, "--model", model)
    assert "200" in succeed("info", piece)
    succeed("trim", old, piece, "--codebooks", 1, "--force")
    assert "1 of 6 bits" in succeed("info", piece)


def test_restoring_gives_what_the_source_was(model: Path, wav: Wav, tmp_path: Path) -> None:
    source = wav("in.wav", 22_051, sample_rate=22_050, channels=2)
    coded, back = tmp_path / "in.sc", tmp_path / "out.flac"
    succeed("encode", source, coded, "--model", model)
    succeed("decode", coded, back, "--model", model, "--restore")
    assert shape(back) == (2, 22_051, 22_050)
    succeed("encode", source, coded, "--model", model, "--channels", "keep", "--force")
    assert "2 channels" in succeed("info", coded)
    succeed("decode", coded, back, "--model", model, "--force")
    assert shape(back) == (2, 8000, 8000)


def test_pipes_in_and_out(model: Path, codec: Codec, wav: Wav, tmp_path: Path) -> None:
    source = wav("in.wav", 8030)
    arguments = ["encode", "-", "-", "--model", str(model)]
    result = CliRunner().invoke(cli.app, arguments, input=source.read_bytes())
    assert result.exit_code == 0, result.stderr
    assert result.stderr == "" and bitstream.is_sc(result.stdout_bytes)
    succeed("encode", source, tmp_path / "in.sc", "--model", model, "--no-normalize")
    for arguments in (["decode", "-", "-"], ["decode", "-", "-", "--format", "flac"]):
        decoded = CliRunner().invoke(
            cli.app, [*arguments, "--model", str(model)], input=result.stdout_bytes
        )
        assert decoded.exit_code == 0, decoded.stderr
        (tmp_path / "out").write_bytes(decoded.stdout_bytes)
        assert shape(tmp_path / "out") == (1, 8030, 8000)
    succeed("decode", tmp_path / "in.sc", tmp_path / "file.wav", "--model", model)
    np.testing.assert_array_equal(
        audio.read(tmp_path / "out")[0], audio.read(tmp_path / "file.wav")[0]
    )
    trimmed = CliRunner().invoke(
        cli.app, ["trim", "-", "-", "--codebooks", "1"], input=result.stdout_bytes
    )
    assert trimmed.exit_code == 0 and len(trimmed.stdout_bytes) < len(result.stdout_bytes)


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
        pytest.param(["encode"], "OUT", id="arguments-missing"),
        pytest.param(["encode", "a", "b", "--device", "tpu"], "cuda", id="no-such-device"),
        pytest.param(["encode", "a", "b", "--jobs", "0"], "--jobs", id="no-jobs"),
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
    encoded.write_bytes(encoded.read_bytes()[:-40])
    assert re.search(r"cut: 1\d\d of 201 are there", succeed("info", encoded))


def test_info_of_version_0_asks_the_model(
    model: Path, codec: Codec, make_codec: Callable[[int], Codec], tmp_path: Path
) -> None:
    old = tmp_path / "old.sc"
    with open(old, "wb") as file:
        bitstream.write(file, np.zeros((2, 400), int), bits=6, fingerprint=codec.fingerprint)
    assert "known to the model only" in succeed("info", old)
    out = succeed("info", old, "--model", model)
    assert "2.00 s" in out and "2.4 kbps" in out
    make_codec(1).save(tmp_path / "other.safetensors")
    out = succeed("info", old, "--model", tmp_path / "other.safetensors")
    assert "another one" in out and codec.fingerprint in out


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


def test_tables_are_learnt_from_speech_and_make_smaller_files(
    model: Path, wav: Wav, tmp_path: Path
) -> None:
    """Codes of silence are as likely as can be."""
    folder = tmp_path / "speech"
    folder.mkdir()
    audio.write_wav(folder / "a.wav", np.zeros((1, 160000), np.float32), 8000)
    better = tmp_path / "better.safetensors"
    assert "with tables of" in succeed("tables", model, folder, better)
    plain, compact = tmp_path / "plain.sc", tmp_path / "compact.sc"
    succeed("encode", folder / "a.wav", plain, "--model", better)
    succeed("encode", folder / "a.wav", compact, "--model", better, "--compact")
    assert compact.stat().st_size < plain.stat().st_size / 3
    waves = []
    for coded in (plain, compact):
        succeed("decode", coded, coded.with_suffix(".wav"), "--model", better)
        waves.append(audio.read(coded.with_suffix(".wav"))[0])
    assert np.array_equal(*waves)
    assert "is there already" in fail("tables", model, folder, better)
