"""A source and a filter: speech from parameters that are given 200 times a second.

A pulse train of a running phase and noise pass through an envelope, window by window. What a
network has to find is an envelope and a pitch; that a harmonic goes on from frame to frame is in
the phase.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from codec.nn.convolution import State, StreamingLayer
from codec.nn.parameters import (
    APERIODICITY_FLOOR,
    APERIODICITY_HZ,
    ENVELOPE,
    F0_CLASSES,
    f0_classes,
    to_bins,
)
from codec.nn.transform import fixed_table

WINDOW_HOPS = 4
"""A window's length in hops."""
REACH = 2
"""Windows after its own that a hop of the wave lies under."""
LOUDEST = 12.0  # log power at which an envelope ends

# Hz under Nyquist's frequency that harmonics end at.
_TOP_MARGIN = 100.0
_NEIGHBOURS = 3  # classes of F0 on either side of the highest that F0 is read from
_TINY = 1e-4


class Controls:
    """Rows of what `VoiceSynthesis` is given, for windows of `n_fft` samples.

    64 points of log power; aperiodicity in dB / 10; a logit of voicing; 128 logits of F0's classes;
    the real and the imaginary parts of a spectrum that is added; and as many numbers of noise,
    of mean 0 and power 1.
    """

    envelope = slice(0, ENVELOPE)
    aperiodicity = ENVELOPE
    voicing = ENVELOPE + 1
    f0 = slice(ENVELOPE + 2, ENVELOPE + 2 + F0_CLASSES)
    parameters = ENVELOPE + 2 + F0_CLASSES
    """Rows up to here say what parameters are; the rest is free."""

    def __init__(self, n_fft: int) -> None:
        spectrum = n_fft + 2
        self.free = slice(self.parameters, self.parameters + spectrum)
        self.noise = slice(self.free.stop, self.free.stop + spectrum)
        self.predicted = self.free.stop
        self.rows = self.noise.stop


