import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import typer
from torch import nn
from typer.testing import CliRunner

from codec import audio
from codec.building import build_autoencoder, inference_tensors
from codec.codec import Codec
from codec.config_model import ModelConfig
from codec.errors import SottoError
from infer import export_check, export_int8, export_layers
from infer.cli import Commands
from infer.commands_export import export as command
from infer.export import export
from infer.export_graph import Graph, Scale, quantize_weights
from infer.export_int8 import calibration_waves
from infer.runtime.card import checked_bytes, digest, read_card
from infer.runtime.session import Session

SEANET: dict[str, Any] = {"channels": 2, "dilations": [1, 3]}
CONVNEXT: dict[str, Any] = {"kind": "convnext", "channels": [6, 10], "blocks": [1, 2]}
MODELS: dict[str, dict[str, Any]] = {
    "seanet": {},
    "seanet-elu-odd-strides": {
        "strides": [3, 5, 2],
        "hop_length": 30,
        "encoder": SEANET | {"activation": "elu", "kernel_size": 4},
        "decoder": SEANET | {"activation": "snake", "compress": 1},
    },
    "seanet-non-causal": {"causal": False, "strides": [5, 3], "hop_length": 15},
    "convnext": {"encoder": CONVNEXT, "decoder": CONVNEXT},
    "convnext-odd-window": {
        "strides": [6, 5],
        "hop_length": 30,
        "encoder": CONVNEXT | {"n_fft": 20, "kernel_size": 4},
        "decoder": CONVNEXT | {"last_kernel_size": 1},
    },
    "convnext-non-causal": {
        "causal": False,
        "strides": [5, 8],
        "encoder": CONVNEXT,
        "decoder": CONVNEXT,
    },
    "convnext-noise": {"encoder": CONVNEXT, "decoder": CONVNEXT | {"noise_channels": 4}},
    "mixed": {"encoder": CONVNEXT, "decoder": SEANET},
    "factorised": {"quantizer": {"codebook_dimension": 3}},
    "directions": {"quantizer": {"codebook_dimension": 4, "l2_normalize": True}},
}
STREAMING = [name for name in MODELS if "non-causal" not in name]


def make(name: str, seed: int = 0) -> Codec:
    changes = dict(MODELS[name])
    sizes = {"n_quantizers": 4, "codebook_size": 32} | changes.pop("quantizer", {})
    values = {
        "sample_rate": 8000,
        "hop_length": 40,
        "strides": [5, 8],
        "dimension": 8,
        "encoder": SEANET,
        "decoder": SEANET,
        "quantizer": sizes,
    } | changes
    rate = values["sample_rate"] / values["hop_length"]
    config = ModelConfig.model_validate(values | {"default_kbps": 3 * 5 * rate / 1000})
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Codec(config, inference_tensors(build_autoencoder(config)))


def speech(codec: Codec, count: int = 8, frames: int = 30) -> list[np.ndarray]:
    generator = np.random.default_rng(5)
    shape = (count, frames * codec.hop_length)
    return list(0.1 * generator.standard_normal(shape).astype(np.float32))


def session(folder: Path, part: str, *, streaming: bool, precision: str = "fp32") -> Session:
    file = read_card(folder).file(part, streaming=streaming, precision=precision)
    return Session(file, checked_bytes(folder, file))


@pytest.mark.parametrize("name", MODELS)
def test_every_architecture_is_exported_and_agrees(name: str, tmp_path: Path) -> None:
    codec = make(name)
    lines: list[str] = []
    card = export(codec, tmp_path / "out", report=lines.append)
    assert card == read_card(tmp_path / "out")
    assert (card.fingerprint, card.hop_length) == (codec.fingerprint, codec.hop_length)
    assert [file.streaming for file in card.files].count(True) == 2 * codec.config.causal
    assert card.latency_samples == (codec.hop_length if codec.config.causal else None)
    names = sorted(path.name for path in tmp_path.rglob("*") if path.is_file())
    assert names == sorted(["card.json", *(file.name for file in card.files)])
    for file in card.files:
        content = (tmp_path / "out" / file.name).read_bytes()
        assert (len(content), digest(content)) == (file.size, file.blake2b)
        assert card.checks[file.name]["largest_difference"] < 1e-4
    assert len(lines) == len(card.files)


