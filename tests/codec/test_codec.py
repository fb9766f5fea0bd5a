import json

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from codec.building import build_autoencoder, inference_tensors
from codec.codec import Codec
from codec.config_model import ModelConfig, QuantizerConfig, SEANetConfig
from codec.entropy_learning import learn_tables
from codec.errors import AudioError, BitstreamError, ModelFileError, SottoError

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


@pytest.fixture
def model():
    torch.manual_seed(0)
    return build_autoencoder(CONFIG).eval()


@pytest.fixture
def codec(model):
    return Codec(CONFIG, inference_tensors(model))


@pytest.fixture
def path(codec, tmp_path):
    codec.save(tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def wave(samples, batch=None):
    shape = (samples,) if batch is None else (batch, 1, samples)
    return 0.1 * torch.randn(shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("samples", [1, 19, 20, 21, 400])
def test_frames_and_length_of_any_signal(codec, samples):
    codes = codec.encode(wave(samples))
    assert codes.shape == (3, -(-samples // 20))
    assert codes.dtype == torch.int64
    assert codec.decode(codes).shape == (codes.shape[1] * 20,)
    assert codec.decode(codes, samples).shape == (samples,)


def test_a_codec_says_what_the_training_model_says(model, codec):
    x = wave(200, batch=2)
    with torch.no_grad():
        expected = model(x)
    assert torch.equal(codec.encode(x), expected.quantizer.codes)
    decoded = codec.decode(expected.quantizer.codes)
    torch.testing.assert_close(decoded, expected.decoded, rtol=1e-4, atol=1e-5)


def test_making_a_codec_leaves_model_and_random_state_alone(model):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    random = torch.get_rng_state()
    Codec(CONFIG, inference_tensors(model))
    assert torch.equal(random, torch.get_rng_state())
    assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())
    model(wave(100, batch=1))


def test_batch_and_single_agree(codec):
    x = wave(100, batch=3)
    codes = codec.encode(x, 2)
    assert torch.equal(codes[1], codec.encode(x[1, 0], 2))
    torch.testing.assert_close(codec.decode(codes)[2, 0], codec.decode(codes[2]))


def windows_long(codec):
    """Samples of a little more than two windows."""
    return 2 * codec.encoder().window_frames * codec.hop_length + 333


@pytest.mark.parametrize("causal", [True, False], ids=["causal", "both-sides"])
@pytest.mark.parametrize("block", [997, 16000, 10**6])
def test_pieces_give_what_the_whole_gives(causal, block):
    torch.manual_seed(0)
    config = CONFIG.model_copy(update={"causal": causal})
    codec = Codec(config, inference_tensors(build_autoencoder(config)))
    waves = wave(windows_long(codec), batch=2)[:, 0]
    encoder, decoder = codec.encoder(channels=2, n_quantizers=2), codec.decoder(channels=2)
    codes = torch.cat([*map(encoder.push, waves.split(block, dim=1)), encoder.finish()], dim=-1)
    assert torch.equal(codes, codec.encode(waves[:, None], 2))
    decoded = torch.cat([*map(decoder.push, codes.split(block, dim=2)), decoder.finish()], dim=-1)
    assert torch.equal(decoded, codec.decode(codes)[:, 0])


def test_several_windows_are_one_pass_of_the_model(model, codec):
    x = wave(windows_long(codec), batch=1)
    with torch.no_grad():
        expected = model.decoder(model.quantizer.decode(codec.encode(x)))
    torch.testing.assert_close(
        codec.decode(codec.encode(x)), expected, rtol=1e-4, atol=1e-5 * float(expected.std())
    )


def test_half_precision_is_half_the_file_and_stays_so(codec, tmp_path):
    half = codec.halved()
    assert half.fingerprint != codec.fingerprint
    sizes = []
    for name, one in (("full", codec), ("half", half)):
        one.save(tmp_path / name)
        tensors = load_file(tmp_path / name)
        sizes.append(sum(tensor.nbytes for tensor in tensors.values()))
    assert sizes[1] == sizes[0] / 2
    loaded = Codec.load(tmp_path / "half")
    assert loaded.save(tmp_path / "again") == loaded.fingerprint == half.fingerprint
    assert (tmp_path / "again").read_bytes() == (tmp_path / "half").read_bytes()
    assert all(
        t.dtype == torch.float32
        for t in loaded._autoencoder.state_dict().values()
        if t.is_floating_point()
    )


def test_half_precision_decodes_much_alike(codec):
    codes = codec.encode(wave(2000))
    expected = codec.decode(codes)
    error = codec.halved().decode(codes) - expected
    assert 0 < float(error.abs().max()) < 0.01 * float(expected.abs().max())


def test_a_weight_beyond_half_precision_is_refused(model):
    tensors = inference_tensors(model)
    name = next(iter(tensors))
    tensors[name] = tensors[name] + 1e5
    with pytest.raises(ModelFileError, match=f"{name} is up to 1000.*, beyond half precision"):
        Codec(CONFIG, tensors).halved()


@pytest.mark.parametrize("dtype", [torch.float64, torch.int32, torch.bfloat16, torch.bool])
def test_weights_of_other_types_are_refused(model, dtype):
    tensors = inference_tensors(model)
    name = max(tensors)
    with pytest.raises(ModelFileError, match=f"{name} is {dtype}"):
        Codec(CONFIG, tensors | {name: tensors[name].to(dtype)})


def test_nothing_to_do_is_refused(codec):
    with pytest.raises(SottoError, match="1 to 3"):
        codec.encoder(n_quantizers=0)
    with pytest.raises(AudioError, match="empty"):
        codec.encode(torch.zeros(0, 1, 100))
    with pytest.raises(BitstreamError, match="expected"):
        codec.decode(torch.zeros(0, 1, 5, dtype=torch.int64))


def test_numpy_goes_in(codec):
    codes = codec.encode(wave(100).numpy())
    torch.testing.assert_close(codec.decode(codes.numpy().astype(np.uint16)), codec.decode(codes))


def test_fewer_codebooks_are_the_first_ones(codec):
    x = wave(100)
    assert torch.equal(codec.encode(x, 1), codec.encode(x)[:1])


def test_rates(codec):
    assert codec.possible_kbps() == pytest.approx([3.2, 6.4, 9.6])
    assert codec.kbps(2) == pytest.approx(6.4)
    assert codec.n_quantizers_for(9.6) == 3
    with pytest.raises(SottoError, match=r"5 kbps .* possible: 3\.2, 6\.4, 9\.6"):
        codec.n_quantizers_for(5)
    with pytest.raises(SottoError, match="1 to 3"):
        codec.encode(wave(100), 4)


@pytest.mark.parametrize(
    ("signal", "told"),
    [
        (torch.zeros(0), "empty"),
        (torch.tensor([0.0, float("nan")]), "NaN"),
        (torch.tensor([0.0, float("inf")]), "infinite"),
        (torch.zeros(2, 100), "shape"),
        (torch.zeros(1, 2, 100), "shape"),
        (torch.zeros(100, dtype=torch.int16), "floats"),
    ],
    ids=["empty", "nan", "inf", "two-rows", "stereo", "integers"],
)
def test_bad_signals_are_refused(codec, signal, told):
    with pytest.raises(AudioError, match=told):
        codec.encode(signal)


@pytest.mark.parametrize(
    "codes",
    [
        torch.full((1, 5), 16),
        torch.full((1, 5), -1),
        torch.zeros(4, 5, dtype=torch.int64),
        torch.zeros(0, 5, dtype=torch.int64),
        torch.zeros(5, dtype=torch.int64),
        torch.zeros(1, 5),
    ],
    ids=["above", "below", "too-many-books", "no-books", "one-dimension", "floats"],
)
def test_bad_codes_are_refused(codec, codes):
    with pytest.raises(BitstreamError):
        codec.decode(codes)


def test_a_length_beyond_the_codes_is_refused(codec):
    with pytest.raises(BitstreamError, match="101"):
        codec.decode(torch.zeros(1, 5, dtype=torch.int64), length=101)


def test_file_round_trip_is_exact(codec, path):
    again = Codec.load(path)
    assert again.fingerprint == codec.fingerprint
    codec.save(path.with_name("again.safetensors"))
    assert path.with_name("again.safetensors").read_bytes() == path.read_bytes()
    assert again.config == CONFIG
    codes = codec.encode(wave(300))
    assert torch.equal(again.encode(wave(300)), codes)
    assert torch.equal(again.decode(codes), codec.decode(codes))


def test_tables_travel_in_the_file(codec, path):
    assert Codec.load(path).tables is None
    codec.tables = learn_tables([codec.encode(wave(4000)).numpy()], 16, passes=1)
    with_tables = path.with_name("tables.safetensors")
    assert codec.save(with_tables) == codec.fingerprint
    again = Codec.load(with_tables)
    assert again.fingerprint == codec.fingerprint
    assert again.tables is not None
    assert again.tables.fingerprint == codec.tables.fingerprint


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"),
    [(2, False, "cuda"), (0, True, "mps"), (0, False, "cpu")],
    ids=["cuda", "mps", "neither"],
)
def test_the_fastest_device_is_taken(codec, path, monkeypatch, cuda, mps, expected):
    pretend(monkeypatch, cuda, mps)
    moved = []
    monkeypatch.setattr(torch.nn.Module, "to", lambda self, to: moved.append(to) or self)
    Codec.load(path, "auto")
    assert moved == [torch.device(expected)]


@pytest.mark.parametrize("name", ["cuda", "cuda:1", "mps", "gpu", "cpu:1", "xla"])
def test_a_device_that_is_not_there_is_named(path, monkeypatch, name):
    pretend(monkeypatch, int(name == "cuda:1"), False)
    with pytest.raises(SottoError, match=f"no device '{name}' here: use auto, cpu"):
        Codec.load(path, name)
    assert Codec.load(path, "cpu").device == torch.device("cpu")


def pretend(monkeypatch, cuda, mps):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)


def test_a_file_holds_no_training_statistics(path):
    with safe_open(path, framework="pt") as file:
        names = list(file.keys())
    assert names
    assert not [name for name in names if "statistics" in name or "parametrizations" in name]


def test_fingerprint_is_a_known_value_on_every_platform():
    tensors = {
        name: (torch.arange(tensor.numel()) % 17).reshape(tensor.shape) / 8 - 1
        for name, tensor in inference_tensors(build_autoencoder(CONFIG)).items()
    }
    assert Codec(CONFIG, tensors).fingerprint == "6bbd32b17339b692ac83a60dd2bc4f73"


def test_fingerprint_depends_on_weights_and_config(codec, model):
    other = inference_tensors(model)
    name = "decoder.layers.0.bias"
    other[name] = other[name].clone()
    other[name][0] += 1e-3
    assert Codec(CONFIG, other).fingerprint != codec.fingerprint
    config = CONFIG.model_copy(update={"default_kbps": 3.2})
    assert Codec(config, inference_tensors(model)).fingerprint != codec.fingerprint


@pytest.mark.parametrize("where", [0.05, 0.3, 0.6, 0.99])
def test_a_flipped_bit_is_noticed(path, where):
    data = bytearray(path.read_bytes())
    data[int(where * len(data))] ^= 0x10
    path.write_bytes(data)
    with pytest.raises(ModelFileError, match=str(path)):
        Codec.load(path)


@pytest.mark.parametrize("size", [0, 7, 8, 100, 0.5, 0.999])
def test_a_cut_file_is_noticed(path, size):
    data = path.read_bytes()
    path.write_bytes(data[: size if isinstance(size, int) else int(size * len(data))])
    with pytest.raises(ModelFileError, match=str(path)):
        Codec.load(path)


def test_foreign_and_newer_files_are_refused(path, tmp_path):
    with pytest.raises(ModelFileError, match="no such"):
        Codec.load(tmp_path / "nothing.safetensors")
    text = tmp_path / "text.safetensors"
    text.write_text("hello")
    with pytest.raises(ModelFileError, match="not a Sotto model"):
        Codec.load(text)
    foreign = tmp_path / "foreign.safetensors"
    save_file({"a": torch.zeros(1)}, foreign)
    with pytest.raises(ModelFileError, match="not a Sotto model"):
        Codec.load(foreign)
    with safe_open(path, framework="pt") as file:
        about = json.loads(file.metadata()["sotto"])
    newer = tmp_path / "newer.safetensors"
    save_file(load_file(path), newer, metadata={"sotto": json.dumps(about | {"version": 2})})
    with pytest.raises(ModelFileError, match=r"version 2.*update Sotto"):
        Codec.load(newer)


def test_weights_that_do_not_fit_are_refused(codec, model):
    tensors = inference_tensors(model)
    del tensors["decoder.layers.0.bias"]
    with pytest.raises(ModelFileError, match=r"decoder\.layers\.0\.bias"):
        Codec(CONFIG, tensors)


def test_a_full_disk_leaves_nothing_behind(codec, tmp_path, monkeypatch):
    def full(tensors, filename, metadata):
        filename.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("codec.model_file.save_file", full)
    target = tmp_path / "model.safetensors"
    with pytest.raises(ModelFileError, match="No space left"):
        codec.save(target)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "half",
    [
        {"channels": 8000, "dilations": [1]},
        {"kind": "convnext", "strides": [2048, 2], "channels": [8192] * 2, "blocks": [256] * 2},
    ],
    ids=["seanet", "convnext"],
)
def test_a_config_that_its_weights_do_not_fit_takes_no_memory(half):
    """Tens of gigabytes, if it were built before it is compared."""
    wide = {"strides": [4096], "hop_length": 4096, "decoder": half, "default_kbps": 0.4}
    config = ModelConfig.model_validate(CONFIG.model_dump() | wide | {"sample_rate": 409_600})
    with pytest.raises(ModelFileError, match="do not fit the config"):
        Codec(config, {})


@pytest.mark.parametrize("key", ["dimension", "hop_length"])
def test_absurd_sizes_are_no_model(key):
    with pytest.raises(ValidationError, match=key):
        ModelConfig.model_validate(CONFIG.model_dump() | {key: 2**60})


def test_what_comes_out_is_free_to_be_changed_and_trained_on(codec):
    codes = codec.encode(wave(100))
    decoded = codec.decode(codes)
    assert not codes.is_inference() and not decoded.is_inference()
    weight = torch.ones((), requires_grad=True)
    (decoded * weight).sum().backward()
    decoded.mul_(2)
