"""Loudness disturbance: the perceptual model of PESQ as a loss.

ITU-T P.862 (02/2001), clause 10.2: what a wideband or a telephone listener's filter lets through,
power spectra in critical bands, their average and their level over time made equal, loudness by
Zwicker's law, the difference that masking leaves, the same weighed for what was added rather than
left out, and norms over time that count the worst syllables most. The wideband filter and mapping
are P.862.2's. Martín-Doñas et al. 2018 train on such a loss. Left out: time alignment, which a
codec's crops do not need.

Who trains on this trains on what PESQ measures: PESQ is no independent judge of that model.
"""

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codec.losses.base import LossValue
from codec.spectra import stft

_FRAME_SECONDS = 0.032
_LEVEL = 1e7  # mean square of either wave between 350 and 3,250 Hz, of samples up to 32,768
_LEVEL_FLOOR = 1e3  # 60 dB below full scale: a crop of a pause is not raised to speech
_SPECTRUM_SCALE = 6.910853e-6
_LOUDNESS_SCALE = 0.1866055
_ZWICKER_POWER = 0.23
_SYLLABLE_FRAMES = 20
_SMOOTHING_FRAMES = 6  # 0.2 to the power of 6 is nothing
_HEARD_BINS = 257  # up to 8 kHz, at 31.25 Hz each
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


Listener = Literal["wideband", "narrowband"]
"""P.862.2's listener with headphones, or P.862's at a telephone."""

# Gain in dB of the telephone listener's filter, the intermediate reference system's receiving side,
# against that at 1 kHz; linear between these frequencies in Hz.
_TELEPHONE = (
    *((0, -212), (50, -52), (100, -32), (125, -24), (160, -18), (200, -12), (250, -8), (300, -6)),
    *((350, -4), (400, -2), (500, -1), (600, 0), (3250, 0), (3500, -8), (4000, -212)),
)


# Slope and offset of the logistic functions that give MOS-LQO: P.862.1 and P.862.2.
_MAPPINGS = {"wideband": (1.3669, 3.8224), "narrowband": (1.4945, 4.6607)}


def taken_off(mos: float, listener: Listener) -> float:
    """What PESQ took off its 4.5 to come to a score: the loss in the program's own measure.

    Args:
        mos: MOS-LQO of PESQ-wb or PESQ-nb, between 0.999 and 4.999.
        listener: which of the two.
    """
    slope, offset = _MAPPINGS[listener]
    return 4.5 - (math.log((mos - 0.999) / (4.999 - mos)) + offset) / slope


