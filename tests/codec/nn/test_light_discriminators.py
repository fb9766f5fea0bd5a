"""What is the light discriminators' own; what all have in common is in test_discriminator.py."""

import pytest
import torch

from codec.nn.light_discriminators import BandsDiscriminator, FramesDiscriminator


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)


def test_shapes_of_bands() -> None:
    logits, features = BandsDiscriminator(n_fft=128, channels=4)(torch.randn(2, 1, 1000))
    frames = 1 + 1000 // 32
    assert logits.shape == (2, 1, frames // 2, 5)
    assert [tuple(feature.shape) for feature in features] == [
        (2, 4, frames, 17),
        (2, 8, frames, 9),
        (2, 16, frames // 2, 5),
        (2, 16, frames // 2, 5),
    ]


def test_shapes_of_frames() -> None:
    logits, features = FramesDiscriminator(n_fft=128, channels=12)(torch.randn(2, 1, 1000))
    assert logits.shape == (2, 1, 8)
    assert [tuple(feature.shape) for feature in features] == [
        (2, 12, 32),
        (2, 12, 32),
        (2, 12, 16),
        (2, 12, 8),
    ]


@pytest.mark.parametrize("kind", [BandsDiscriminator, FramesDiscriminator])
def test_a_pause_pulls_no_harder_than_a_voice(kind: type) -> None:
    """Compression is steep where there is nothing; what comes of that must not drown the rest."""
    judge = kind(n_fft=512)
    time = torch.arange(8000) / 16_000
    voice = sum(0.05 * torch.sin(2 * torch.pi * 150 * k * time) for k in range(1, 20))
    voice = torch.as_tensor(voice)[None, None]
    norms = []
    for wave in (voice, 1e-3 * voice, 1e-5 * torch.randn_like(voice), torch.zeros_like(voice)):
        wave = wave.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(judge(wave)[0].square().mean(), wave)
        norms.append(float(gradient.norm()))
    assert all(norm < 5 * norms[0] for norm in norms)


@pytest.mark.parametrize("channels", [8, 12, 16, 32])
@pytest.mark.parametrize("kind", [BandsDiscriminator, FramesDiscriminator])
def test_bfloat16_gradients_are_those_of_float32_nearly(kind: type, channels: int) -> None:
    judge = kind(n_fft=512, channels=channels)
    wave = 0.1 * torch.randn(4, 1, 8000)

    def gradients(enabled: bool) -> list[torch.Tensor]:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            logits, _ = judge(wave)
        assert logits.dtype == (torch.bfloat16 if enabled else torch.float32)
        return list(torch.autograd.grad(logits.float().square().mean(), list(judge.parameters())))

    for half, full in zip(gradients(True), gradients(False), strict=True):
        assert (half - full).norm() < 0.2 * full.norm()
