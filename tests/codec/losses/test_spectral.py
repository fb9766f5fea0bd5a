import math

import pytest
import torch

from codec.losses.spectral import (
    LogSpectrumLoss,
    MultiScaleMelLoss,
    WaveformLoss,
    _distance,
)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def wave(batch: int = 2, samples: int = 4000) -> torch.Tensor:
    time = torch.arange(samples) / 16_000
    harmonics = sum(torch.sin(2 * math.pi * 150 * k * time) / k for k in range(1, 20))
    return (0.1 * harmonics + 0.003 * torch.randn(batch, samples))[:, None]


def test_mel_loss_falls_as_the_decoded_wave_comes_closer() -> None:
    loss, reference = MultiScaleMelLoss(sample_rate=16_000), wave()
    noise = torch.randn_like(reference)
    values = [loss(reference + a * noise, reference).total.item() for a in (0.3, 0.03, 0.003, 0.0)]
    assert values == sorted(values, reverse=True)
    assert values[0] > 3 * values[2] > 0
    assert values[-1] == 0


def test_mel_loss_of_a_gain_is_its_logarithm_at_every_scale() -> None:
    reference = torch.randn(1, 1, 4000)
    value = MultiScaleMelLoss(sample_rate=16_000)(reference * 2, reference)
    assert value.total.item() == pytest.approx(math.log(2), rel=1e-4)
    assert [part.item() for part in value.parts.values()] == pytest.approx([math.log(2)] * 7, 1e-4)


def test_mel_loss_is_the_mean_of_its_parts() -> None:
    value = MultiScaleMelLoss(sample_rate=16_000, n_ffts=(64, 256))(wave(), wave() * 0.7)
    assert list(value.parts) == ["64", "256"]
    assert value.total.item() == pytest.approx(sum(p.item() for p in value.parts.values()) / 2)


def test_windows_take_turns_and_each_gets_as_many() -> None:
    n_ffts = (64, 128, 256, 512, 1024)
    loss = MultiScaleMelLoss(sample_rate=16_000, n_ffts=n_ffts, windows_a_turn=2)
    reference = wave(1)
    whole = MultiScaleMelLoss(sample_rate=16_000, n_ffts=n_ffts)(reference * 0.5, reference).parts
    met: list[str] = []
    for turn in range(7, 12):
        loss.turn = turn
        value = loss(reference * 0.5, reference)
        assert len(value.parts) == 2
        assert value.total == sum(value.parts.values()) / 2
        assert all(part == whole[name] for name, part in value.parts.items())
        met += value.parts
    assert sorted(met, key=int) == [str(n_fft) for n_fft in n_ffts for _ in range(2)]


def test_mel_loss_hears_what_waveform_loss_does_not() -> None:
    """A delay of a few samples ruins waveform L1, and is nearly nothing for log-mel."""
    reference = wave(1)
    delayed = reference.roll(20, dims=-1)
    noisy = reference + 0.02 * torch.randn_like(reference)
    mel, l1 = MultiScaleMelLoss(sample_rate=16_000), WaveformLoss()
    assert l1(delayed, reference).total > l1(noisy, reference).total
    assert mel(delayed, reference).total < mel(noisy, reference).total


def test_log_spectra_tell_a_buzz_from_noise() -> None:
    """Noise that repeats every 20 ms is a line spectrum, narrower than mel filters up there."""
    reference = 0.1 * torch.randn(1, 1, 16_000)
    noise = 0.1 * torch.randn(1, 1, 16_000)
    buzz = noise[..., :320].repeat(1, 1, 50)
    loss = LogSpectrumLoss(n_ffts=(2048,))
    assert loss(buzz, reference).total > 1.5 * loss(noise, reference).total
    assert loss(buzz.roll(7, -1), buzz).total < loss(noise, buzz).total


def test_two_takes_are_best_as_loud_as_the_reference_and_apart() -> None:
    reference, noise = 0.1 * torch.randn(8, 1, 8_000), 0.1 * torch.randn(16, 1, 8_000)
    loss = LogSpectrumLoss(n_ffts=(256,))
    best = loss(noise, reference).total
    for gain in (0.5, 2.0):
        assert best < loss(gain * noise, reference).total
    same = noise[:8].repeat(2, 1, 1)
    torch.testing.assert_close(loss(same, reference).total, loss(noise[:8], reference).total)
    assert best < 0.6 * loss(same, reference).total