class DisturbanceLoss(nn.Module):
    """PESQ's symmetric and asymmetric disturbance, in the units that it takes off its 4.5.

    Args:
        sample_rate: of the waves in Hz, 16,000 or a multiple of it.
        listeners: who listens; the total is the mean over them.

    Raises:
        ValueError: another sample rate, or nobody listens.
    """

    membership: Tensor
    thresholds: Tensor
    exponents: Tensor
    widths: Tensor
    smoothing: Tensor

    def __init__(
        self, *, sample_rate: int, listeners: Sequence[Listener] = ("wideband", "narrowband")
    ) -> None:
        super().__init__()
        if sample_rate % 16_000:
            raise ValueError(
                f"the disturbance loss takes 16000 Hz or a multiple of it, not {sample_rate} Hz"
            )
        if not listeners:
            raise ValueError("listeners is empty: name wideband, narrowband or both")
        self.listeners = tuple(listeners)
        self.n_fft = round(_FRAME_SECONDS * sample_rate)
        widths = torch.tensor(_WIDTHS)
        centres = widths.cumsum(0) - widths / 2
        low = (6 / (centres + 2)).clamp(max=2).where(centres < 4, torch.ones_like(centres))
        bands = self._membership()
        for name, value in (
            ("membership", torch.stack([bands * _heard(who) for who in listeners])),
            ("thresholds", torch.tensor(_THRESHOLDS)[:, None]),
            ("exponents", (_ZWICKER_POWER * low.pow(0.15))[:, None]),
            ("widths", widths[1:, None]),
            ("smoothing", 0.8 * 0.2 ** torch.arange(_SMOOTHING_FRAMES - 1.0, -1, -1)),
        ):
            self.register_buffer(name, value, persistent=False)

    def forward(self, decoded: Tensor, reference: Tensor) -> LossValue:
        """Loss of `decoded` against `reference`, both (batch, 1, samples).

        Parts: what each of the listeners takes off, their mean is the total; and the mean over
        them of ``symmetric`` and ``asymmetric``, whose sum it is too. Means are over the batch.
        """
        with torch.autocast(decoded.device.type, enabled=False):
            with torch.no_grad():
                wanted = self._bands(reference)
            got = self._bands(decoded)
            wanted = wanted * self._colour(wanted, got)
            audible = self._audible(wanted, 1)
            got = got * self._level(audible, self._audible(got, 1))[:, :, None]
            symmetric, asymmetric = self._over_bands(wanted, got)
            weight = ((audible + 1e5) / 1e7).pow(0.04)
            symmetric = 0.1 * self._over_time((symmetric / weight).clamp(max=45))
            asymmetric = 0.0309 * self._over_time((asymmetric / weight).clamp(max=45))
        each = dict(zip(self.listeners, symmetric + asymmetric, strict=True))
        means = {"symmetric": symmetric.mean(), "asymmetric": asymmetric.mean()}
        return LossValue(means["symmetric"] + means["asymmetric"], each | means)

    def _bin(self, frequency: float) -> int:
        return round(frequency * _FRAME_SECONDS)

    def _membership(self) -> Tensor:
        """(bands, bins): which bins a band sums, and its scale."""
        # The standard's spectra are of a plain Hann window over 512 samples: 512 times 3/8 of
        # energy, and half of our power, which has both sides' bins.
        scale = _SPECTRUM_SCALE * 512 * 512 * 3 / 8 / 2
        matrix = torch.zeros(len(_BINS), _HEARD_BINS)
        first = 0
        for band, (bins, correction) in enumerate(zip(_BINS, _CORRECTIONS, strict=True)):
            matrix[band, first : first + bins] = correction * scale
            first += bins
        matrix[:, 0] = 0
        return matrix

    def _bands(self, wave: Tensor) -> Tensor:
        """Pitch power densities at the listeners' level, (batch, listeners, bands, frames)."""
        spectrum = torch.view_as_real(stft(wave, n_fft=self.n_fft, hop_length=self.n_fft // 2))
        # A window of unit energy: |X|² is per sample and per bin of a two-sided spectrum.
        power = spectrum.square().sum(-1) * (2 * 32768.0**2 / self.n_fft)
        speech = power[:, self._bin(350) : self._bin(3250)].sum(1).mean(-1)
        gain = _LEVEL / speech.clamp(min=_LEVEL_FLOOR)
        heard = power[:, :_HEARD_BINS] * gain[:, None, None]
        return (self.membership.flatten(0, 1) @ heard).unflatten(1, self.membership.shape[:2])

    def _audible(self, bands: Tensor, factor: float) -> Tensor:
        """Power of the bands above so many thresholds, (batch, listeners, frames)."""
        above = bands > factor * self.thresholds
        return torch.where(above, bands, 0.0)[:, :, 1:].sum(2)

    def _colour(self, wanted: Tensor, got: Tensor) -> Tensor:
        """What colours the reference as `got` is on average, (batch, listeners, bands, 1)."""
        spoken = (self._audible(wanted, 100) >= 1e7)[:, :, None]
        wanted, got = (
            torch.where(spoken & (x > 100 * self.thresholds), x, 0.0).mean(-1, keepdim=True)
            for x in (wanted, got)
        )
        return ((got + 1000) / (wanted + 1000)).clamp(0.01, 100)

    def _level(self, wanted: Tensor, got: Tensor) -> Tensor:
        """The factor that gives `got` the reference's level, smoothed over frames."""
        ratio = (wanted + 5e3) / (got + 5e3)
        # 0.2 of the last frame's and 0.8 of this one's, as far back as it can be told.
        padded = F.pad(ratio, (self.smoothing.shape[0] - 1, 0), mode="replicate")
        frames = padded.unfold(-1, self.smoothing.shape[0], 1)
        return (frames @ self.smoothing).clamp(3e-4, 5)

    def _loudness(self, bands: Tensor) -> Tensor:
        """Zwicker's loudness above the hearing threshold, of the same shape."""
        above = (0.5 + 0.5 * (bands / self.thresholds).clamp(min=1)).pow(self.exponents) - 1
        return _LOUDNESS_SCALE * (self.thresholds / 0.5).pow(self.exponents) * above

    def _over_bands(self, wanted: Tensor, got: Tensor) -> tuple[Tensor, Tensor]:
        """Symmetric and asymmetric disturbance of each frame, (batch, listeners, frames)."""
        wanted_loudness, loudness = self._loudness(wanted), self._loudness(got)
        difference = loudness - wanted_loudness
        masked = 0.25 * torch.minimum(wanted_loudness, loudness)
        heard = difference.sign() * (difference.abs() - masked).clamp(min=0)
        ratio = ((got + 50) / (wanted + 50)).pow(1.2)
        added = heard * torch.where(ratio < 3, 0.0, ratio.clamp(max=12))
        total = float(self.widths.sum())
        squares = (heard[:, :, 1:] * self.widths).square().sum(2)
        symmetric = (squares / total + 1e-8).sqrt() * total
        return symmetric, (added[:, :, 1:].abs() * self.widths).sum(2)

    @staticmethod
    def _over_time(frames: Tensor) -> Tensor:
        """Norm of order 6 inside syllables, of order 2 over them; the mean over the batch."""
        length = min(_SYLLABLE_FRAMES, frames.shape[-1])
        syllables = frames.unfold(-1, length, max(1, length // 2))
        within = (syllables.pow(6).mean(-1) + 1e-12).pow(1 / 6)
        return (within.square().mean(-1) + 1e-12).sqrt().mean(0)


def _heard(listener: Listener) -> Tensor:
    """Power gain of a listener's filter in each bin, (bins,)."""
    frequencies = torch.arange(_HEARD_BINS) / _FRAME_SECONDS
    if listener == "wideband":
        # P.862.2's filter: passes what lies above 100 Hz, 9 dB louder.
        delay = torch.exp(-2j * math.pi * frequencies.double() / 16_000)
        response = 2.740826 * (1 - delay) ** 2 / (1 - 1.9444777 * delay + 0.94597794 * delay**2)
        return response.abs().square().float()
    hertz, decibels = np.array(_TELEPHONE, np.float64).T
    gains = np.interp(frequencies.numpy(), hertz, decibels)
    return torch.from_numpy(10 ** (gains / 10)).float()
