"""STFT and mel transforms and resampling: the only file that knows torchaudio.

Everything here is computed in float32, under autocast too: the square of a bfloat16
magnitude keeps two decimal digits, and a log-mel loss lives below that.
"""

import warnings
from functools import lru_cache

import torch
import torchaudio.functional as AF
from torch import Tensor, nn

LOG_FLOOR = 1e-5
"""Magnitudes under this count as silence: white noise of this RMS, about 16-bit rounding."""

WHISPER_SAMPLE_RATE = 16_000
WHISPER_N_FFT = 400
WHISPER_HOP_LENGTH = 160


@lru_cache(maxsize=64)
def _window(n_fft: int, device: torch.device) -> Tensor:
    # Built outside inference mode even when validation asks first: training will reuse it.
    with torch.inference_mode(False):
        window = torch.hann_window(n_fft, device=device)
        return window / window.square().sum().sqrt()


def stft(wave: Tensor, *, n_fft: int, hop_length: int) -> Tensor:
    """Short-time Fourier transform with a Hann window of unit energy.

    Unit energy (the sum of squares of the window is 1) gives white noise of variance σ² an
    expected |X|² of σ² in every bin whatever `n_fft` is, so levels mean the same at each scale.
    The ends are padded with zeros, so that any length of one sample or more will do.

    Args:
        wave: (batch, 1, samples) or (batch, samples), any float dtype.
        n_fft: window and transform length in samples.
        hop_length: samples from one frame to the next.

    Returns:
        complex64 (batch, n_fft // 2 + 1, 1 + samples // hop_length).
    """
    with torch.autocast(wave.device.type, enabled=False):
        return torch.stft(
            wave.flatten(0, -2).float(),
            n_fft,
            hop_length,
            window=_window(n_fft, wave.device),
            center=True,
            pad_mode="constant",
            return_complex=True,
        )


def _triangles(sample_rate: int, n_fft: int, n_mels: int, norm: str | None) -> Tensor:
    with warnings.catch_warnings(), torch.inference_mode(False):
        warnings.simplefilter("ignore", UserWarning)  # empty filters are the callers' to judge
        return AF.melscale_fbanks(
            n_fft // 2 + 1, 0.0, sample_rate / 2, n_mels, sample_rate, norm, "slaney"
        ).T.contiguous()


def largest_n_mels(*, sample_rate: int, n_fft: int, at_most: int) -> int:
    """The largest number of mel filters, up to `at_most`, of which none is all zero.

    A filter narrower than the distance of two STFT bins can fall between them.
    """
    for n_mels in range(at_most, 1, -1):
        filters = _triangles(sample_rate, n_fft, n_mels, None)
        if bool((filters.amax(dim=1) > 0).all()):
            return n_mels
    return 1