def test_one_take_is_best_even_and_two_are_best_as_uneven_as_noise() -> None:
    """Log magnitudes of noise, against their own median and others drawn as they were."""
    wanted, spread, other = (torch.randn(3, 20_000, 2).square().sum(-1) / 2).log() / 2
    even = torch.full_like(wanted, float(wanted.median()))
    energy = {}
    for share in (0.0, 0.5, 1.0, 1.5):
        takes = [torch.lerp(even, take, share)[None] for take in (spread, other)]
        energy[share] = [_distance(t, wanted[None]) for t in (takes[0], torch.cat(takes))]
    assert min(energy, key=lambda share: energy[share][0]) == 0
    assert min(energy, key=lambda share: energy[share][1]) == 1


def test_log_spectrum_loss_of_a_gain_is_its_logarithm() -> None:
    parts = LogSpectrumLoss()(0.5 * wave(), wave()).parts
    assert set(parts) == {"1024", "2048"}
    noise = 0.1 * torch.randn(2, 1, 4000)
    value = LogSpectrumLoss()(0.5 * noise, noise)
    assert float(value.total) == pytest.approx(math.log(2), rel=0.02)


def test_log_spectrum_windows_take_turns() -> None:
    loss = LogSpectrumLoss(windows_a_turn=1)
    met = []
    for turn in range(4):
        loss.turn = turn
        met += loss(0.5 * wave(), wave()).parts
    assert met == ["1024", "2048", "1024", "2048"]


@pytest.mark.parametrize(
    "loss",
    [MultiScaleMelLoss(sample_rate=16_000), LogSpectrumLoss(), WaveformLoss()],
    ids=["mel", "spectrum", "waveform"],
)
def test_gradient_reaches_the_decoded_wave_only(loss: torch.nn.Module) -> None:
    decoded, reference = wave().requires_grad_(), (wave() * 0.5).requires_grad_()
    loss(decoded, reference).total.backward()
    assert decoded.grad is not None
    assert decoded.grad.isfinite().all()
    assert decoded.grad.abs().sum() > 0
    assert reference.grad is None


def test_losses_are_float32_under_autocast() -> None:
    decoded, reference = wave(), wave() * 0.9
    loss = MultiScaleMelLoss(sample_rate=16_000)
    outside = loss(decoded, reference).total
    with torch.autocast("cpu", torch.bfloat16):
        inside = loss(decoded, reference).total
        assert WaveformLoss()(decoded.bfloat16(), reference).total.dtype == torch.float32
    assert inside.dtype == torch.float32
    assert torch.equal(inside, outside)


def test_waveform_loss_is_the_mean_absolute_difference_over_the_references_mean() -> None:
    value = WaveformLoss()(torch.tensor([[[0.5, -0.5]]]), torch.tensor([[[0.0, 0.5]]]))
    assert value.total.item() == 0.75 / 0.25


def test_waveform_loss_counts_quiet_and_loud_items_alike_and_bears_silence() -> None:
    reference = torch.randn(1, 1, 400).repeat(2, 1, 1)
    gains = torch.tensor([1.0, 0.1])[:, None, None]
    both = WaveformLoss()(gains * 0.9 * reference, gains * reference)
    assert both.total.item() == pytest.approx(0.1, rel=1e-4)
    silent = WaveformLoss()(torch.full((1, 1, 400), 1e-3), torch.zeros(1, 1, 400))
    assert silent.total.item() == pytest.approx(1.0, rel=1e-4)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        pytest.param({"n_ffts": ()}, "n_ffts is empty", id="no window"),
        pytest.param({"n_ffts": (64, 128), "n_mels": (5,)}, "1 values for 2", id="counts differ"),
        pytest.param({"windows_a_turn": 8}, "give 1 to 7", id="more windows than there are"),
        pytest.param({"n_ffts": (64,), "n_mels": (60,)}, "n_mels=60", id="empty filters"),
    ],
)
def test_bad_arguments_are_named(keys: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MultiScaleMelLoss(sample_rate=16_000, **keys)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        pytest.param({"n_ffts": ()}, "n_ffts is empty", id="no window"),
        pytest.param({"windows_a_turn": 3}, "give 1 to 2", id="more windows than there are"),
    ],
)
def test_bad_arguments_of_the_log_spectrum_loss_are_named(keys: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LogSpectrumLoss(**keys)
