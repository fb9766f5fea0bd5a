"""Short-time Fourier analysis and synthesis as streaming layers.

Both are matrix products with fixed sines and cosines: a spectrum of a few hundred samples costs
less so than the layers around it, and nothing but products has to be exported. A spectrum is
(batch, 2 * bins, frames), the real parts of its n_fft / 2 + 1 bins before the imaginary ones.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from codec.nn.convolution import State, StreamingLayer
from codec.nn.start import shapes_alone

# Power at which compression turns from a root into a line, against about 1 for speech.
POWER_FLOOR = 1e-5


class Analysis(StreamingLayer):
    """Wave (batch, 1, samples) -> compressed spectra (batch, n_fft + 2, samples / hop_length).

    Frame t sees the n_fft samples that end with its own hop, through a Hann window scaled so that
    speech (rms 0.08) has magnitudes of about 1. Every bin keeps its phase, and its magnitude is
    raised to the power `exponent`, so that quiet bins count (Wilson et al. 2018 use 0.3). With
    `causal=False` the window is centred on the hop instead. Always computed in fp32.

    Raises:
        ValueError: `n_fft` is odd, or smaller than `hop_length`.
    """

    basis: Tensor
    state_size = 1

    def __init__(
        self, n_fft: int, hop_length: int, *, exponent: float = 0.3, causal: bool = True
    ) -> None:
        super().__init__()
        if n_fft % 2 or n_fft <= hop_length:
            raise ValueError(f"n_fft must be even and above the hop {hop_length}, got {n_fft}")
        self.n_fft = n_fft
        self.hop_length = hop_length
        self.exponent = exponent
        self.causal = causal
        padding = n_fft - hop_length
        self.right_padding = 0 if causal else padding // 2
        self.left_padding = padding - self.right_padding
        self.register_buffer("basis", fixed_table(lambda: _analysis_basis(n_fft)), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Analyse a whole wave of whole hops."""
        if x.shape[-1] == 0:
            return x.new_zeros(x.shape[0], self.n_fft + 2, 0)
        return self._analyse(F.pad(x, (self.left_padding, self.right_padding)))

    def initial_state(self, batch_size: int) -> State:
        """Return the zeros before the wave, (batch, 1, n_fft - hop_length)."""
        _require_causal(self.causal)
        return (self.basis.new_zeros(batch_size, 1, self.left_padding),)

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Analyse the next samples, whole hops of them."""
        _require_causal(self.causal)
        if x.shape[-1] % self.hop_length:
            raise ValueError(f"a step takes whole hops of {self.hop_length}, got {x.shape[-1]}")
        if x.shape[-1] == 0:
            return x.new_zeros(x.shape[0], self.n_fft + 2, 0), state
        x = torch.cat((state[0], x), dim=-1)
        return self._analyse(x), (x[..., x.shape[-1] - self.left_padding :].contiguous(),)

    def input_span(self, first: int, last: int) -> tuple[int, int]:
        """Frame t reads n_fft samples from t * hop_length - left padding on."""
        start = first * self.hop_length - self.left_padding
        return start, last * self.hop_length - self.left_padding + self.n_fft - 1

    def _analyse(self, padded: Tensor) -> Tensor:
        with torch.autocast(padded.device.type, enabled=False):
            windows = padded[:, 0].float().unfold(-1, self.n_fft, self.hop_length)
            real, imaginary = (windows @ self.basis).transpose(1, 2).chunk(2, dim=1)
            power = real.square() + imaginary.square() + POWER_FLOOR
            gain = power.pow((self.exponent - 1) / 2)
            return torch.cat((real * gain, imaginary * gain), dim=1)


class Synthesis(StreamingLayer):
    """Log magnitudes and phases (batch, 2 * bins, frames) -> wave (batch, 1, frames * hop_length).

    The inverse STFT of n_fft = 2 * hop_length under a Hann window, whose halves add up to one
    (Siuzdak 2023, "Vocos", takes the same logarithms and angles). Frame t covers the output blocks
    t and t + 1, the second of which frame t + 1 completes: block t is one matrix product over
    frames t and t - 1. With `causal=False` the wave is trimmed on both sides, so that frame t is
    centred on its block. Magnitudes end at e^`LOUDEST`; 1 in every bin gives about the level of
    speech. Always computed in fp32.
    """

    basis: Tensor
    state_size = 1
    LOUDEST = 6.0

    def __init__(self, hop_length: int, *, causal: bool = True) -> None:
        super().__init__()
        self.hop_length = hop_length
        self.causal = causal
        self.left_trim = 0 if causal else hop_length - hop_length // 2
        self.register_buffer(
            "basis", fixed_table(lambda: _synthesis_basis(hop_length)), persistent=False
        )

    def forward(self, x: Tensor) -> Tensor:
        """Synthesise a whole signal."""
        if x.shape[-1] == 0:
            return x.new_zeros(x.shape[0], 1, 0)
        spectrum = self._spectrum(x)
        wave = self._blocks(F.pad(spectrum, (1, 0 if self.causal else 1)))
        return wave[..., self.left_trim :][..., : x.shape[-1] * self.hop_length]

    def initial_state(self, batch_size: int) -> State:
        """Return the silent spectrum before the first, (batch, 2 * bins, 1)."""
        _require_causal(self.causal)
        return (self.basis.new_zeros(batch_size, self.basis.shape[1] // 2, 1),)

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Synthesise the next frames, any number of them."""
        _require_causal(self.causal)
        if x.shape[-1] == 0:
            return x.new_zeros(x.shape[0], 1, 0), state
        spectrum = torch.cat((state[0], self._spectrum(x)), dim=-1)
        return self._blocks(spectrum), (spectrum[..., -1:].contiguous(),)

    def input_span(self, first: int, last: int) -> tuple[int, int]:
        """Sample n lies in block (n + left trim) // hop_length, which reads two frames."""
        block = (first + self.left_trim) // self.hop_length
        return block - 1, (last + self.left_trim) // self.hop_length

    def _spectrum(self, x: Tensor) -> Tensor:
        """Return real and imaginary parts, (batch, 2 * bins, frames)."""
        log_magnitude, phase = x.float().chunk(2, dim=1)
        magnitude = log_magnitude.clamp(max=self.LOUDEST).exp()
        return torch.cat((magnitude * phase.cos(), magnitude * phase.sin()), dim=1)

    def _blocks(self, spectrum: Tensor) -> Tensor:
        """Frames 0 ... n as n blocks after one another."""
        with torch.autocast(spectrum.device.type, enabled=False):
            pairs = torch.cat((spectrum[..., :-1], spectrum[..., 1:]), dim=1)
            return F.linear(pairs.transpose(1, 2), self.basis).flatten(1)[:, None]


