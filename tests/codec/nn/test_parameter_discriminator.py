import pytest
import torch
from torch import Tensor

from codec.losses.adversarial import AdversarialKind, AdversarialLoss, feature_matching
from codec.nn.parameter_discriminator import ParameterDiscriminator


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)


def sharp(batch: int, frames: int, generator: torch.Generator) -> Tensor:
    """Log power of formants that wander: (batch, 64, frames)."""
    points = torch.arange(64.0)[None, :, None]
    centre = 32 + torch.randn(batch, 1, frames, generator=generator).cumsum(dim=-1)
    return -12 + 6 * torch.exp(-(((points - centre) / 3) ** 2))


def muffled(batch: int, frames: int, generator: torch.Generator) -> Tensor:
    """The same formants, blurred as a mean over many would be."""
    image = sharp(batch, frames, generator)
    return (
        torch.nn.functional.avg_pool1d(image.mT.flatten(0, 1), 9, 1, 4)
        .unflatten(0, (batch, frames))
        .mT
    )


def test_shapes() -> None:
    said = ParameterDiscriminator(channels=6)(sharp(2, 51, torch.Generator()))
    assert [tuple(logits.shape) for logits in said.logits] == [(2, 1, 8, 26)]
    assert [tuple(feature.shape) for feature in said.features[0]] == [
        (2, 6, 32, 51),
        (2, 12, 16, 26),
        (2, 12, 8, 26),
        (2, 12, 8, 26),
    ]


def test_gradient_reaches_the_envelope_and_every_parameter() -> None:
    model, generator = ParameterDiscriminator(channels=4), torch.Generator().manual_seed(1)
    fake = muffled(2, 40, generator).requires_grad_()
    on_real, on_fake = model(sharp(2, 40, generator)), model(fake)
    matching = feature_matching(on_real.features, on_fake.features).total
    (on_fake.logits[0].square().mean() + matching).backward()
    assert fake.grad is not None
    assert (fake.grad.abs().sum(dim=(0, 2)) > 0).all()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


@pytest.mark.parametrize("kind", ["hinge", "least_squares"])
def test_learns_to_tell_a_voice_from_a_muffled_one(kind: AdversarialKind) -> None:
    model, loss = ParameterDiscriminator(channels=4), AdversarialLoss(kind)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3, betas=(0.5, 0.9))
    generator = torch.Generator().manual_seed(1)
    for _ in range(60):
        real, fake = sharp(4, 40, generator), muffled(4, 40, generator)
        value = loss.discriminator(model(real).logits, model(fake).logits)
        optimizer.zero_grad()
        value.total.backward()
        optimizer.step()
    with torch.no_grad():
        real, fake = sharp(16, 40, generator), muffled(16, 40, generator)
        of_real = model(real).logits[0].flatten(1).mean(dim=1)
        of_fake = model(fake).logits[0].flatten(1).mean(dim=1)
    assert (of_real[:, None] > of_fake[None, :]).float().mean() > 0.9


@pytest.mark.parametrize("channels", [8, 12, 16])
def test_bfloat16_gradients_are_those_of_float32_nearly(channels: int) -> None:
    judge = ParameterDiscriminator(channels=channels)
    envelope = sharp(4, 100, torch.Generator().manual_seed(1))

    def gradients(enabled: bool) -> list[Tensor]:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            (logits,) = judge(envelope).logits
        return list(torch.autograd.grad(logits.float().square().mean(), list(judge.parameters())))

    for half, full in zip(gradients(True), gradients(False), strict=True):
        assert (half - full).norm() < 0.2 * full.norm()
