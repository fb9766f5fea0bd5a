import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from codec.codec import Codec
from codec.config_model import ModelConfig
from codec.errors import AudioError, BitstreamError, ModelFileError, SottoError
from infer.export import export
from infer.runtime import Codec as LightCodec
from infer.runtime import read_card


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return 0.1 * np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def test_it_says_the_same_of_itself(codec: Codec, light: LightCodec) -> None:
    for name in (
        "fingerprint",
        "sample_rate",
        "hop_length",
        "frame_rate",
        "n_quantizers",
        "codebook_size",
        "bits_per_code",
        "default_kbps",
    ):
        assert getattr(light, name) == getattr(codec, name)
    assert light.possible_kbps() == pytest.approx(codec.possible_kbps())
    assert light.kbps(2) == pytest.approx(codec.kbps(2))
    assert light.n_quantizers_for(3.6) == codec.n_quantizers_for(3.6)
    with pytest.raises(SottoError, match="possible: "):
        light.n_quantizers_for(3.7)


@pytest.mark.parametrize("samples", [1, 39, 40, 41, 8000, 17003])
def test_whole_signals_are_those_of_pytorch(samples: int, codec: Codec, light: LightCodec) -> None:
    wave = noise(samples)
    expected = codec.encode(wave, 3).numpy()
    codes = light.encode(wave, 3)
    assert codes.dtype == np.int64
    np.testing.assert_array_equal(codes, expected)
    decoded = light.decode(codes, samples)
    assert decoded.dtype == np.float32
    np.testing.assert_allclose(decoded, codec.decode(expected, samples).numpy(), atol=1e-6)


def test_batches_are_their_items(light: LightCodec) -> None:
    waves = noise(3, 1, 500)
    codes = light.encode(waves)
    assert codes.shape == (3, 4, 13)
    for item, wave in zip(codes, waves, strict=True):
        np.testing.assert_array_equal(item, light.encode(wave[0]))
    decoded = light.decode(codes, 500)
    assert decoded.shape == (3, 1, 500)
    np.testing.assert_allclose(decoded[1, 0], light.decode(codes[1], 500), atol=1e-6)


def test_any_integers_are_codes(light: LightCodec) -> None:
    codes = np.random.default_rng(0).integers(64, size=(2, 5))
    expected = light.decode(codes)
    np.testing.assert_array_equal(light.decode(codes.astype(np.uint16)), expected)
    assert light.decode(codes[:, :0]).shape == (0,)


@pytest.mark.parametrize(
    ("wave", "says"),
    [
        (np.zeros(0, np.float32), "empty"),
        (np.zeros(5, np.int16), "int16"),
        (np.zeros((2, 5), np.float32), r"\(2, 5\)"),
        (np.array([0.0, np.nan], np.float32), "NaN"),
    ],
    ids=["empty", "integers", "two-axes", "nan"],
)
def test_waves_that_are_none_are_refused(wave: np.ndarray, says: str, light: LightCodec) -> None:
    with pytest.raises(AudioError, match=says):
        light.encode(wave)


@pytest.mark.parametrize(
    ("codes", "says"),
    [
        (np.zeros((5, 2), np.int64), r"\(5, 2\)"),
        (np.zeros((2, 2), np.float32), "float32"),
        (np.full((2, 2), 64), "0 to 63"),
        (np.full((2, 2), -1), "from -1"),
        (np.zeros((0, 2, 3), np.int64), r"\(0, 2, 3\)"),
    ],
    ids=["too-many", "floats", "above", "below", "no-batch"],
)
def test_codes_that_are_none_are_refused(codes: np.ndarray, says: str, light: LightCodec) -> None:
    with pytest.raises(BitstreamError, match=says):
        light.decode(codes)


def test_impossible_wishes_are_refused(exported: Path, light: LightCodec) -> None:
    with pytest.raises(SottoError, match="5 codebooks"):
        light.encode(noise(40), 5)
    with pytest.raises(BitstreamError, match="length 41"):
        light.decode(np.zeros((1, 1), np.int64), 41)
    with pytest.raises(ModelFileError, match=r"no int8 encoder \(precisions: fp32\)"):
        LightCodec.load(exported, precision="int8")
    with pytest.raises(ValueError, match="threads = 0"):
        LightCodec.load(exported, threads=0)


def test_int8_runs_beside_fp32(codec: Codec, tmp_path: Path) -> None:
    export(codec, tmp_path / "out", calibration=list(noise(8, 1200, seed=1)))
    light = LightCodec.load(tmp_path / "out", precision="int8", threads=2)
    codes = codec.encode(noise(800)).numpy()
    wave, expected = light.decode(codes), codec.decode(codes).numpy()
    error = np.square(wave - expected).sum() / np.square(expected).sum()
    assert 0 < error < 0.01
    assert light.encode(noise(800)).shape == codes.shape


def test_models_that_look_ahead_run_whole(
    make_codec: Callable[[int], Codec], tmp_path: Path
) -> None:
    codec = make_codec(0)
    config = ModelConfig.model_validate(codec.config.model_dump() | {"causal": False})
    from codec.building import build_autoencoder, inference_tensors

    codec = Codec(config, inference_tensors(build_autoencoder(config)))
    export(codec, tmp_path / "out")
    light = LightCodec.load(tmp_path / "out")
    wave = noise(1001)
    np.testing.assert_array_equal(light.encode(wave), codec.encode(wave).numpy())
    for open_stream in (light.stream_encoder, light.stream_decoder):
        with pytest.raises(SottoError, match="looks ahead"):
            open_stream()


def test_damage_is_noticed(exported: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(exported, folder)
    path = folder / "encoder_step.onnx"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    light = LightCodec.load(folder)
    light.decode(np.zeros((1, 1), np.int64))
    with pytest.raises(ModelFileError, match="copy it again"):
        light.encode(noise(40))
    path.unlink()
    with pytest.raises(ModelFileError, match="cannot be read"):
        light.encode(noise(40))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda text: "{", r"no card\.json"),
        (lambda text: "[]", r"no card\.json"),
        (lambda text: text.replace('"version": 1', '"version": 3'), "update it"),
        (lambda text: text.replace('"hop_length"', '"hop"'), "damaged"),
        (lambda text: text.replace('"states"', '"state"'), "damaged"),
        (lambda text: text.replace('"hop_length": 40', '"hop_length": 0'), "damaged"),
        (lambda text: text.replace('"n_quantizers": 4', '"n_quantizers": "4"'), "damaged"),
        (lambda text: text.replace("sotto-onnx", "other"), r"no card\.json"),
    ],
    ids=["cut", "list", "newer", "key", "states", "zero", "text", "format"],
)
def test_cards_that_are_none_are_refused(
    change: Callable[[str], str], says: str, exported: Path, tmp_path: Path
) -> None:
    (tmp_path / "card.json").write_text(change((exported / "card.json").read_text()))
    with pytest.raises(ModelFileError, match=says):
        read_card(tmp_path)


def test_a_folder_without_a_card_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"it has no card\.json"):
        LightCodec.load(tmp_path)
