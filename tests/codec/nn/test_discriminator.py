import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from codec.losses.adversarial import AdversarialKind, AdversarialLoss, feature_matching
from codec.nn.discriminator import (
    Discriminators,
    MultiPeriodDiscriminator,
    MultiScaleSTFTDiscriminator,
    STFTDiscriminator,
)
from codec.nn.light_discriminators import BandsDiscriminator, FramesDiscriminator


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)


def one_scale() -> Discriminators:
    return MultiScaleSTFTDiscriminator(n_ffts=(128,), channels=4)


def scales() -> Discriminators:
    return MultiScaleSTFTDiscriminator(n_ffts=(256, 64), channels=4)


def periods() -> Discriminators:
    return MultiPeriodDiscriminator(periods=(2, 3), channels=2)


def bands() -> Discriminators:
    return Discriminators(BandsDiscriminator(n_fft=n_fft, channels=4) for n_fft in (256, 64))


def frames() -> Discriminators:
    return Discriminators(FramesDiscriminator(n_fft=n_fft, channels=16) for n_fft in (256, 64))


def joined() -> Discriminators:
    return Discriminators([scales(), periods()])


Make = Callable[[], Discriminators]
KINDS: dict[str, Make] = {
    "one scale": one_scale,
    "scales": scales,
    "periods": periods,
    "bands": bands,
    "frames": frames,
    "joined": joined,
}
every_kind = pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)


def speech(batch: int, samples: int, generator: torch.Generator) -> Tensor:
    """Voices: harmonics of a gliding pitch under two formants that open and close."""

    def draw(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(batch, 1, generator=generator)

    time = torch.arange(samples) / 16_000
    pitch = draw(90, 250) * (1 + 0.1 * torch.sin(2 * math.pi * draw(2, 5) * time))
    phase = 2 * math.pi * pitch.cumsum(dim=1) / 16_000
    formants = [(draw(300, 900), 150), (draw(1000, 2500), 250)]
    wave = torch.zeros(batch, samples)
    for k in range(1, 25):
        for formant, width in formants:
            level = torch.exp(-(((k * pitch - formant) / width) ** 2)) + 0.01
            wave = wave + level * torch.sin(k * phase)
    wave = wave * (0.5 + 0.5 * torch.sin(2 * math.pi * draw(3, 6) * time))
    return (0.1 * wave / wave.std(dim=1, keepdim=True))[:, None]


def noise(batch: int, samples: int, generator: torch.Generator) -> Tensor:
    """White noise as loud as the voices."""
    return 0.1 * torch.randn(batch, 1, samples, generator=generator)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("one scale", "hinge"),
        ("scales", "least_squares"),
        ("periods", "hinge"),
        ("bands", "hinge"),
        ("bands", "least_squares"),
        ("frames", "hinge"),
        ("frames", "least_squares"),
        ("joined", "least_squares"),
    ],
)
def test_learns_to_tell_speech_from_noise(name: str, kind: AdversarialKind) -> None:
    model, loss = KINDS[name](), AdversarialLoss(kind)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3, betas=(0.5, 0.9))
    generator = torch.Generator().manual_seed(1)
    losses = []
    for _ in range(40):
        real, fake = speech(4, 2000, generator), noise(4, 2000, generator)
        value = loss.discriminator(model(real).logits, model(fake).logits)
        optimizer.zero_grad()
        value.total.backward()
        optimizer.step()
        losses.append(value.total.item())
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])
    with torch.no_grad():  # clips it has not seen, and every discriminator by itself
        real, fake = speech(16, 2000, generator), noise(16, 2000, generator)
        for said_real, said_fake in zip(model(real).logits, model(fake).logits, strict=True):
            of_real, of_fake = said_real.flatten(1).mean(dim=1), said_fake.flatten(1).mean(dim=1)
            assert (of_real[:, None] > of_fake[None, :]).float().mean() > 0.9


@every_kind
def test_an_untrained_discriminator_hears_its_input(make: Make) -> None:
    """What the last hidden layer says depends on the wave, not on the biases alone."""
    generator = torch.Generator().manual_seed(1)
    real, fake = speech(1, 2000, generator), noise(1, 2000, generator)
    model = make()
    for a, b in zip(model(real).features, model(fake).features, strict=True):
        assert (a[-1] - b[-1]).abs().mean() > 0.3 * b[-1].abs().mean()


@every_kind
def test_forward_has_no_side_effects(make: Make) -> None:
    model, wave = make().train(), torch.randn(2, 1, 1000)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    first, second = model(wave), model(wave)
    for a, b in zip(first.logits, second.logits, strict=True):
        assert torch.equal(a, b)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


@every_kind
def test_clips_are_judged_one_by_one(make: Make) -> None:
    model, wave = make(), torch.randn(3, 1, 1000)
    together = model(wave)
    for i in range(3):
        alone = model(wave[i : i + 1])
        for a, b in zip(together.logits, alone.logits, strict=True):
            torch.testing.assert_close(a[i : i + 1], b)


