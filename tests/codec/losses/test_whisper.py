import math
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from torch import Tensor
from whisper.model import AudioEncoder, ModelDimensions, Whisper

from codec.errors import ConfigError
from codec.losses.whisper import WhisperFeatureLoss
from codec.spectra import whisper_log_mel

REAL = Path(__file__).parents[3] / "../shared/models/whisper-base-encoder.pt"
DIMS = ModelDimensions(
    n_mels=80,
    n_audio_ctx=1500,
    n_audio_state=16,
    n_audio_head=2,
    n_audio_layer=3,
    n_vocab=20,
    n_text_ctx=8,
    n_text_state=16,
    n_text_head=2,
    n_text_layer=1,
)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)


def save_encoder(path: Path, dims: ModelDimensions = DIMS) -> AudioEncoder:
    encoder = AudioEncoder(
        dims.n_mels, dims.n_audio_ctx, dims.n_audio_state, dims.n_audio_head, dims.n_audio_layer
    )
    # Through half precision, as the files are.
    encoder.load_state_dict({k: v.half().float() for k, v in encoder.state_dict().items()})
    weights = {f"encoder.{name}": value.half() for name, value in encoder.state_dict().items()}
    torch.save({"dims": asdict(dims), "model_state_dict": weights}, path)
    return encoder.eval()


@pytest.fixture
def encoder_file(tmp_path: Path) -> Path:
    save_encoder(tmp_path / "encoder.pt")
    return tmp_path / "encoder.pt"


@pytest.fixture
def loss(encoder_file: Path) -> WhisperFeatureLoss:
    return WhisperFeatureLoss(model=str(encoder_file), sample_rate=16_000)


def wave(batch: int, samples: int) -> Tensor:
    return 0.1 * torch.randn(batch, 1, samples)


@pytest.mark.parametrize("n_mels", [80, 128])
def test_features_of_30_s_are_what_whisper_gives(tmp_path: Path, n_mels: int) -> None:
    dims = ModelDimensions(**{**asdict(DIMS), "n_mels": n_mels})
    encoder = save_encoder(tmp_path / "encoder.pt", dims)
    loss = WhisperFeatureLoss(model=str(tmp_path / "encoder.pt"), sample_rate=16_000)
    clip = wave(1, 480_000)
    with torch.no_grad():
        wanted = encoder(whisper_log_mel(clip[:, 0], n_mels))
        got = loss.features(clip)[-1]
    assert got.shape == (1, 1500, 16)
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)