class VoiceSynthesis(StreamingLayer):
    """Controls (batch, rows, frames) -> wave (batch, 1, frames * hop_length), `REACH` hops late.

    Frame t describes the samples around the middle of hop t. Its window of four hops, centred
    there, has a train of pulses of its F0, bent by half of what F0 changed since the frame before,
    whose phase in the middle is the sum of all before; and noise. Under square-root Hann windows
    the pulses become a spectrum, which the envelope and the share of the voice multiply; noise,
    which is a spectrum already, gets the rest; the free spectrum is added. The inverse transforms
    under the same windows are added up: hop t is complete with frame t + `REACH`, and comes out
    with it. The share of the voice in a bin is voicing * (1 - aperiodicity^2), the aperiodicity
    going in dB from -60 at 0 Hz over what is given at 3 kHz to 0 at Nyquist's frequency.

    The pulse train has all harmonics up to 100 Hz below Nyquist's frequency, with unit power in
    all. Filters have minimum phase (by the cepstrum; Oppenheim & Schafer 1989, 10.3): a Hilbert
    transform of the log envelope, which is a product with a constant matrix.

    The phase is summed up in float64: the state is what is left over of the waves, (batch, 1, ...),
    the phase in cycles, (batch, 1, 1) float64, and the last frame's F0 over the rate.
    """

    envelope_to_bins: Tensor
    hilbert: Tensor
    analysis: Tensor
    synthesis: Tensor
    classes: Tensor
    tilt: Tensor
    state_size = 3

    def __init__(self, sample_rate: int, hop_length: int) -> None:
        super().__init__()
        if hop_length % 2:
            raise ValueError(f"the hop of a voice is even, not {hop_length}")
        self.sample_rate = sample_rate
        self.hop_length = hop_length
        self.n_fft = WINDOW_HOPS * hop_length
        self.controls = Controls(self.n_fft)
        self.top = sample_rate / 2 - _TOP_MARGIN
        # Noise has no analysis window: its power under one window's overlap-add is to be 1.
        self.noise_gain = self.n_fft / (2 * math.sqrt(hop_length))
        bins = self.n_fft // 2 + 1
        tables: dict[str, Callable[[], NDArray[np.float64]]] = {
            "envelope_to_bins": lambda: to_bins(sample_rate, bins).T / 2,  # of power to magnitude
            "hilbert": lambda: _minimum_phase(self.n_fft),
            "analysis": lambda: _analysis(self.n_fft),
            "synthesis": lambda: _synthesis(self.n_fft, hop_length),
            "classes": lambda: np.log(f0_classes() / sample_rate),
            "tilt": lambda: _tilt(sample_rate, bins),
        }
        for name, table in tables.items():
            self.register_buffer(name, fixed_table(table), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Synthesise a whole signal; its first `REACH` hops lie before frame 0."""
        return self.step(x, self.initial_state(x.shape[0]))[0]

    def initial_state(self, batch_size: int) -> State:
        """Return silence, the phase of a pulse, and an F0 of 0."""
        left_over = self.n_fft + self.hop_length // 2 - self.hop_length
        return (
            self.synthesis.new_zeros(batch_size, 1, left_over),
            self.synthesis.new_zeros(batch_size, 1, 1, dtype=torch.float64),
            self.synthesis.new_zeros(batch_size, 1, 1),
        )

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Synthesise the next frames, any number of them."""
        if x.shape[-1] == 0:
            return x.new_zeros(x.shape[0], 1, 0), state
        left_over, phase, last = state
        with torch.autocast(x.device.type, enabled=False):
            x = x.float().transpose(1, 2)
            pulses, phase, last = self._pulses(x, phase, last)
            frames = self._spectrum(x, pulses) @ self.synthesis
            wave = self._overlap_add(frames, left_over)
        emitted = x.shape[1] * self.hop_length
        # Copies: of one signal, a view is contiguous and would keep all of it.
        return wave[..., :emitted], (wave[..., emitted:].clone(), phase.clone(), last.clone())

    def input_span(self, first: int, last: int) -> tuple[int, int]:
        """All that came before: the phase is a sum over it.

        Raises:
            ValueError: always; who asks has to carry the state instead.
        """
        raise ValueError("a voice depends on all that came before")

    @torch.no_grad()
    def _pulses(self, x: Tensor, phase: Tensor, last: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Windows of the pulse train, (batch, frames, n_fft), phase and F0 of the last frame."""
        f0 = self.cycles_per_sample(x[..., self.controls.f0])
        before = torch.cat((torch.where(last > 0, last, f0[:, :1]), f0[:, :-1]), dim=1)
        steps = (f0.double() + before.double()) * (self.hop_length / 2)
        middles = phase + steps.cumsum(dim=1)
        middles = middles - middles.floor()
        offset = torch.arange(self.n_fft, device=x.device) - (self.n_fft - 1) / 2
        slope = (f0 - before) / (2 * self.hop_length)
        place = middles.float() + f0 * offset + slope * (offset * offset)
        return self._train(place, f0), middles[:, -1:], f0[:, -1:]

    def _train(self, place: Tensor, f0: Tensor) -> Tensor:
        """Equal harmonics in closed form, of unit power: `place` in cycles of F0."""
        harmonics = (self.top / self.sample_rate / f0).floor()
        place = place - place.round()
        low = (math.pi * place).sin()
        turns = (2 * harmonics + 1) * place / 2
        high = (2 * math.pi * (turns - turns.round())).sin()
        at_pulse = low.abs() < _TINY
        ratio = torch.where(at_pulse, 2 * harmonics + 1, high / torch.where(at_pulse, 1.0, low))
        return (ratio - 1) / (2 * harmonics).sqrt()

    def cycles_per_sample(self, logits: Tensor) -> Tensor:
        """F0 over the sample rate, (batch, frames, 1), of logits (batch, frames, 128).

        The mean of the logarithms of the highest class and its three neighbours on either side,
        by their weights.
        """
        highest = logits.argmax(dim=-1, keepdim=True)
        distance = (torch.arange(F0_CLASSES, device=logits.device) - highest).abs()
        near = torch.where(distance <= _NEIGHBOURS, logits, -math.inf).softmax(dim=-1)
        return (near @ self.classes).exp()[..., None]

    def _spectrum(self, x: Tensor, pulses: Tensor) -> Tensor:
        """Real and imaginary parts of every frame's sum, (batch, frames, n_fft + 2)."""
        rows = self.controls
        log_magnitude = x[..., rows.envelope].clamp(max=LOUDEST) @ self.envelope_to_bins
        phase = log_magnitude @ self.hilbert
        noise_share = (10 * x[..., rows.aperiodicity, None]).clamp(APERIODICITY_FLOOR, 0.0)
        noise_share = 10 ** ((self.tilt[0] + noise_share * self.tilt[1]) / 10)
        voiced = x[..., rows.voicing, None].sigmoid() * (1 - noise_share)
        magnitude = log_magnitude.exp()
        voice = magnitude * (voiced + _SILENT_SHARE).sqrt()
        breath = self.noise_gain * magnitude * (1 - voiced + _SILENT_SHARE).sqrt()
        real, imaginary = (pulses @ self.analysis).chunk(2, dim=-1)
        cosine, sine = phase.cos() * voice, phase.sin() * voice
        spectrum = torch.cat(
            (real * cosine - imaginary * sine, real * sine + imaginary * cosine), -1
        )
        noise = x[..., rows.noise] * torch.cat((breath, breath), dim=-1)
        return spectrum + noise + x[..., rows.free]

    def _overlap_add(self, frames: Tensor, left_over: Tensor) -> Tensor:
        """Waves (batch, frames, n_fft) added up after what is left over, (batch, 1, samples)."""
        batch, count, _ = frames.shape
        half = self.hop_length // 2
        length = (count + WINDOW_HOPS - 1) * self.hop_length
        wave = F.fold(
            frames.transpose(1, 2),
            (1, length),
            (1, self.n_fft),
            stride=(1, self.hop_length),
        )
        # Hop t - REACH begins half a hop before frame t's window, whose middle is hop t's.
        wave = F.pad(wave.view(batch, 1, length), (half, 0))
        return wave + F.pad(left_over, (0, wave.shape[-1] - left_over.shape[-1]))


_SILENT_SHARE = 1e-8  # under the root, whose slope at 0 is none


def _root_hann(n_fft: int) -> NDArray[np.float64]:
    return np.sqrt(0.5 - 0.5 * np.cos((np.arange(n_fft) + 0.5) * (2 * math.pi / n_fft)))


def _analysis(n_fft: int) -> NDArray[np.float64]:
    """(n_fft, 2 * bins): the DFT under a root Hann window."""
    angle = np.arange(n_fft)[:, None] * np.arange(n_fft // 2 + 1) % n_fft * (2 * math.pi / n_fft)
    return np.concatenate((np.cos(angle), -np.sin(angle)), axis=1) * _root_hann(n_fft)[:, None]


def _synthesis(n_fft: int, hop_length: int) -> NDArray[np.float64]:
    """(2 * bins, n_fft): its inverse, scaled so that windows of both add up to one."""
    basis = _analysis(n_fft).T
    weight = np.full(n_fft // 2 + 1, 2.0 / n_fft)
    weight[0] = weight[-1] = 1.0 / n_fft
    return basis * np.tile(weight, 2)[:, None] * (2 * hop_length / n_fft)


def _minimum_phase(n_fft: int) -> NDArray[np.float64]:
    """(bins, bins): log magnitude -> phase of the filter of minimum phase."""
    bins = n_fft // 2 + 1
    cepstra = np.fft.irfft(np.eye(bins), n_fft, axis=1)
    folded = np.zeros(n_fft)
    folded[0] = folded[n_fft // 2] = 1
    folded[1 : n_fft // 2] = 2
    return np.asarray(np.fft.rfft(cepstra * folded, axis=1).imag)


def _tilt(sample_rate: int, bins: int) -> NDArray[np.float64]:
    """(2, bins): aperiodicity in dB is the first row plus the second times what is given."""
    frequencies = np.linspace(0, sample_rate / 2, bins)
    corners = np.array([0, APERIODICITY_HZ, sample_rate / 2])
    return np.stack(
        [
            np.interp(frequencies, corners, [APERIODICITY_FLOOR, 0, 0]),
            np.interp(frequencies, corners, [0, 1, 0]),
        ]
    )
