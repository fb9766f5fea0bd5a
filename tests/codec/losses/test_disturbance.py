import math

import numpy as np
import pytest
import torch

from codec.evaluation.metrics import pesq_nb, pesq_wb
from codec.losses.disturbance import DisturbanceLoss, Listener, taken_off


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def wave(samples: int = 16000, sample_rate: int = 16_000) -> torch.Tensor:
    """Harmonics that come and go four times a second, like syllables, over a little noise."""
    time = torch.arange(samples) / sample_rate
    harmonics = sum(torch.sin(2 * math.pi * 150 * k * time) / k for k in range(1, 20))
    return (0.1 * harmonics * syllables(time, 4) + 0.001 * torch.randn(samples))[None, None]


def syllables(time: torch.Tensor, a_second: float) -> torch.Tensor:
    """1 and 0 by turns."""
    return (torch.sin(2 * math.pi * a_second * time) > 0).float()


def part(decoded: torch.Tensor, reference: torch.Tensor, listener: Listener) -> torch.Tensor:
    """What one listener's disturbance takes off."""
    return DisturbanceLoss(sample_rate=16_000, listeners=[listener])(decoded, reference).total


def loss(decoded: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    return DisturbanceLoss(sample_rate=16_000)(decoded, reference).total


def test_it_is_nothing_without_a_difference_and_grows_with_it() -> None:
    reference = wave()
    noise = torch.randn_like(reference)
    values = [float(loss(reference + a * noise, reference)) for a in (0, 1e-4, 1e-3, 1e-2, 1e-1)]
    assert values[0] < 2e-3
    assert values == sorted(values)
    assert values[-1] > 3


def pesq_takes_off(decoded: torch.Tensor, reference: torch.Tensor, listener: Listener) -> float:
    metric = pesq_wb if listener == "wideband" else pesq_nb
    waves = (np.asarray(wave[0, 0], np.float32) for wave in (reference, decoded))
    return taken_off(metric(*waves, 16_000), listener)


@pytest.mark.parametrize("listener", ["wideband", "narrowband"])
def test_it_is_what_pesq_takes_off(listener: Listener) -> None:
    reference = wave(48000)
    decoded = [
        reference + level * torch.randn_like(reference) for level in (3e-4, 1e-3, 4e-3, 0.02)
    ]
    decoded += [(reference * steps).round() / steps for steps in (400, 100, 30)]
    decoded.append(reference.lerp(reference.roll(160, -1), 0.5))  # an echo colours it
    theirs = [pesq_takes_off(one, reference, listener) for one in decoded]
    ours = [float(part(one, reference, listener)) for one in decoded]
    assert ours == pytest.approx(theirs, abs=0.25)
    assert np.corrcoef(theirs, ours)[0, 1] > 0.99


def test_the_total_is_the_listeners_mean() -> None:
    reference = wave()
    value = DisturbanceLoss(sample_rate=16_000)(reference.roll(200, -1), reference)
    wide, narrow = value.parts["wideband"], value.parts["narrowband"]
    assert float(value.total) == pytest.approx(float(wide + narrow) / 2, rel=1e-5)
    both = value.parts["symmetric"] + value.parts["asymmetric"]
    assert float(value.total) == pytest.approx(float(both), rel=1e-5)
    assert float(wide) != pytest.approx(float(narrow), rel=0.05)


def test_a_telephone_hears_nothing_above_4_khz() -> None:
    reference = wave()
    time = torch.arange(16000) / 16_000
    hiss = 0.01 * torch.sin(2 * math.pi * 6000 * time) * syllables(time, 3)
    assert float(part(reference + hiss, reference, "narrowband")) < 0.05
    assert float(part(reference + hiss, reference, "wideband")) > 0.5


def test_what_is_added_counts_more_than_what_is_left_out() -> None:
    reference = wave()
    time = torch.arange(16000) / 16_000
    # Bursts: a steady tone counts as the colour of the line, which is made equal first.
    tone = 0.01 * torch.sin(2 * math.pi * 4500 * time) * syllables(time, 3)
    added = DisturbanceLoss(sample_rate=16_000)(reference + tone, reference).parts
    left_out = DisturbanceLoss(sample_rate=16_000)(reference, reference + tone).parts
    assert added["asymmetric"] > 3 * left_out["asymmetric"]


def test_colour_and_level_are_made_equal() -> None:
    """A treble cut all over the signal costs less than one in half of its syllables."""
    reference = wave(32000)
    time = torch.arange(32000) / 16_000
    dull = (reference + reference.roll(1, -1)) / 2
    now_and_then = torch.where(syllables(time, 1) > 0, dull, reference)
    assert float(loss(dull, reference)) < 0.5 * float(loss(now_and_then, reference))
    assert float(loss(0.5 * reference, reference)) < 0.02


def test_level_of_the_pair_does_not_matter() -> None:
    reference, noise = wave(), 0.01 * torch.randn(1, 1, 16000)
    loud, quiet = (float(loss(g * (reference + noise), g * reference)) for g in (1.0, 0.1))
    assert loud == pytest.approx(quiet, rel=1e-3)


def test_masked_differences_are_free() -> None:
    reference = wave()
    assert float(loss(1.02 * reference, reference)) < 0.02


@pytest.mark.parametrize("reference", [wave(), torch.zeros(1, 1, 16000)], ids=["speech", "silence"])
@pytest.mark.parametrize("decoded", [wave(), torch.zeros(1, 1, 16000)], ids=["speech", "silence"])
def test_gradients_are_finite(decoded: torch.Tensor, reference: torch.Tensor) -> None:
    decoded = decoded.clone().requires_grad_()
    loss(decoded, reference).backward()
    assert decoded.grad is not None
    assert torch.isfinite(decoded.grad).all()


def test_a_batch_is_its_items_mean() -> None:
    reference = torch.cat((wave(), wave()))
    decoded = reference + torch.tensor([0.001, 0.02])[:, None, None] * torch.randn(2, 1, 16000)
    each = [float(loss(decoded[i : i + 1], reference[i : i + 1])) for i in range(2)]
    assert float(loss(decoded, reference)) == pytest.approx(sum(each) / 2, rel=1e-4)


def test_higher_rates_hear_the_same() -> None:
    noise = torch.zeros(1, 1, 48000)
    noise[..., ::3] = 0.01 * torch.randn(1, 1, 16000)
    reference = wave(48000, 48_000)
    value = DisturbanceLoss(sample_rate=48_000)(reference + noise, reference).total
    assert 0.5 < float(value) < 5


def test_somebody_listens() -> None:
    with pytest.raises(ValueError, match="name wideband, narrowband or both"):
        DisturbanceLoss(sample_rate=16_000, listeners=[])


def test_other_rates_are_refused() -> None:
    with pytest.raises(ValueError, match="16000 Hz or a multiple of it, not 24000 Hz"):
        DisturbanceLoss(sample_rate=24_000)
