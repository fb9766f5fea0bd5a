"""What the encoder of a voice hears: an envelope, and how the sound repeats at each pitch."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from codec.nn.convolution import State, StreamingLayer
from codec.nn.parameters import ENVELOPE, F0_CLASSES, envelope_frequencies, f0_classes
from codec.nn.transform import fixed_table

POWER_FLOOR = 1e-8
"""Of a mel band, per bin: about what 16-bit audio's last bit has."""
FEATURES = ENVELOPE + F0_CLASSES
ENVELOPE_MIDDLE, ENVELOPE_SPREAD = -10.0, 4.0
"""Log power is given as (x - middle) / spread: about -1 to 1 for speech."""

_ENVELOPE_SECONDS = 0.025
_PITCH_SECONDS = 0.05
_PITCH_TOP = 1500.0
_COMPRESSION = 1 / 3  # of power: magnitudes to 2/3 (Tolonen & Karjalainen 2000)


class VoiceFeatures(StreamingLayer):
    """Wave (batch, 1, samples) -> features (batch, 192, samples / hop_length).

    Frame t sees what ends with its own hop. Channels 0 to 63 are log power in bands around the
    points of `envelope_frequencies`, through a Hann window of 25 ms; 64 to 191 the autocorrelation
    through one of 50 ms, at the period of each class of F0, over that at lag 0. The latter is
    the inverse transform of compressed magnitudes up to 1.5 kHz, whose cosines are evaluated at the
    periods themselves. Computed in fp32.

    Args:
        sample_rate: Hz.
        hop_length: samples a frame, 5 ms of them.
    """

    envelope_basis: Tensor
    bands: Tensor
    pitch_basis: Tensor
    lags: Tensor
    state_size = 1

    def __init__(self, sample_rate: int, hop_length: int) -> None:
        super().__init__()
        self.hop_length = hop_length
        self.envelope_window = _even(sample_rate * _ENVELOPE_SECONDS)
        self.pitch_window = _even(sample_rate * _PITCH_SECONDS)
        self.left_padding = self.pitch_window - hop_length
        for name, table in (
            ("envelope_basis", lambda: _windowed_fourier(self.envelope_window, self._n_fft())),
            ("bands", lambda: _bands(sample_rate, self._n_fft() // 2 + 1)),
            ("pitch_basis", lambda: _pitch_basis(self.pitch_window, sample_rate)),
            ("lags", lambda: _lags(self.pitch_window, sample_rate)),
        ):
            self.register_buffer(name, fixed_table(table), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Features of a whole wave of whole hops."""
        if x.shape[-1] == 0:
            return x.new_zeros(x.shape[0], FEATURES, 0)
        return self._features(F.pad(x, (self.left_padding, 0)))

    def initial_state(self, batch_size: int) -> State:
        """Return the zeros before the wave."""
        return (self.bands.new_zeros(batch_size, 1, self.left_padding),)

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Features of the next samples, whole hops of them."""
        if x.shape[-1] % self.hop_length:
            raise ValueError(f"a step takes whole hops of {self.hop_length}, got {x.shape[-1]}")
        if x.shape[-1] == 0:
            return x.new_zeros(x.shape[0], FEATURES, 0), state
        x = torch.cat((state[0], x), dim=-1)
        return self._features(x), (x[..., x.shape[-1] - self.left_padding :].clone(),)

    def input_span(self, first: int, last: int) -> tuple[int, int]:
        """Frame t reads what ends with its hop."""
        return first * self.hop_length - self.left_padding, (last + 1) * self.hop_length - 1

    def _n_fft(self) -> int:
        return int(2 ** math.ceil(math.log2(self.envelope_window)))

    def _features(self, padded: Tensor) -> Tensor:
        with torch.autocast(padded.device.type, enabled=False):
            windows = padded[:, 0].float().unfold(-1, self.pitch_window, self.hop_length)
            power = _power(windows[..., -self.envelope_window :], self.envelope_basis)
            envelope = (power @ self.bands + POWER_FLOOR).log()
            envelope = (envelope - ENVELOPE_MIDDLE) / ENVELOPE_SPREAD
            compressed = (_power(windows, self.pitch_basis) + POWER_FLOOR).pow(_COMPRESSION)
            repeats = compressed @ self.lags / compressed.sum(dim=-1, keepdim=True)
            return torch.cat((envelope, repeats), dim=-1).transpose(1, 2)


def _power(windows: Tensor, basis: Tensor) -> Tensor:
    real, imaginary = (windows @ basis).chunk(2, dim=-1)
    return real.square() + imaginary.square()


def _even(samples: float) -> int:
    return 2 * round(samples / 2)


def _windowed_fourier(window: int, n_fft: int, bins: int | None = None) -> NDArray[np.float64]:
    """(window, 2 * bins): a DFT under a Hann window of unit power."""
    bins = n_fft // 2 + 1 if bins is None else bins
    hann = 0.5 - 0.5 * np.cos(np.arange(window) * (2 * math.pi / window))
    hann /= math.sqrt(float(np.square(hann).sum()))
    angle = np.arange(window)[:, None] * np.arange(bins)[None] % n_fft * (2 * math.pi / n_fft)
    return np.concatenate((np.cos(angle), -np.sin(angle)), axis=1) * hann[:, None]


def _bands(sample_rate: int, bins: int) -> NDArray[np.float64]:
    """(bins, 64): triangles around the points, at least a bin to either side, of unit sum."""
    points = envelope_frequencies(sample_rate)
    spacing = sample_rate / 2 / (bins - 1)
    below = np.maximum(np.diff(points, prepend=points[0] - spacing), spacing)
    above = np.maximum(np.diff(points, append=points[-1] + spacing), spacing)
    distance = np.linspace(0, sample_rate / 2, bins)[:, None] - points[None]
    triangles = np.clip(1 - np.where(distance < 0, -distance / below, distance / above), 0, None)
    return np.asarray(triangles / triangles.sum(axis=0), np.float64)


def _pitch_fft(window: int, sample_rate: int) -> tuple[int, int]:
    """Length of a DFT in which no period of F0 wraps around, and its bins up to 1.5 kHz."""
    n_fft = _even(window + sample_rate / f0_classes()[0] + 1)
    return n_fft, int(_PITCH_TOP * n_fft / sample_rate) + 1


def _pitch_basis(window: int, sample_rate: int) -> NDArray[np.float64]:
    n_fft, bins = _pitch_fft(window, sample_rate)
    return _windowed_fourier(window, n_fft, bins)


def _lags(window: int, sample_rate: int) -> NDArray[np.float64]:
    """(bins, 128): cosines of each bin at each class's period."""
    n_fft, bins = _pitch_fft(window, sample_rate)
    periods = sample_rate / f0_classes()
    return np.asarray(np.cos(2 * math.pi / n_fft * np.arange(bins)[:, None] * periods[None]))
