import math
import warnings

import pytest
import torch
import whisper
from hypothesis import given, settings
from hypothesis import strategies as st

from codec.spectra import (
    MelSpectrogram,
    default_n_mels,
    log_mel,
    mel_filters,
    resample,
    stft,
    whisper_log_mel,
)

N_FFTS = (32, 64, 128, 256, 512, 1024, 2048)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@settings(deadline=None, max_examples=25)
@given(
    samples=st.integers(1, 700),
    n_fft=st.sampled_from([32, 128, 512]),
    batch=st.integers(1, 3),
)
def test_stft_takes_any_length(samples: int, n_fft: int, batch: int) -> None:
    hop = n_fft // 4
    spectrum = stft(torch.randn(batch, 1, samples), n_fft=n_fft, hop_length=hop)
    assert spectrum.shape == (batch, n_fft // 2 + 1, 1 + samples // hop)
    assert spectrum.dtype == torch.complex64


@pytest.mark.parametrize("n_fft", N_FFTS)
def test_stft_of_white_noise_has_its_variance_at_every_scale(n_fft: int) -> None:
    spectrum = stft(0.1 * torch.randn(1, 1, 64_000), n_fft=n_fft, hop_length=n_fft // 4)
    inner = spectrum[:, 1:-1, 4:-4]
    assert inner.abs().square().mean().item() == pytest.approx(0.01, rel=0.05)


@pytest.mark.parametrize("sample_rate", [8_000, 16_000, 24_000, 44_100, 48_000])
@pytest.mark.parametrize("n_fft", N_FFTS)
def test_no_default_mel_filter_is_empty(sample_rate: int, n_fft: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mel = MelSpectrogram(sample_rate=sample_rate, n_fft=n_fft)
    assert (mel.filters.amax(dim=1) > 0).all()
    assert mel.filters.shape == (mel.n_mels, n_fft // 2 + 1)


def test_default_filters_at_16_khz_are_those_of_dac() -> None:
    counts = [default_n_mels(sample_rate=16_000, n_fft=n_fft) for n_fft in N_FFTS]
    assert counts == [5, 10, 20, 40, 80, 160, 320]


def test_too_many_filters_are_refused_with_a_number_that_would_do() -> None:
    with pytest.raises(ValueError, match=r"n_mels=128 .* n_fft=256 .* at most (\d+)") as caught:
        MelSpectrogram(sample_rate=16_000, n_fft=256, n_mels=128)
    most = int(str(caught.value).split("at most ")[1].split()[0])
    assert mel_filters(sample_rate=16_000, n_fft=256, n_mels=most).shape[0] == most


def test_mel_peaks_at_the_filter_of_a_tone() -> None:
    mel = MelSpectrogram(sample_rate=16_000, n_fft=1024, n_mels=80)
    peaks = []
    for frequency in (250, 1000, 4000):
        tone = torch.sin(2 * math.pi * frequency * torch.arange(8000) / 16_000)
        peak = int(mel(tone[None, None]).mean(dim=2).argmax())
        bin_of_peak = int(mel.filters[peak].argmax())
        assert bin_of_peak * 16_000 / 1024 == pytest.approx(frequency, rel=0.08)
        peaks.append(peak)
    assert peaks == sorted(set(peaks))


def test_mel_is_float32_and_the_same_under_autocast() -> None:
    mel = MelSpectrogram(sample_rate=16_000, n_fft=256)
    wave = torch.randn(2, 1, 1000)
    with torch.autocast("cpu", torch.bfloat16):
        inside = mel(wave)
        low_precision = mel(wave.bfloat16())
    assert inside.dtype == low_precision.dtype == torch.float32
    assert torch.equal(inside, mel(wave))


def test_mel_leaves_nothing_in_a_checkpoint() -> None:
    assert not MelSpectrogram(sample_rate=16_000, n_fft=256).state_dict()


def test_log_mel_is_natural_and_has_a_floor() -> None:
    logs = log_mel(torch.tensor([0.0, 1e-7, 1e-5, 1.0, math.e]))
    assert logs.tolist() == pytest.approx([math.log(1e-5)] * 3 + [0.0, 1.0])


def test_silence_gives_finite_gradients() -> None:
    wave = torch.zeros(1, 1, 800, requires_grad=True)
    log_mel(MelSpectrogram(sample_rate=16_000, n_fft=128)(wave)).sum().backward()
    assert wave.grad is not None
    assert wave.grad.isfinite().all()


@pytest.mark.parametrize("samples", [400, 1601, 16_000, 52_345])
@pytest.mark.parametrize("n_mels", [80, 128])
def test_whisper_log_mel_of_one_clip_is_whispers(samples: int, n_mels: int) -> None:
    wave = 0.1 * torch.randn(samples) * torch.linspace(0, 1, samples) ** 8
    wanted = whisper.log_mel_spectrogram(wave, n_mels=n_mels)
    got = whisper_log_mel(wave[None], n_mels)[0]
    assert got.shape == wanted.shape == (n_mels, samples // 160)
    torch.testing.assert_close(got, wanted, rtol=0, atol=2e-5)


def test_whisper_log_mel_floors_each_clip_by_itself() -> None:
    loud, quiet = torch.randn(1, 4000), 1e-5 * torch.randn(1, 4000)
    both = whisper_log_mel(torch.cat([loud, quiet]))
    torch.testing.assert_close(both[1], whisper_log_mel(quiet)[0])
    # What the floor of the whole tensor would have done to the quiet clip:
    wrong = whisper.log_mel_spectrogram(torch.cat([loud, quiet]))[1]
    assert (both[1] - wrong).abs().mean() > 0.1


def test_whisper_log_mel_is_differentiable() -> None:
    wave = (0.1 * torch.randn(2, 1600)).requires_grad_()
    whisper_log_mel(wave).square().sum().backward()
    assert wave.grad is not None
    assert wave.grad.isfinite().all()
    assert (wave.grad.abs().sum(dim=1) > 0).all()


def test_whisper_log_mel_refuses_less_than_half_a_window() -> None:
    with pytest.raises(ValueError, match="200 samples"):
        whisper_log_mel(torch.zeros(1, 200))


def test_constants_made_in_inference_mode_serve_training_later() -> None:
    n_fft = 36  # asked for nowhere else, so that this is its first use
    with torch.inference_mode():
        mel = MelSpectrogram(sample_rate=16_000, n_fft=n_fft)
        mel(torch.randn(1, 1, 400))
        whisper_log_mel(torch.randn(1, 400), 90)
    wave = torch.randn(1, 1, 400, requires_grad=True)
    (mel(wave).sum() + whisper_log_mel(wave[:, 0], 90).sum()).backward()
    assert wave.grad is not None


@pytest.mark.parametrize(
    ("from_rate", "to_rate"), [(24_000, 16_000), (16_000, 48_000), (44_100, 16_000), (8_000, 8_000)]
)
def test_resample_keeps_a_tone(from_rate: int, to_rate: int) -> None:
    def tone(rate: int) -> torch.Tensor:
        return torch.sin(2 * math.pi * 440 * torch.arange(rate // 5) / rate)[None, None]

    got = resample(tone(from_rate), from_rate, to_rate)
    assert got.shape == (1, 1, math.ceil(from_rate // 5 * to_rate / from_rate))
    torch.testing.assert_close(
        got[..., 300:-300], tone(to_rate)[..., 300 : got.shape[-1] - 300], rtol=0, atol=5e-3
    )
