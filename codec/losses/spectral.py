"""Reconstruction losses: multi-scale log-mel, log spectra of linear frequency, waveform L1."""

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codec.losses.base import LossValue
from codec.spectra import MelSpectrogram, log_mel, stft


class MultiScaleMelLoss(nn.Module):
    """Mean absolute difference of natural-log mel magnitudes, averaged over several windows.

    Short windows see onsets, long ones pitch (Kumar et al. 2023, §3.4). A value of 1 is an
    average error of 8.7 dB. Hops are a quarter of each window.

    Args:
        sample_rate: of the waves, in Hz.
        n_ffts: window lengths in samples.
        n_mels: filters of each window; None takes 5 for 32 samples up to 320 for 2048, fewer
            where one would be empty.
        floor: magnitudes below it count as silence.
        windows_a_turn: compute only so many of the windows at a time. Which ones depends on
            `turn` alone, to be set before each step; over as many turns as there are windows each
            has had the same number of them. What is saved is most of a small model's step.

    Attributes:
        turn: 0, 1, 2, ... chooses the windows, the first of them `turn` modulo their number, the
            others at even distances from it.

    Raises:
        ValueError: no window, as many `n_mels` as windows are not given, an empty filter, or
            `windows_a_turn` out of range.
    """

    def __init__(
        self,
        *,
        sample_rate: int,
        n_ffts: Sequence[int] = (32, 64, 128, 256, 512, 1024, 2048),
        n_mels: Sequence[int] | None = None,
        floor: float = 1e-5,
        windows_a_turn: int | None = None,
    ) -> None:
        super().__init__()
        if not n_ffts:
            raise ValueError("n_ffts is empty: a mel loss takes one window or more")
        if n_mels is not None and len(n_mels) != len(n_ffts):
            raise ValueError(
                f"n_mels has {len(n_mels)} values for {len(n_ffts)} windows: give one each, or none"
            )
        self.windows_a_turn = _checked(windows_a_turn, len(n_ffts))
        self.turn = 0
        self.floor = floor
        self.mels = nn.ModuleList(
            MelSpectrogram(
                sample_rate=sample_rate, n_fft=n_fft, n_mels=None if n_mels is None else n_mels[i]
            )
            for i, n_fft in enumerate(n_ffts)
        )

    def forward(self, decoded: Tensor, reference: Tensor) -> LossValue:
        """Loss of `decoded` against `reference`, both (batch, 1, samples).

        Parts: one for each window, named by its length in samples.
        """
        distances: dict[str, Tensor] = {}
        for index in _whose_turn(self.turn, len(self.mels), self.windows_a_turn):
            mel = cast(MelSpectrogram, self.mels[index])
            with torch.no_grad():
                wanted = log_mel(mel(reference), self.floor)
            distances[str(mel.n_fft)] = F.l1_loss(log_mel(mel(decoded), self.floor), wanted)
        return LossValue(torch.stack(list(distances.values())).mean(), distances)


class LogSpectrumLoss(nn.Module):
    """Mean absolute difference of natural-log magnitudes, bin by bin, averaged over windows.

    What mel filters are too wide to see: up to half the sample rate it tells noise from a buzz that
    repeats with every frame of codes. Hops are a quarter of each window.

    Where the decoder speaks in two takes, with other noise in each, half of what the takes differ
    by is subtracted: the energy distance of Gritsenko et al. 2020. A single take is best where
    every magnitude is the median of what is likely, as smooth as no noise is; two are best where
    they are spread as what is likely is.

    Args:
        n_ffts: window lengths in samples.
        floor: magnitudes well below it count as silence.
        windows_a_turn, turn: as in `MultiScaleMelLoss`.

    Raises:
        ValueError: no window, or `windows_a_turn` out of range.
    """

    def __init__(
        self,
        *,
        n_ffts: Sequence[int] = (1024, 2048),
        floor: float = 1e-5,
        windows_a_turn: int | None = None,
    ) -> None:
        super().__init__()
        if not n_ffts:
            raise ValueError("n_ffts is empty: a spectral loss takes one window or more")
        self.n_ffts = tuple(n_ffts)
        self.windows_a_turn = _checked(windows_a_turn, len(n_ffts))
        self.turn = 0
        self.floor = floor

    def forward(self, decoded: Tensor, reference: Tensor) -> LossValue:
        """Loss of `decoded` against `reference`.

        Args:
            decoded: (batch, 1, samples), or (2 * batch, 1, samples): the first takes, the second.
            reference: (batch, 1, samples).

        Parts: one for each window, named by its length in samples.
        """
        distances: dict[str, Tensor] = {}
        for index in _whose_turn(self.turn, len(self.n_ffts), self.windows_a_turn):
            n_fft = self.n_ffts[index]
            with torch.no_grad():
                wanted = self._log_magnitudes(reference, n_fft)
            distances[str(n_fft)] = _distance(self._log_magnitudes(decoded, n_fft), wanted)
        return LossValue(torch.stack(list(distances.values())).mean(), distances)

    def _log_magnitudes(self, wave: Tensor, n_fft: int) -> Tensor:
        """(batch, bins, frames). The floor is added to the power: the logarithm stays smooth."""
        spectrum = torch.view_as_real(stft(wave, n_fft=n_fft, hop_length=n_fft // 4))
        return 0.5 * (spectrum.square().sum(-1) + self.floor**2).log()


def _distance(takes: Tensor, wanted: Tensor) -> Tensor:
    """Mean absolute difference of one take, or of two less half of what they differ by."""
    if len(takes) == len(wanted):
        return F.l1_loss(takes, wanted)
    first, second = takes.chunk(2)
    both = 0.5 * (F.l1_loss(first, wanted) + F.l1_loss(second, wanted))
    return both - 0.5 * F.l1_loss(first, second)


def _checked(windows_a_turn: int | None, n: int) -> int:
    taken = n if windows_a_turn is None else windows_a_turn
    if not 1 <= taken <= n:
        raise ValueError(f"windows_a_turn = {windows_a_turn}: give 1 to {n}")
    return taken


def _whose_turn(turn: int, n: int, taken: int) -> list[int]:
    """Indices of the `taken` of `n` windows whose turn it is."""
    return sorted((turn + i * n // taken) % n for i in range(taken))


class WaveformLoss(nn.Module):
    """Mean absolute difference of samples, as a share of the reference's own mean.

    A share, so that quiet speech counts as loud speech does, and as it does for log spectra.

    Args:
        floor: mean of a reference that is as good as silent, in sample values.
    """

    def __init__(self, *, floor: float = 1e-3) -> None:
        super().__init__()
        self.floor = floor

    def forward(self, decoded: Tensor, reference: Tensor) -> LossValue:
        """Loss of `decoded` against `reference`, both (batch, 1, samples); no parts."""
        wanted = reference.detach().float()
        level = wanted.abs().mean(dim=(1, 2)).clamp(min=self.floor)
        difference = (decoded.float() - wanted).abs().mean(dim=(1, 2))
        return LossValue((difference / level).mean())
