"""Noise out of a latent: as loud as it, another for every frame, the same for the same frame."""

import pytest
import torch

from codec.nn.noise import LatentNoise


def latent(batch: int = 2, frames: int = 500, seed: int = 0) -> torch.Tensor:
    return torch.randn(batch, 64, frames, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def layer() -> LatentNoise:
    torch.manual_seed(1)
    return LatentNoise(64, 32).eval()


def noise_of(layer: LatentNoise, x: torch.Tensor) -> torch.Tensor:
    return layer(x)[:, 64:]


def correlation(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a * b).mean() / (a.square().mean() * b.square().mean()).sqrt())


def test_the_latent_passes_as_it_is(layer):
    x = latent()
    y = layer(x)
    assert y.shape == (2, 96, 500)
    assert torch.equal(y[:, :64], x)


@pytest.mark.parametrize("scale", [0.01, 1.0, 30.0])
def test_noise_has_the_latents_power_and_no_mean(layer, scale):
    noise = noise_of(layer, scale * latent())
    assert float(noise.square().mean().sqrt()) == pytest.approx(scale, rel=0.05)
    assert abs(float(noise.mean())) < 0.02 * scale


def test_neighbours_and_channels_are_unrelated(layer):
    noise = noise_of(layer, latent())
    assert abs(correlation(noise[..., 1:], noise[..., :-1])) < 0.03
    assert abs(correlation(noise[:, 1:], noise[:, :-1])) < 0.03


def test_latents_that_differ_a_little_have_unrelated_noise(layer):
    """By a sixth of their size: frames of one fricative, coded one after the other."""
    x = latent()
    assert abs(correlation(noise_of(layer, x), noise_of(layer, x + 0.17 * latent(seed=5)))) < 0.1


def test_equal_latents_have_equal_noise_wherever_they_are(layer):
    x = latent()
    torch.testing.assert_close(
        noise_of(layer, x)[..., 100:110], noise_of(layer, x[..., 100:110]), rtol=0, atol=1e-4
    )
    assert noise_of(layer, torch.zeros(1, 64, 3)).abs().max() < 2e-3


def test_rounding_of_a_latent_moves_its_noise_little(layer):
    x = latent()
    moved = noise_of(layer, x * (1 + 1e-6 * torch.randn(x.shape)))
    assert float((moved - noise_of(layer, x)).abs().max()) < 5e-4


def test_training_draws_other_noise_for_every_item_and_pass(layer):
    x = latent(1).repeat(2, 1, 1)
    layer.train()
    first, second = noise_of(layer, x), noise_of(layer, x)
    for a, b in ((first[0], first[1]), (first, second)):
        assert abs(correlation(a, b)) < 0.3
    torch.manual_seed(3)
    again = noise_of(layer, x)
    torch.manual_seed(3)
    assert torch.equal(noise_of(layer, x), again)
    layer.eval()
    assert torch.equal(noise_of(layer, x), noise_of(layer, x))


def test_no_gradient_flows_through_noise(layer):
    x = latent().requires_grad_()
    y = layer(x)
    assert not torch.autograd.grad(y[:, 64:].sum(), x, allow_unused=True)[0].any()
    assert (torch.autograd.grad(layer(x)[:, :64].sum(), x)[0] == 1).all()


def test_a_saved_model_keeps_its_noise(layer):
    other = LatentNoise(64, 32).eval()
    assert not torch.allclose(noise_of(other, latent()), noise_of(layer, latent()))
    other.load_state_dict(layer.state_dict())
    assert torch.equal(noise_of(other, latent()), noise_of(layer, latent()))


@pytest.mark.parametrize("sizes", [(0, 4), (4, 0)])
def test_sizes_must_be_positive(sizes):
    with pytest.raises(ValueError, match="must be positive"):
        LatentNoise(*sizes)
