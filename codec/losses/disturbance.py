"""Loudness disturbance: the perceptual model of PESQ as a loss.

ITU-T P.862 (02/2001), clause 10.2, with the wideband constants of P.862.2: power spectra in
critical bands, loudness by Zwicker's law, the difference that masking leaves, the same weighed for
what was added rather than left out, and norms over time that count the worst syllables most.
Martín-Doñas et al. 2018 train on such a loss. Left out, since crops are aligned and their level is
part of the task: time alignment, level and filter compensation.

Who trains on this trains on what PESQ measures: PESQ is no independent judge of that model.
"""

import torch
from torch import Tensor, nn

from codec.losses.base import LossValue
from codec.spectra import stft

_FRAME_SECONDS = 0.032
_LEVEL = 1e7  # mean square of the reference between 350 and 3,250 Hz, of samples up to 32,768
_SPECTRUM_SCALE = 6.910853e-6
_LOUDNESS_SCALE = 0.1866055
_ZWICKER_POWER = 0.23
_SYLLABLE_FRAMES = 20
# FFT bins of 31.25 Hz in each band, bands' widths in Bark, and the hearing threshold as power.
_BINS = (
    *(1, 1, 1, 1, 1, 1, 1, 1, 2, 1, 1, 1, 1, 1, 2, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2),
    *(3, 3, 3, 3, 4, 3, 4, 5, 4, 5, 6, 6, 7, 8, 9, 9, 12, 12, 15, 16, 18, 21, 25, 20),
)
_WIDTHS = (
    *(0.157344, 0.317994, 0.322441, 0.326934, 0.331474, 0.336061, 0.340697, 0.345381, 0.350114),
    *(0.354897, 0.359729, 0.364611, 0.369544, 0.374529, 0.379565, 0.384653, 0.389794, 0.394989),
    *(0.400236, 0.405538, 0.410894, 0.416306, 0.421773, 0.427297, 0.432877, 0.438514, 0.444209),
    *(0.449962, 0.455774, 0.461645, 0.467577, 0.473569, 0.479621, 0.485736, 0.491912, 0.498151),
    *(0.504454, 0.510819, 0.517250, 0.523745, 0.530308, 0.536934, 0.543629, 0.550390, 0.557220),
    *(0.564119, 0.571085, 0.578125, 0.585232),
)
_THRESHOLDS = (
    *(51286152.0, 2454709.5, 70794.59375, 4897.788574, 1174.897705, 389.045166, 104.712860),
    *(45.708820, 17.782795, 9.772372, 4.897789, 3.090296, 1.905461, 1.258925, 0.977237, 0.724436),
    *(0.562341, 0.457088, 0.389045, 0.331131, 0.295121, 0.269153, 0.257040, 0.251189, 0.251189),
    *(0.251189, 0.251189, 0.263027, 0.288403, 0.309030, 0.338844, 0.371535, 0.398107, 0.436516),
    *(0.467735, 0.489779, 0.501187, 0.501187, 0.512861, 0.524807, 0.524807, 0.524807, 0.512861),
    *(0.478630, 0.426580, 0.371535, 0.363078, 0.416869, 0.537032),
)
_CORRECTIONS = (
    *(100.0,) * 8,
    *(50.0, 100.0, 100.0, 100.0, 100.0, 100.0, 53.047077, 110.000046, 117.991989, 65.0, 68.760147),
    *(70.0, 71.428818, 75.0, 76.843384, 80.968781, 88.646126, 63.864388, 68.155350, 72.547775),
    *(75.584831, 58.379192, 80.950836, 64.135651, 54.384785, 73.821884, 64.437073, 59.176456),
    *(65.521278, 61.399822, 58.144047, 57.004543, 64.126297, 54.311001, 61.114979, 55.077751),
    *(56.849335, 55.628868, 53.137054, 54.985844, 79.546974),
)


