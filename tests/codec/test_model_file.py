import hashlib
import json

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from codec.building import build_autoencoder, inference_tensors
from codec.codec import Codec
from codec.config_model import ModelConfig, QuantizerConfig, SEANetConfig
from codec.errors import ModelFileError
from codec.model_file import fingerprint, read_model_file, write_model_file
from tests.support.entropy import changed, make_tables

CONFIG = ModelConfig(
    sample_rate=16000,
    hop_length=20,
    strides=[4, 5],
    dimension=8,
    encoder=SEANetConfig(channels=4),
    decoder=SEANetConfig(channels=4),
    quantizer=QuantizerConfig(n_quantizers=3, codebook_size=16),
    default_kbps=6.4,
)
TABLES = make_tables()


@pytest.fixture(scope="module")
def tensors():
    torch.manual_seed(0)
    return inference_tensors(build_autoencoder(CONFIG))


@pytest.fixture
def path(tensors, tmp_path):
    write_model_file(tmp_path / "model.safetensors", CONFIG, tensors, TABLES)
    return tmp_path / "model.safetensors"


def test_tables_come_back_to_the_bit(path, tensors):
    file = read_model_file(path)
    assert file.tables is not None
    assert file.tables.fingerprint == TABLES.fingerprint
    for name, array in TABLES.tensors().items():
        assert np.array_equal(file.tables.tensors()[name], array)
    assert file.tensors.keys() == tensors.keys()
    codes = np.arange(30, dtype=np.uint16).reshape(1, 3, 10) % 16
    assert file.tables.encode([codes]) == TABLES.encode([codes])


def test_losses_are_told_and_are_no_part_of_the_model(tmp_path, tensors):
    told, silent, odd = (tmp_path / f"{name}.safetensors" for name in ("told", "silent", "odd"))
    losses = {"mel": 2.0, "disturbance": 0.3}
    digest = write_model_file(told, CONFIG, tensors, losses=losses)
    assert digest == write_model_file(silent, CONFIG, tensors)
    assert read_model_file(told).losses == losses
    assert read_model_file(silent).losses is None
    write_model_file(odd, CONFIG, tensors, losses={"mel": "much"})
    assert read_model_file(odd).losses is None
    codec = Codec.load(told)
    assert codec.halved().losses == codec.losses == losses
    codec.save(silent)
    assert silent.read_bytes() == told.read_bytes()


def test_tables_are_no_part_of_the_model(path, tensors):
    bare = path.with_name("bare.safetensors")
    digest = write_model_file(bare, CONFIG, tensors)
    assert read_model_file(path).fingerprint == digest
    assert read_model_file(bare).fingerprint == digest
    assert read_model_file(bare).tables is None


def test_a_model_of_an_older_sotto_keeps_its_fingerprint_with_tables(tensors, tmp_path):
    """Its config lacks keys that have come since; its codes must stay its own."""
    old = tmp_path / "old.safetensors"
    older = CONFIG.model_dump(mode="json")
    del older["causal"]
    digest = write_model_file(old, CONFIG, tensors, config_text=json.dumps(older))
    assert digest != write_model_file(tmp_path / "new.safetensors", CONFIG, tensors)
    codec = Codec.load(old)
    codec.tables = TABLES
    assert codec.save(old) == codec.fingerprint == digest
    assert Codec.load(old).fingerprint == digest and Codec.load(old).tables is not None


def test_a_model_without_tables_is_written_as_ever(path, tensors):
    bare = path.with_name("bare.safetensors")
    write_model_file(bare, CONFIG, tensors)
    with safe_open(bare, framework="pt") as file:
        about = json.loads(file.metadata()["sotto"])
        assert about.keys() == {"version", "config", "fingerprint"}
        assert set(file.keys()) == tensors.keys()


def test_read_and_written_again_it_is_the_same_file(path):
    file = read_model_file(path)
    again = path.with_name("again.safetensors")
    write_model_file(again, file.config, file.tensors, file.tables)
    assert again.read_bytes() == path.read_bytes()