@every_kind
def test_gradient_reaches_the_wave_and_every_parameter(make: Make) -> None:
    model = make()
    real, fake = torch.randn(1, 1, 1000), torch.randn(1, 1, 1000, requires_grad=True)
    on_real, on_fake = model(real), model(fake)
    matching = feature_matching(on_real.features, on_fake.features).total
    logits = torch.stack([logits.square().mean() for logits in on_fake.logits]).sum()
    (logits + matching).backward()
    assert fake.grad is not None
    assert fake.grad.abs().sum() > 0
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


@every_kind
def test_every_discriminator_gives_logits_and_its_layers_features(make: Make) -> None:
    said = make()(torch.randn(2, 1, 1000))
    layers = 4 if make in (bands, frames) else 5
    assert [logits.shape[:2] for logits in said.logits] == [(2, 1)] * len(said.logits)
    assert [len(features) for features in said.features] == [layers] * len(said.logits)


def test_features_are_what_the_next_layer_saw() -> None:
    """They are rectified in place: none may be changed after it was handed out."""
    model = STFTDiscriminator(n_fft=64, channels=3)
    logits, features = model(torch.randn(2, 1, 500))
    for layer, before, after in zip(
        model.stack.layers[1:], features[:-1], features[1:], strict=True
    ):
        assert torch.equal(nn.functional.leaky_relu(layer(before), 0.2), after)
    assert torch.equal(model.stack.logits(features[-1]), logits)


def test_shapes_of_one_scale() -> None:
    logits, features = STFTDiscriminator(n_fft=128, channels=4, growth=2)(torch.randn(2, 1, 1000))
    frames = 1 + 1000 // 32
    assert logits.shape == (2, 1, frames, 9)
    assert [tuple(feature.shape) for feature in features] == [
        (2, 4, frames, 65),
        (2, 8, frames, 33),
        (2, 16, frames, 17),
        (2, 32, frames, 9),
        (2, 32, frames, 9),
    ]


def test_growth_ends_at_the_most_channels() -> None:
    model = STFTDiscriminator(n_fft=64, channels=4, growth=2, max_channels=10)
    features = model(torch.randn(1, 1, 100))[1]
    assert [feature.shape[1] for feature in features] == [4, 8, 10, 10, 10]


def test_joining_keeps_the_order() -> None:
    first, second = scales(), periods()
    wave = torch.randn(1, 1, 500)
    said = Discriminators([first, second])(wave)
    apart = first(wave).logits + second(wave).logits
    for a, b in zip(said.logits, apart, strict=True):
        assert torch.equal(a, b)


@settings(deadline=None, max_examples=15)
@given(samples=st.integers(1, 600), name=st.sampled_from(["scales", "periods", "bands", "frames"]))
def test_any_length_will_do(samples: int, name: str) -> None:
    said = KINDS[name]()(torch.randn(1, 1, samples))
    assert all(logits.numel() and logits.isfinite().all() for logits in said.logits)


def test_period_padding_changes_only_the_last_row() -> None:
    model, wave = MultiPeriodDiscriminator(periods=(5,), channels=2), torch.randn(1, 1, 999)
    padded = nn.functional.pad(wave, (0, 1))
    assert torch.equal(model(wave).logits[0], model(padded).logits[0])


def test_spectra_stay_in_float32_under_autocast() -> None:
    model, wave = one_scale(), torch.randn(1, 1, 1000)
    with torch.autocast("cpu", torch.bfloat16):
        said = model(wave)
    assert said.logits[0].dtype == torch.bfloat16
    torch.testing.assert_close(said.logits[0].float(), model(wave).logits[0], rtol=0.1, atol=0.03)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        pytest.param(lambda: MultiScaleSTFTDiscriminator(n_ffts=()), "no disc", id="no scale"),
        pytest.param(lambda: MultiScaleSTFTDiscriminator(n_ffts=(30,)), "n_fft=30", id="n_fft"),
        pytest.param(lambda: MultiPeriodDiscriminator(periods=(0,)), "period=0", id="period"),
    ],
)
def test_bad_arguments_are_named(make: Make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("channels", [8, 16, 24, 32])
def test_bfloat16_gradients_are_those_of_float32_nearly(channels: int) -> None:
    torch.manual_seed(0)
    judge = MultiScaleSTFTDiscriminator(n_ffts=(512,), channels=channels)
    wave = 0.1 * torch.randn(4, 1, 8000)

    def gradients(enabled: bool) -> list[torch.Tensor]:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            (logits,) = judge(wave).logits
        return list(torch.autograd.grad(logits.float().square().mean(), list(judge.parameters())))

    for half, full in zip(gradients(True), gradients(False), strict=True):
        assert (half - full).norm() < 0.2 * full.norm()