def test_a_whole_model_and_its_encoder_alone_are_the_same(tmp_path: Path) -> None:
    whole = Whisper(DIMS)
    weights = whole.state_dict()
    for name, keep in (("whole", ""), ("encoder", "encoder.")):
        chosen = {key: value for key, value in weights.items() if key.startswith(keep)}
        torch.save({"dims": asdict(DIMS), "model_state_dict": chosen}, tmp_path / name)
    losses = [
        WhisperFeatureLoss(model=str(tmp_path / name), sample_rate=16_000)
        for name in ("whole", "encoder")
    ]
    clip = wave(1, 4000)
    for a, b in zip(losses[0].features(clip), losses[1].features(clip), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("samples", [400, 401, 559, 640, 1601, 8000, 15_999])
def test_any_short_clip_will_do(loss: WhisperFeatureLoss, samples: int) -> None:
    features = loss.features(wave(2, samples))
    assert [tuple(f.shape) for f in features] == [(2, math.ceil(samples // 160 / 2), 16)] * 2


@pytest.mark.parametrize("samples", [399, 480_001])
def test_other_lengths_are_refused(loss: WhisperFeatureLoss, samples: int) -> None:
    with pytest.raises(ValueError, match=r"0\.025 to 30 s would do"):
        loss.features(wave(1, samples))


def test_equal_sounds_are_at_distance_zero_and_others_further(loss: WhisperFeatureLoss) -> None:
    reference = wave(2, 4000)
    values = [loss(reference + a * wave(2, 4000), reference).total.item() for a in (0.0, 0.05, 0.5)]
    assert values[0] == 0
    assert 0 < values[1] < values[2]


def test_gradient_reaches_the_decoded_wave_and_nothing_else(loss: WhisperFeatureLoss) -> None:
    decoded, reference = wave(2, 3200).requires_grad_(), wave(2, 3200).requires_grad_()
    value = loss(decoded, reference)
    value.total.backward()
    assert decoded.grad is not None
    assert (decoded.grad.abs().sum(dim=(1, 2)) > 0).all()
    assert reference.grad is None
    (encoder,) = loss._frozen
    assert all(p.grad is None and not p.requires_grad for p in encoder.parameters())


def test_a_clip_does_not_depend_on_its_neighbours(loss: WhisperFeatureLoss) -> None:
    decoded, reference = wave(3, 3200), wave(3, 3200)
    decoded[1] *= 1e-5  # far under the floor that the others would set
    reference[1] *= 1e-5
    alone = [loss(decoded[i : i + 1], reference[i : i + 1]).total for i in range(3)]
    torch.testing.assert_close(loss(decoded, reference).total, torch.stack(alone).mean())


def test_scale_of_a_layer_does_not_matter(loss: WhisperFeatureLoss) -> None:
    decoded, reference = wave(2, 3200), wave(2, 3200)
    before = loss(decoded, reference).parts["layer_3"]
    (encoder,) = loss._frozen
    encoder.ln_post.weight.mul_(1000)
    encoder.ln_post.bias.mul_(1000)
    torch.testing.assert_close(loss(decoded, reference).parts["layer_3"], before)


def test_other_sample_rates_are_resampled_in_the_graph(encoder_file: Path) -> None:
    def tone(rate: int) -> Tensor:
        return 0.3 * torch.sin(2 * math.pi * 500 * torch.arange(rate // 5) / rate)[None, None]

    at_16, at_24 = (
        WhisperFeatureLoss(model=str(encoder_file), sample_rate=rate) for rate in (16_000, 24_000)
    )
    for a, b in zip(at_16.features(tone(16_000)), at_24.features(tone(24_000)), strict=True):
        assert (a - b).abs().mean() < 0.1 * a.abs().mean()
    decoded = tone(24_000).requires_grad_()
    at_24(decoded, wave(1, 4800)).total.backward()
    assert decoded.grad is not None
    assert decoded.grad.abs().sum() > 0


def test_differences_are_float32_under_autocast(loss: WhisperFeatureLoss) -> None:
    decoded, reference = wave(2, 3200), wave(2, 3200)
    with torch.autocast("cpu", torch.bfloat16):
        value = loss(decoded, reference).total
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, loss(decoded, reference).total, rtol=0.05, atol=0)


def test_the_encoder_is_in_no_checkpoint_and_stays_in_eval_mode(loss: WhisperFeatureLoss) -> None:
    assert not loss.state_dict()
    assert not list(loss.parameters())
    loss.train()
    assert not loss._frozen[0].training


def test_the_encoder_moves_with_the_module(loss: WhisperFeatureLoss) -> None:
    loss.to("meta")
    (encoder,) = loss._frozen
    assert {t.device.type for t in (*encoder.parameters(), *encoder.buffers())} == {"meta"}


@pytest.mark.parametrize(
    ("layers", "wanted"), [(None, [2, 3]), ([3, 1], [1, 3]), ([1], [1])], ids=str
)
def test_layers(encoder_file: Path, layers: list[int] | None, wanted: list[int]) -> None:
    loss = WhisperFeatureLoss(model=str(encoder_file), sample_rate=16_000, layers=layers)
    value = loss(wave(1, 1600), wave(1, 1600))
    assert list(value.parts) == [f"layer_{layer}" for layer in wanted]
    assert value.total.item() == pytest.approx(
        sum(p.item() for p in value.parts.values()) / len(wanted)
    )


@pytest.mark.parametrize("layer", [0, 4])
def test_a_layer_that_is_not_there_is_named(encoder_file: Path, layer: int) -> None:
    with pytest.raises(ConfigError, match=rf"no layer {layer}: its layers are 1 to 3"):
        WhisperFeatureLoss(model=str(encoder_file), sample_rate=16_000, layers=[layer])


def cut(path: Path) -> None:
    save_encoder(path)
    path.write_bytes(path.read_bytes()[:2000])


def without_a_weight(path: Path) -> None:
    save_encoder(path)
    saved = torch.load(path, weights_only=True)
    del saved["model_state_dict"]["encoder.conv1.bias"]
    torch.save(saved, path)


def with_a_nan(path: Path) -> None:
    save_encoder(path)
    saved = torch.load(path, weights_only=True)
    saved["model_state_dict"]["encoder.conv1.bias"][0] = math.nan
    torch.save(saved, path)


@pytest.mark.parametrize(
    "write",
    [
        pytest.param(lambda path: None, id="absent"),
        pytest.param(lambda path: path.mkdir(), id="folder"),
        pytest.param(lambda path: path.write_bytes(b""), id="empty"),
        pytest.param(lambda path: path.write_text("RIFF, WAVE"), id="text"),
        pytest.param(lambda path: torch.save({"weight": torch.ones(1)}, path), id="foreign"),
        pytest.param(lambda path: torch.save(torch.ones(1), path), id="tensor"),
        pytest.param(lambda path: torch.save({"dims": Path("x")}, path), id="needs unpickling"),
        pytest.param(cut, id="cut"),
        pytest.param(without_a_weight, id="weight missing"),
        pytest.param(with_a_nan, id="nan weight"),
    ],
)
def test_a_bad_file_ends_in_one_line_that_names_it(
    tmp_path: Path, write: Callable[[Path], object]
) -> None:
    path = tmp_path / "bad.pt"
    write(path)
    with pytest.raises(ConfigError) as caught:
        WhisperFeatureLoss(model=str(path), sample_rate=16_000)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message


def test_a_checkpoint_runs_no_code(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple:
            return os.mkdir, (str(tmp_path / "sprung"),)

    path = tmp_path / "trap.pt"
    save_encoder(path)
    saved = torch.load(path, weights_only=True)
    torch.save({**saved, "extra": Trap()}, path)
    with pytest.raises(ConfigError, match=r"trap\.pt"):
        WhisperFeatureLoss(model=str(path), sample_rate=16_000)
    assert not (tmp_path / "sprung").exists()


def test_a_name_that_cannot_be_downloaded_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str, device: str) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("whisper.load_model", refuse)
    with pytest.raises(ConfigError, match=r"tiny could not be downloaded .*no route to host"):
        WhisperFeatureLoss(model="tiny", sample_rate=16_000)


def test_of_a_named_model_only_the_encoder_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Whisper(DIMS)
    monkeypatch.setattr("whisper.load_model", lambda name, device: model)
    loss = WhisperFeatureLoss(model="base.en", sample_rate=16_000)
    assert loss._frozen == [model.encoder]


@pytest.mark.skipif(not REAL.exists(), reason="needs ../shared/models/whisper-base-encoder.pt")
def test_the_real_encoder_cares_for_what_is_said_not_for_phase() -> None:
    """A flipped sign is inaudible; the same energy as noise destroys the sound."""
    loss = WhisperFeatureLoss(model=str(REAL), sample_rate=16_000)
    time = torch.arange(16_000) / 16_000
    pitch = 120 + 20 * torch.sin(2 * math.pi * 2 * time)
    phase = 2 * math.pi * pitch.cumsum(0) / 16_000
    formant = 700 + 400 * torch.sin(2 * math.pi * 3 * time)
    k = torch.arange(1, 20)[:, None]
    voice = (torch.exp(-(((k * pitch - formant) / 200) ** 2)) * torch.sin(k * phase)).sum(dim=0)
    reference = (0.1 * voice / voice.std())[None, None]
    noise = 0.1 * torch.randn_like(reference)
    flipped, hissing, gone = (
        loss(decoded, reference).total.item()
        for decoded in (-reference, reference + 0.3 * noise, noise)
    )
    assert flipped < 0.01
    assert 10 * flipped < hissing < gone
    assert 0.3 < gone < 3