def default_n_mels(*, sample_rate: int, n_fft: int) -> int:
    """The number of mel filters for one scale: 5 for n_fft 32 up to 320 for 2048, as DAC has.

    Fewer where that many would leave one empty (high sample rates with a short window).
    """
    return largest_n_mels(
        sample_rate=sample_rate, n_fft=n_fft, at_most=max(1, min(320, n_fft * 5 // 32))
    )


def mel_filters(*, sample_rate: int, n_fft: int, n_mels: int) -> Tensor:
    """Triangular filters with peaks of 1 on Slaney's mel scale, from 0 to half the sample rate.

    Returns:
        float32 (n_mels, n_fft // 2 + 1), no row of which is all zero.

    Raises:
        ValueError: some filter would be empty.
    """
    filters = _triangles(sample_rate, n_fft, n_mels, None)
    if not bool((filters.amax(dim=1) > 0).all()):
        most = largest_n_mels(sample_rate=sample_rate, n_fft=n_fft, at_most=n_mels)
        raise ValueError(
            f"n_mels={n_mels} leaves empty mel filters at n_fft={n_fft} and {sample_rate} Hz: "
            f"at most {most} would do"
        )
    return filters


class MelSpectrogram(nn.Module):
    """Mel magnitudes: (batch, 1, samples) -> float32 (batch, n_mels, 1 + samples // hop_length).

    Magnitudes, not powers; the window has unit energy and the filters peaks of 1 (see `stft`).

    Args:
        sample_rate: of the waves, in Hz.
        n_fft: window length in samples.
        hop_length: samples from one frame to the next; a quarter of the window if None.
        n_mels: number of filters; `default_n_mels` if None.

    Raises:
        ValueError: `n_mels` would leave a filter empty.
    """

    filters: Tensor

    def __init__(
        self,
        *,
        sample_rate: int,
        n_fft: int,
        hop_length: int | None = None,
        n_mels: int | None = None,
    ) -> None:
        super().__init__()
        if n_mels is None:
            n_mels = default_n_mels(sample_rate=sample_rate, n_fft=n_fft)
        self.sample_rate = sample_rate
        self.n_fft = n_fft
        self.hop_length = n_fft // 4 if hop_length is None else hop_length
        self.n_mels = n_mels
        filters = mel_filters(sample_rate=sample_rate, n_fft=n_fft, n_mels=n_mels)
        self.register_buffer("filters", filters, persistent=False)

    def forward(self, wave: Tensor) -> Tensor:
        """Mel magnitudes of `wave`."""
        magnitude = stft(wave, n_fft=self.n_fft, hop_length=self.hop_length).abs()
        with torch.autocast(wave.device.type, enabled=False):
            return self.filters @ magnitude


def log_mel(magnitude: Tensor, floor: float = LOG_FLOOR) -> Tensor:
    """Natural logarithm of mel magnitudes, nothing below log(`floor`); 1 is 8.7 dB."""
    return magnitude.float().clamp(min=floor).log()


def resample(wave: Tensor, from_rate: int, to_rate: int) -> Tensor:
    """Band-limited resampling, differentiable; (..., samples) float32 at `to_rate` Hz.

    n samples give ceil(n * to_rate / from_rate).
    """
    if from_rate == to_rate:
        return wave.float()
    with torch.autocast(wave.device.type, enabled=False):
        return AF.resample(wave.float(), from_rate, to_rate)


@lru_cache(maxsize=8)
def _whisper_filters(n_mels: int, device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        return _triangles(WHISPER_SAMPLE_RATE, WHISPER_N_FFT, n_mels, "slaney").to(device)


@lru_cache(maxsize=8)
def _whisper_window(device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        return torch.hann_window(WHISPER_N_FFT, device=device)


def whisper_log_mel(wave: Tensor, n_mels: int = 80) -> Tensor:
    """The input of Whisper (Radford et al. 2022), differentiable, each clip on its own.

    For one clip it is what openai-whisper's `log_mel_spectrogram` gives. There the floor is
    8 below the loudest value of the whole tensor; here it is of each clip, so that a clip's
    features do not depend on its neighbours in the batch. The floor counts as a constant for
    the gradient, or every floored value would pull at the single loudest one.

    Args:
        wave: (batch, samples) at 16 kHz, in [-1, 1], more than 200 samples.
        n_mels: 80, or 128 for the large-v3 models.

    Returns:
        float32 (batch, n_mels, samples // 160).

    Raises:
        ValueError: the wave is shorter than half a window.
    """
    if wave.shape[-1] <= WHISPER_N_FFT // 2:
        raise ValueError(
            f"{wave.shape[-1]} samples are too few for a Whisper spectrogram: "
            f"it takes more than {WHISPER_N_FFT // 2}"
        )
    with torch.autocast(wave.device.type, enabled=False):
        spectrum = torch.stft(
            wave.float(),
            WHISPER_N_FFT,
            WHISPER_HOP_LENGTH,
            window=_whisper_window(wave.device),
            return_complex=True,
        )[..., :-1]
        power = torch.view_as_real(spectrum).square().sum(dim=-1)
        levels = (_whisper_filters(n_mels, wave.device) @ power).clamp(min=1e-10).log10()
        floor = levels.detach().amax(dim=(1, 2), keepdim=True) - 8.0
        return (torch.maximum(levels, floor) + 4.0) / 4.0