@pytest.mark.parametrize("name", MODELS)
def test_whole_signals_of_a_batch_are_those_of_pytorch(name: str, tmp_path: Path) -> None:
    codec = make(name, seed=3)
    export(codec, tmp_path / "out")
    waves = np.stack(speech(codec, 2))[:, None]
    expected = codec.encode(waves).numpy()
    codes, _ = session(tmp_path / "out", "encoder", streaming=False).step(waves)
    np.testing.assert_array_equal(codes, expected)
    expected[:, 2:] = -1
    wave, _ = session(tmp_path / "out", "decoder", streaming=False).step(expected)
    reference = codec.decode(expected[:, :2]).numpy()
    np.testing.assert_allclose(wave, reference, atol=1e-5 * np.abs(reference).max())


@pytest.mark.parametrize("cuts", [(1,), (2, 1, 7), (30,)], ids=str)
@pytest.mark.parametrize("name", STREAMING)
def test_steps_are_the_whole_however_cut(name: str, cuts: tuple[int, ...], tmp_path: Path) -> None:
    codec = make(name, seed=4)
    export(codec, tmp_path / "out")
    wave = speech(codec, 1)[0]
    expected = codec.encode(wave).numpy()
    step = session(tmp_path / "out", "encoder", streaming=True)
    codes, _ = export_check.run_in_pieces(step, wave[None, None], codec.hop_length, cuts)
    np.testing.assert_array_equal(codes[0], expected)
    reference = codec.decode(expected).numpy()
    step = session(tmp_path / "out", "decoder", streaming=True)
    decoded, _ = export_check.run_in_pieces(step, expected[None], 1, cuts)
    np.testing.assert_allclose(decoded[0, 0], reference, atol=1e-5 * np.abs(reference).max())


def test_states_are_named_inputs_and_outputs_of_any_batch(tmp_path: Path) -> None:
    card = export(make("convnext"), tmp_path / "out")
    for file in card.files:
        graph = onnx.load(tmp_path / "out" / file.name).graph
        inputs = {value.name: value.type.tensor_type.shape.dim for value in graph.input}
        outputs = [value.name for value in graph.output]
        for state in file.states:
            batch, frames, channels = inputs.pop(state.name)
            assert batch.dim_param == "batch"
            assert (frames.dim_value, channels.dim_value) == (state.frames, state.channels)
            assert state.next_name in outputs
        assert bool(file.states) == file.streaming
        assert list(inputs) == ["wave" if file.part == "encoder" else "codes"]