def fixed_table(table: Callable[[], NDArray[np.float64]]) -> Tensor:
    """Return a table as float32; nothing where a model is built for its shapes alone."""
    return torch.zeros(0) if shapes_alone() else torch.from_numpy(table()).float()


def _analysis_basis(n_fft: int) -> NDArray[np.float64]:
    """(n_fft, 2 * bins), scaled so that speech of rms 0.08 has magnitudes of about 1."""
    return _fourier(n_fft) * _hann(n_fft)[:, None] * (12.5 / math.sqrt(n_fft * 3 / 8))


def _synthesis_basis(hop_length: int) -> NDArray[np.float64]:
    """(hop, 2 * 2 * bins): the earlier frame's second half, then the later frame's first half."""
    n_fft, bins = 2 * hop_length, hop_length + 1
    # Every bin but the first and the last stands for two, and 1 / n_fft belongs to the inverse.
    weight = np.full(bins, 2.0 / n_fft)
    weight[0] = weight[-1] = 1.0 / n_fft
    basis = _fourier(n_fft) * _hann(n_fft)[:, None] * np.tile(weight, 2)
    return np.concatenate((basis[hop_length:], basis[:hop_length]), axis=1)


def _fourier(n_fft: int) -> NDArray[np.float64]:
    """Cosines and negative sines, (n_fft, 2 * bins): x @ basis is the DFT's real half."""
    product = np.arange(n_fft)[:, None] * np.arange(n_fft // 2 + 1)[None]
    angle = (product % n_fft) * (2 * math.pi / n_fft)
    return np.concatenate((np.cos(angle), -np.sin(angle)), axis=1)


def _hann(length: int) -> NDArray[np.float64]:
    """The periodic Hann window."""
    return 0.5 - 0.5 * np.cos(np.arange(length) * (2 * math.pi / length))


def _require_causal(causal: bool) -> None:
    if not causal:
        raise ValueError("a layer with causal=False reads the future and cannot be streamed")