class DisturbanceLoss(nn.Module):
    """PESQ's symmetric and asymmetric disturbance, in the units that it takes off its 4.5.

    Args:
        sample_rate: of the waves in Hz, 16,000 or a multiple of it.

    Raises:
        ValueError: another sample rate.
    """

    membership: Tensor
    thresholds: Tensor
    exponents: Tensor
    widths: Tensor

    def __init__(self, *, sample_rate: int) -> None:
        super().__init__()
        if sample_rate % 16_000:
            raise ValueError(
                f"the disturbance loss takes 16000 Hz or a multiple of it, not {sample_rate} Hz"
            )
        self.n_fft = round(_FRAME_SECONDS * sample_rate)
        widths = torch.tensor(_WIDTHS)
        centres = widths.cumsum(0) - widths / 2
        low = (6 / (centres + 2)).clamp(max=2).where(centres < 4, torch.ones_like(centres))
        for name, value in (
            ("membership", self._membership()),
            ("thresholds", torch.tensor(_THRESHOLDS)),
            ("exponents", _ZWICKER_POWER * low.pow(0.15)),
            ("widths", widths[1:]),
        ):
            self.register_buffer(name, value, persistent=False)

    def forward(self, decoded: Tensor, reference: Tensor) -> LossValue:
        """Loss of `decoded` against `reference`, both (batch, 1, samples).

        Parts: ``symmetric`` and ``asymmetric``; their sum is the total, the mean over the batch.
        """
        with torch.autocast(decoded.device.type, enabled=False):
            with torch.no_grad():
                power = self._power(reference)
                speech = power[:, self._bin(350) : self._bin(3250)].sum(1).mean(-1)
                gain = (_LEVEL / speech.clamp(min=1e-3))[:, None, None]
                wanted = self._bands(power * gain)
                wanted_loudness = self._loudness(wanted)
                frame_weight = ((wanted[:, 1:].sum(1) + 1e5) / 1e7).pow(0.04)
            bands = self._bands(self._power(decoded) * gain)
            difference = self._loudness(bands) - wanted_loudness
            masked = 0.25 * torch.minimum(wanted_loudness, wanted_loudness + difference)
            audible = difference.sign() * (difference.abs() - masked).clamp(min=0)
            ratio = ((bands + 50) / (wanted + 50)).pow(1.2)
            added = audible * torch.where(ratio < 3, 0.0, ratio.clamp(max=12))
            symmetric = 0.1 * self._over_time(self._over_bands(audible, 2) / frame_weight)
            asymmetric = 0.0309 * self._over_time(self._over_bands(added, 1) / frame_weight)
        return LossValue(symmetric + asymmetric, {"symmetric": symmetric, "asymmetric": asymmetric})

    def _bin(self, frequency: float) -> int:
        return round(frequency * _FRAME_SECONDS)

    def _membership(self) -> Tensor:
        """(bands, bins): which bins a band sums, and its scale."""
        matrix = torch.zeros(len(_BINS), self.n_fft // 2 + 1)
        first = 0
        for band, (bins, correction) in enumerate(zip(_BINS, _CORRECTIONS, strict=True)):
            matrix[band, first : first + bins] = correction * _SPECTRUM_SCALE
            first += bins
        return matrix

    def _power(self, wave: Tensor) -> Tensor:
        """Mean-square power of the samples in each bin, (batch, bins, frames)."""
        spectrum = torch.view_as_real(stft(wave, n_fft=self.n_fft, hop_length=self.n_fft // 2))
        # A window of unit energy: |X|² is per sample and per bin of a two-sided spectrum.
        return spectrum.square().sum(-1) * (2 * 32768.0**2 / self.n_fft)

    def _bands(self, power: Tensor) -> Tensor:
        """Pitch power density, (batch, bands, frames)."""
        # The standard's spectra are of a plain Hann window over 512 samples: 512 times 3/8 of
        # energy, and half of our power, which has both sides' bins.
        return self.membership @ (power * (512 * 512 * 3 / 8 / 2))

    def _loudness(self, bands: Tensor) -> Tensor:
        """Zwicker's loudness above the hearing threshold, (batch, bands, frames)."""
        threshold, exponent = self.thresholds[:, None], self.exponents[:, None]
        above = (0.5 + 0.5 * (bands / threshold).clamp(min=1)).pow(exponent) - 1
        return _LOUDNESS_SCALE * (threshold / 0.5).pow(exponent) * above

    def _over_bands(self, disturbance: Tensor, order: int) -> Tensor:
        """The norm over bands but the first, weighed by their widths, (batch, frames)."""
        total = float(self.widths.sum())
        weighed = disturbance[:, 1:].abs() * self.widths[:, None]
        if order == 1:
            return weighed.sum(1).clamp(max=45)
        return (weighed.square().sum(1) / total + 1e-8).sqrt().mul(total).clamp(max=45)

    @staticmethod
    def _over_time(frames: Tensor) -> Tensor:
        """Norm of order 6 inside syllables, of order 2 over them; the mean over the batch."""
        length = min(_SYLLABLE_FRAMES, frames.shape[-1])
        syllables = frames.unfold(-1, length, max(1, length // 2))
        within = (syllables.pow(6).mean(-1) + 1e-12).pow(1 / 6)
        return (within.square().mean(-1) + 1e-12).sqrt().mean()