@pytest.mark.parametrize("name", [*TABLES.tensors(), "decoder.layers.0.bias"])
def test_a_flipped_bit_is_noticed_in_model_and_tables(path, name):
    data = bytearray(path.read_bytes())
    size = int.from_bytes(data[:8], "little")
    first, last = json.loads(data[8 : 8 + size])[name]["data_offsets"]
    data[8 + size + (first + last) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(ModelFileError, match="damaged") as told:
        read_model_file(path)
    assert str(path) in str(told.value)
    assert ("tables" in str(told.value)) == name.startswith("entropy.")


def test_tables_of_another_file_are_noticed(path, tensors):
    other = changed(TABLES, shifts=TABLES.shifts + np.int32(1))
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    arrays = {name: torch.from_numpy(a.copy()) for name, a in other.tensors().items()}
    save_file(load_file(path) | arrays, path, metadata=metadata)
    with pytest.raises(ModelFileError, match=f"{TABLES.fingerprint} but is {other.fingerprint}"):
        read_model_file(path)


@pytest.mark.parametrize("lost", ["a table", "all tables", "their fingerprint"])
def test_lost_tables_are_noticed(path, lost):
    with safe_open(path, framework="pt") as file:
        about = json.loads(file.metadata()["sotto"])
    tensors = load_file(path)
    if lost == "their fingerprint":
        del about["tables"]
    for name in list(TABLES.tensors()):
        if lost == "all tables" or (lost == "a table" and name == "entropy.output"):
            del tensors[name]
    save_file(tensors, path, metadata={"sotto": json.dumps(about)})
    with pytest.raises(ModelFileError, match="tables"):
        read_model_file(path)


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ({"version": float("inf")}, "its description cannot be read"),
        ({"config": '{"name": "\ud800"}'}, "its fingerprint should be"),
    ],
    ids=["infinite-version", "half-surrogate"],
)
def test_odd_descriptions_are_refused(path, about, message):
    with safe_open(path, framework="pt") as file:
        description = json.loads(file.metadata()["sotto"]) | about
    save_file(load_file(path), path, metadata={"sotto": json.dumps(description)})
    with pytest.raises(ModelFileError, match=message):
        read_model_file(path)


def test_tables_of_a_type_that_numpy_lacks_are_refused(path):
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    name = next(name for name in tensors if name.startswith("entropy."))
    save_file(tensors | {name: torch.zeros(4).to(torch.float8_e4m3fn)}, path, metadata=metadata)
    with pytest.raises(ModelFileError, match="probability tables"):
        read_model_file(path)


def test_others_may_read_a_model_as_they_may_any_new_file(path):
    other = path.with_name("other")
    other.touch()
    assert path.stat().st_mode == other.stat().st_mode


def test_the_fingerprint_is_of_the_half_precision_that_is_there(path, tensors):
    """As docs and module say: config text, then name, dtype, shape and little-endian bytes."""
    about = json.dumps(CONFIG.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
    numbers = np.arange(-6, 6).reshape(3, 4) / 8
    for dtype, stored in (("float32", "<f4"), ("float16", "<f2")):
        data = (
            about.encode() + f"\nweight {dtype} 3x4\n".encode() + numbers.astype(stored).tobytes()
        )
        weight = torch.from_numpy(numbers.astype(dtype))
        expected = hashlib.blake2b(data, digest_size=16).hexdigest()
        assert fingerprint(CONFIG, {"weight": weight}) == expected
    half = path.with_name("half.safetensors")
    halves = {name: tensor.half() for name, tensor in tensors.items()}
    digest = write_model_file(half, CONFIG, halves, TABLES)
    file = read_model_file(half)
    assert file.fingerprint == digest != read_model_file(path).fingerprint
    assert file.tables is not None and file.tables.fingerprint == TABLES.fingerprint
    assert all(tensor.dtype == torch.float16 for tensor in file.tensors.values())
