"""Reconstruction losses: multi-scale log-mel and waveform L1."""

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codec.losses.base import LossValue
from codec.spectra import MelSpectrogram, log_mel


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
        self.windows_a_turn = len(n_ffts) if windows_a_turn is None else windows_a_turn
        if not 1 <= self.windows_a_turn <= len(n_ffts):
            raise ValueError(f"windows_a_turn = {windows_a_turn}: give 1 to {len(n_ffts)}")
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
        for index in self._windows():
            mel = cast(MelSpectrogram, self.mels[index])
            with torch.no_grad():
                wanted = log_mel(mel(reference), self.floor)
            distances[str(mel.n_fft)] = F.l1_loss(log_mel(mel(decoded), self.floor), wanted)
        return LossValue(torch.stack(list(distances.values())).mean(), distances)

    def _windows(self) -> list[int]:
        """Indices of the windows whose turn it is."""
        n, taken = len(self.mels), self.windows_a_turn
        return sorted((self.turn + i * n // taken) % n for i in range(taken))


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
