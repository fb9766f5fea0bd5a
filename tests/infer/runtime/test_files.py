import io
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from codec import audio
from codec.building import inference_tensors
from codec.codec import Codec
from codec.errors import AudioError, BitstreamError, ModelFileError
from infer.bitstream import Reader, write
from infer.export import export
from infer.files import decode_file, encode_file
from infer.runtime import Codec as LightCodec
from infer.runtime import decode_sc, encode_sc
from tests.support.entropy import make_tables


def noise(*shape: int) -> np.ndarray:
    return 0.1 * np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def decoded(light: LightCodec, source: Path | io.BytesIO) -> np.ndarray:
    return np.concatenate(list(decode_sc(light, source)), axis=1)


@pytest.mark.parametrize("samples", [1, 40, 8000, 20011])
@pytest.mark.parametrize("channels", [1, 2])
def test_files_come_back_at_their_length(
    samples: int, channels: int, codec: Codec, light: LightCodec, tmp_path: Path
) -> None:
    wave = noise(channels, samples)
    pieces = [wave[:, i : i + 777] for i in range(0, samples, 777)]
    header = encode_sc(light, pieces, tmp_path / "x.sc", n_quantizers=2, channels=channels)
    assert (header.source_samples, header.frames) == (samples, -(-samples // 40))
    found = decoded(light, tmp_path / "x.sc")
    assert found.shape == wave.shape
    # The same codes as PyTorch's, and the files of both are each other's.
    with open(tmp_path / "x.sc", "rb") as file:
        codes = np.concatenate([b.codes for b in Reader(file).blocks()], axis=2)
    np.testing.assert_array_equal(codes, codec.encode(wave[:, None], 2).numpy())
    decode_file(codec, tmp_path / "x.sc", tmp_path / "x.wav")
    spoken, _ = audio.read(tmp_path / "x.wav")
    np.testing.assert_allclose(found.clip(-1, 1), spoken, atol=1e-4)


@pytest.mark.parametrize("samples", [1, 8000, 20011])
@pytest.mark.parametrize("channels", [1, 2])
def test_files_are_those_of_pytorch_byte_for_byte(
    samples: int, channels: int, codec: Codec, light: LightCodec, tmp_path: Path
) -> None:
    audio.write_wav(tmp_path / "in.wav", noise(channels, samples), 8000)
    encode_file(
        codec,
        tmp_path / "in.wav",
        tmp_path / "theirs.sc",
        n_quantizers=3,
        channels="keep",
        target_lufs=None,
    )
    wave, _ = audio.read(tmp_path / "in.wav")
    encode_sc(light, [wave], tmp_path / "ours.sc", n_quantizers=3, channels=channels)
    assert (tmp_path / "ours.sc").read_bytes() == (tmp_path / "theirs.sc").read_bytes()


def test_the_models_own_rate_is_the_default(light: LightCodec) -> None:
    header = encode_sc(light, [noise(1, 100)], io.BytesIO())
    assert header.n_quantizers == light.n_quantizers_for(light.default_kbps)


def test_version_0_is_read(codec: Codec, light: LightCodec) -> None:
    codes = np.random.default_rng(0).integers(64, size=(3, 20)).astype(np.uint16)
    file = io.BytesIO()
    write(file, codes, bits=6, fingerprint=codec.fingerprint)
    found = decoded(light, io.BytesIO(file.getvalue()))
    np.testing.assert_allclose(found[0], light.decode(codes), atol=1e-6)


@pytest.fixture(scope="module")
def with_tables(codec: Codec) -> Codec:
    return Codec(
        codec.config,
        inference_tensors(codec._autoencoder),
        known_fingerprint=codec.fingerprint,
        tables=make_tables(4, 64),
    )


@pytest.fixture(scope="module")
def exported_with_tables(with_tables: Codec, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tables") / "out"
    export(with_tables, folder)
    return folder


@pytest.mark.parametrize("installed", [True, False], ids=["constriction", "numpy-alone"])
def test_compact_files_are_read(
    installed: bool,
    with_tables: Codec,
    exported_with_tables: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    audio.write_wav(tmp_path / "in.wav", noise(2, 20011), 8000)
    for name, compact in (("compact.sc", True), ("plain.sc", False)):
        encode_file(
            with_tables,
            tmp_path / "in.wav",
            tmp_path / name,
            n_quantizers=3,
            channels="keep",
            compact=compact,
        )
    if not installed:
        monkeypatch.setitem(sys.modules, "constriction", None)
    light = LightCodec.load(exported_with_tables)
    found = decoded(light, tmp_path / "compact.sc")
    assert found.shape == (2, 20011)
    np.testing.assert_array_equal(found, decoded(light, tmp_path / "plain.sc"))


def test_compact_files_need_the_tables(
    with_tables: Codec, exported_with_tables: Path, light: LightCodec, tmp_path: Path
) -> None:
    audio.write_wav(tmp_path / "in.wav", noise(1, 800), 8000)
    encode_file(with_tables, tmp_path / "in.wav", tmp_path / "x.sc", n_quantizers=3, compact=True)
    with pytest.raises(BitstreamError, match="this export has none"):
        decoded(light, tmp_path / "x.sc")
    copy = tmp_path / "copy"
    shutil.copytree(exported_with_tables, copy)
    content = bytearray((copy / "tables.npz").read_bytes())
    content[len(content) // 2] ^= 1
    (copy / "tables.npz").write_bytes(content)
    with pytest.raises(ModelFileError, match="copy it again"):
        decoded(LightCodec.load(copy), tmp_path / "x.sc")
    (copy / "tables.npz").unlink()
    with pytest.raises(ModelFileError, match="cannot be read"):
        decoded(LightCodec.load(copy), tmp_path / "x.sc")
    card = json.loads((copy / "card.json").read_text())
    np.savez(copy / "tables.npz", **make_tables(4, 64, lags=1).tensors())
    card["tables"] = make_tables(4, 64, lags=1).fingerprint
    (copy / "card.json").write_text(json.dumps(card))
    with pytest.raises(BitstreamError, match="needs the probability tables"):
        decoded(LightCodec.load(copy), tmp_path / "x.sc")


def test_damaged_blocks_are_silent(light: LightCodec) -> None:
    file = io.BytesIO()
    encode_sc(light, [noise(1, 40 * 800)], file, n_quantizers=4)
    content = bytearray(file.getvalue())
    whole = decoded(light, io.BytesIO(bytes(content)))[0].reshape(-1, 8000)
    content[len(content) // 2] ^= 255
    found = decoded(light, io.BytesIO(bytes(content)))[0].reshape(-1, 8000)
    silent = [not block.any() for block in found]
    assert silent.count(True) == 1
    first = silent.index(True)
    np.testing.assert_array_equal(found[:first], whole[:first])
    # What follows begins anew, and is itself again once that has passed the receptive field.
    np.testing.assert_allclose(found[first + 1 :, 4000:], whole[first + 1 :, 4000:], atol=1e-5)


def test_codes_of_others_are_refused(
    make_codec: Callable[[int], Codec], light: LightCodec, tmp_path: Path
) -> None:
    file = io.BytesIO()
    write(file, np.zeros((1, 3), np.uint16), bits=6, fingerprint=make_codec(1).fingerprint)
    with pytest.raises(BitstreamError, match="these codes are of model"):
        decoded(light, io.BytesIO(file.getvalue()))
    file = io.BytesIO()
    write(file, np.zeros((5, 3), np.uint16), bits=6, fingerprint=light.fingerprint)
    with pytest.raises(BitstreamError, match="5 codebooks"):
        decoded(light, io.BytesIO(file.getvalue()))


@pytest.mark.parametrize("pieces", [[], [np.zeros((1, 0), np.float32)]], ids=["none", "empty"])
def test_silence_of_no_length_leaves_no_file(
    pieces: list, light: LightCodec, tmp_path: Path
) -> None:
    with pytest.raises(AudioError, match="empty"):
        encode_sc(light, pieces, tmp_path / "x.sc")
    assert not list(tmp_path.iterdir())