def test_what_differs_from_pytorch_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def backwards(weight: np.ndarray) -> np.ndarray:
        return weight[:, :, ::-1].transpose(2, 1, 0).reshape(-1, weight.shape[0])

    monkeypatch.setattr(export_layers, "by_taps", backwards)
    with pytest.raises(SottoError, match=r"encoder_step\.onnx gives other codes .* not exported"):
        export(make("seanet"), tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_decoder_that_differs_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    codec = make("convnext")
    decode = codec.decode
    monkeypatch.setattr(codec, "decode", lambda codes: decode(codes) * 1.001)
    with pytest.raises(SottoError, match=r"decoder_step\.onnx differs .* not exported"):
        export(codec, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_equally_near_rows_are_ties_and_others_are_not() -> None:
    codec = make("seanet")
    layers = export_layers.autoencoder_of(codec).quantizer.layers()
    layers[1].codebook[7] = layers[1].codebook[3]
    wave = speech(codec, 1)[0]
    expected = codec.encode(wave).numpy()
    frame = int(np.flatnonzero(expected[1] == 3)[0]) if (expected[1] == 3).any() else 0
    expected[1, frame] = 3
    found = expected.copy()
    found[1, frame] = 7
    found[2:, frame] = 0
    assert export_check._count_ties(codec, "file", wave, expected, found) >= 1
    found[1, frame] = 4
    with pytest.raises(SottoError, match="other codes"):
        export_check._count_ties(codec, "file", wave, expected, found)


def test_unknown_layers_are_refused() -> None:
    graph = Graph("test", streaming=True)
    with pytest.raises(SottoError, match="LSTM cannot be exported"):
        export_layers.add(nn.LSTM(2, 2), graph, "x")


def test_a_folder_that_is_there_is_left_alone(tmp_path: Path) -> None:
    codec = make("seanet")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("kept")
    with pytest.raises(SottoError, match="is there already: name another"):
        export(codec, tmp_path / "mine", replace=True)
    assert (tmp_path / "mine" / "letter.txt").read_text() == "kept"
    export(codec, tmp_path / "out")
    with pytest.raises(SottoError, match="is there already: --force"):
        export(codec, tmp_path / "out")
    card = export(make("seanet", seed=1), tmp_path / "out", replace=True)
    assert read_card(tmp_path / "out") == card
    assert card.fingerprint != codec.fingerprint


@pytest.mark.parametrize("name", ["seanet", "convnext"])
def test_int8_is_close_and_exact_next_to_the_wave_alone(name: str, tmp_path: Path) -> None:
    codec = make(name)
    card = export(codec, tmp_path / "out", calibration=speech(codec))
    for streaming in (True, False):
        encoder = card.file("encoder", streaming=streaming, precision="int8")
        decoder = card.file("decoder", streaming=streaming, precision="int8")
        assert card.checks[decoder.name]["snr_db"] > 20
        assert card.checks[encoder.name]["first_codebook_equal"] > 0.5
    nodes = onnx.load(tmp_path / "out" / "encoder_step_int8.onnx").graph.node
    operators = {output: node.op_type for node in nodes for output in node.output}
    searches = [operators[node.input[0]] for node in nodes if node.op_type == "ArgMax"]
    assert searches == ["MatMulIntegerToFloat"] * codec.n_quantizers
    products = [kind for kind in operators.values() if kind.startswith("MatMul")]
    assert products[0] == "MatMul"  # next to the wave
    assert products.count("MatMulIntegerToFloat") > codec.n_quantizers + 3


def test_int8_that_loses_too_much_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    codec = make("convnext")
    monkeypatch.setattr(export_int8, "_scale", lambda lowest, highest: Scale(1e3, 128))
    with pytest.raises(SottoError, match="calibrate on speech like"):
        export(codec, tmp_path / "out", calibration=speech(codec))
    with pytest.raises(SottoError, match="one recording is too few"):
        export(codec, tmp_path / "out", calibration=speech(codec, 1))
    assert not list(tmp_path.iterdir())


def test_weights_have_a_scale_for_every_output() -> None:
    matrix = np.random.default_rng(0).standard_normal((20, 5)) * [1e-3, 1, 10, 0, 1e3]
    integers, scales = quantize_weights(matrix.astype(np.float32))
    assert integers.dtype == np.int8
    assert np.abs(integers.astype(int)).max(axis=0).tolist() == [64, 64, 64, 0, 64]
    assert (np.abs(integers * scales - matrix) <= 0.51 * scales).all()


@pytest.fixture
def run() -> Callable[..., Any]:
    app = typer.Typer(cls=Commands)
    app.command()(command)
    app.command()(lambda: None)
    return lambda *words: CliRunner().invoke(app, ["export", *map(str, words)])


def test_the_command_writes_both_precisions(
    run: Callable[..., Any], model: Path, codec: Codec, tmp_path: Path
) -> None:
    (tmp_path / "speech").mkdir()
    for index, wave in enumerate(speech(codec, 4, frames=70)):
        audio.write_wav(tmp_path / "speech" / f"{index}.wav", wave[None, :-7], 8000)
    waves = calibration_waves(codec, tmp_path / "speech")
    assert len(waves) == 4
    assert all(len(wave) % codec.hop_length == 0 for wave in waves)
    arguments = ("--int8", "--calibrate", tmp_path / "speech")
    result = run(model, tmp_path / "out", *arguments)
    assert result.exit_code == 0, result.output
    assert "decoder_step_int8.onnx" in result.output
    assert codec.fingerprint in result.output
    about = json.loads((tmp_path / "out" / "card.json").read_text())
    assert about["format"] == "sotto-onnx"
    result = run(model, tmp_path / "out")
    assert result.exit_code == 1
    assert "--force" in result.output


def test_the_command_wants_speech_for_int8(
    run: Callable[..., Any], model: Path, tmp_path: Path
) -> None:
    result = run(model, tmp_path / "out", "--int8")
    assert result.exit_code == 1
    assert "--calibrate" in result.output
    assert not (tmp_path / "out").exists()
