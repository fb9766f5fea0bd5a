"""Whether exported files say what PyTorch says, on signals that reach every part of a network."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from codec.codec import Codec
from codec.errors import SottoError
from codec.nn.autoencoder import Autoencoder
from codec.nn.codebook import VectorQuantizer
from infer.export_layers import autoencoder_of
from infer.runtime.session import Array, Session, State

Wave = NDArray[np.float32]
Codes = NDArray[np.int64]
Measure = Callable[[Array, Array], float]

# Rounding is 1e-7 to 1e-5 of the largest value, depending on how a network amplifies it.
_LARGEST_DIFFERENCE = 1e-4
# A running phase adds it up: up to 4e-6 cycles every 20 ms, 1e-5 after 1 s and 1e-4 after 60 s,
# which a pulse train's harmonics multiply. PyTorch's own streams and windows are as far apart. Over
# the 1.3 s of a check the root mean square is 1e-4 to 1e-3, the largest value ten times that.
_LARGEST_WITH_MEMORY = 5e-3
# Two rows are as good as equally near if their squared distances differ by less than this part of
# ‖x‖² + ‖e‖²: what rounding in the network before leaves open.
_TIE = 1e-4
# Frames a push, again and again.
_CUTS = (1, 1, 2, 1, 5, 3, 8, 1, 17, 4)
_FRAMES = 64


@dataclass(frozen=True)
class Agreement:
    """How far an encoder's or decoder's file agrees with PyTorch.

    Attributes:
        compared: codes or samples.
        ties: codes that differ where two rows are as good as equally near, and those after them.
        largest_difference: of samples and states, relative to the largest of them; of a decoder
            with memory the root mean square, relative to theirs.
    """

    compared: int
    ties: int
    largest_difference: float


def probe_waves(codec: Codec, seed: int = 0) -> list[Wave]:
    """Noise, and something like speech: pitch pulses with pauses, loud and quiet, (samples,)."""
    samples, rate = _FRAMES * codec.hop_length, codec.sample_rate
    generator = np.random.default_rng(seed)
    time = np.arange(samples) / rate
    noise = generator.standard_normal(samples)
    pitch = np.cumsum(120 + 40 * np.sin(2 * np.pi * 2 * time)) / rate
    voice = sum(np.cos(2 * np.pi * k * pitch) / k for k in range(1, 12)) + 0.05 * noise
    syllables = np.sin(2 * np.pi * 3 * time).clip(0) * np.linspace(0.02, 1, samples)
    return [(0.1 * noise).astype(np.float32), (0.1 * syllables * voice).astype(np.float32)]


def check_encoder(codec: Codec, session: Session, waves: Sequence[Wave]) -> Agreement:
    """Compares codes with `Codec.encode`.

    Raises:
        SottoError: they differ where rounding cannot be why, or states depend on the cutting.
    """
    ties, compared, difference = 0, 0, 0.0
    for wave in waves:
        expected = codec.encode(wave).cpu().numpy()
        found = encode_with(codec, session, wave[None, None])
        change = _change(session, wave[None, None], codec.hop_length, relative_difference)
        ties += _count_ties(codec, session.file.name, wave, expected, found[0])
        compared += expected.size
        difference = max(difference, change)
    return _agreement(session, compared, ties, difference, _LARGEST_DIFFERENCE)


def check_decoder(codec: Codec, session: Session, codes: Sequence[Codes]) -> Agreement:
    """Compares waves with `Codec.decode`, of all codebooks and of fewer.

    Raises:
        SottoError: they differ by more than rounding, or states depend on the cutting.
    """
    compared, difference = 0, 0.0
    remembers = has_memory(codec)
    measure = relative_rms if remembers else relative_difference
    for item in codes:
        for n_quantizers in sorted({1, -(-codec.n_quantizers // 2), codec.n_quantizers}):
            used = item.copy()
            used[n_quantizers:] = -1
            expected = codec.decode(item[:n_quantizers]).cpu().numpy()
            change = _change(session, used[None], 1, measure)
            found = decode_with(codec, session, used[None])
            difference = max(difference, change, measure(expected, found[0, 0]))
            compared += expected.size
    most = _LARGEST_WITH_MEMORY if remembers else _LARGEST_DIFFERENCE
    return _agreement(session, compared, 0, difference, most)


def has_memory(codec: Codec) -> bool:
    """Whether the decoder ends in a sum over all that came before: a running phase."""
    return autoencoder_of(codec).decoder.memory is not None


def relative_difference(expected: Array, found: Array) -> float:
    """The largest, relative to the largest value; infinite for other shapes or NaN."""
    if expected.shape != found.shape:
        return float("inf")
    if not expected.size:
        return 0.0
    difference = float(np.abs(expected - found).max()) / max(float(np.abs(expected).max()), 1e-9)
    return difference if np.isfinite(difference) else float("inf")


def relative_rms(expected: Array, found: Array) -> float:
    """Root mean square of the difference over that of `expected`; infinite for other shapes."""
    if expected.shape != found.shape:
        return float("inf")
    scale = float(np.square(expected, dtype=np.float64).sum()) + 1e-18
    difference = np.sqrt(float(np.square(expected - found, dtype=np.float64).sum()) / scale)
    return float(difference) if np.isfinite(difference) else float("inf")


def encode_with(codec: Codec, session: Session, wave: Array) -> Array:
    """What an encoder's file makes of a whole wave (batch, 1, samples), in pieces if it streams."""
    if not session.file.streaming:
        return session.step(wave)[0]
    return run_in_pieces(session, wave, codec.hop_length, _CUTS)[0]


def decode_with(codec: Codec, session: Session, codes: Array) -> Array:
    """What a decoder's file makes of whole codes (batch, n_quantizers, frames), likewise.

    As long as they are: look-ahead is waited for.
    """
    if not session.file.streaming:
        return session.step(codes)[0]
    late = codec.config.lookahead
    held = np.pad(codes, ((0, 0), (0, 0), (0, late)), mode="edge")
    wave, _ = run_in_pieces(session, held, 1, _CUTS)
    return wave[..., late * codec.hop_length :]


def run_in_pieces(
    session: Session, x: Array, frame: int, cuts: Sequence[int]
) -> tuple[Array, State]:
    """A signal (batch, ..., frames * frame) in pieces of so many frames, over and over."""
    state = session.initial_state(x.shape[0])
    parts, start = [], 0
    for frames in itertools.cycle(cuts):
        if start >= x.shape[-1]:
            break
        piece = np.ascontiguousarray(x[..., start : start + frames * frame])
        y, state = session.step(piece, state)
        parts.append(y)
        start += frames * frame
    return np.concatenate(parts, axis=-1), state


def _change(session: Session, x: Array, frame: int, measure: Measure) -> float:
    """By how much a file's states depend on the cutting."""
    if not session.file.streaming:
        return 0.0
    _, state = run_in_pieces(session, x, frame, _CUTS)
    _, other = run_in_pieces(session, x, frame, (_FRAMES,))
    changes = [0.0]
    for about, a, b in zip(session.file.states, other, state, strict=True):
        # A phase in cycles, where 1 is 0, and otherwise numbers.
        phase = about.dtype == "float64"
        change = float(np.abs((a - b + 0.5) % 1 - 0.5).max()) if phase else measure(a, b)
        changes.append(change)
    return max(changes)


def _agreement(
    session: Session, compared: int, ties: int, difference: float, most: float
) -> Agreement:
    if difference > most:
        raise SottoError(
            f"{session.file.name} differs from PyTorch by {difference:.2g} of what it gives, more "
            f"than {most:g}: not exported"
        )
    return Agreement(compared, ties, difference)


def _count_ties(codec: Codec, name: str, wave: Wave, expected: Codes, found: Codes) -> int:
    """Codes that differ; raises SottoError unless each frame's first one is a tie."""
    if expected.shape != found.shape:
        raise SottoError(f"{name} gives codes {found.shape} for {expected.shape}: not exported")
    frames = np.flatnonzero((expected != found).any(axis=0))
    if not len(frames):
        return 0
    autoencoder = autoencoder_of(codec)
    with torch.inference_mode():
        latent = autoencoder.encoder(torch.from_numpy(wave)[None, None].to(codec.device))[0]
        for frame in frames:
            if not _is_tie(autoencoder, latent[:, frame], expected[:, frame], found[:, frame]):
                raise SottoError(
                    f"{name} gives other codes than PyTorch in frame {frame}: not exported"
                )
    return int((expected != found).sum())


def _is_tie(
    autoencoder: Autoencoder, residual: torch.Tensor, expected: Codes, found: Codes
) -> bool:
    """Whether at the first code that differs both rows are as good as equally near."""
    for layer, a, b in zip(autoencoder.quantizer.layers(), expected, found, strict=True):
        if a == b:
            residual = residual - layer.decode(torch.tensor(int(a), device=residual.device))
            continue
        rows = layer.rows()[[int(a), int(b)]]
        x = _entered(layer, residual)
        distances = (rows - x).square().sum(dim=1)
        size = x.square().sum() + rows.square().sum(dim=1).max()
        return bool((distances[0] - distances[1]).abs() <= _TIE * size)
    return True


def _entered(layer: VectorQuantizer, residual: torch.Tensor) -> torch.Tensor:
    """A residual (dimension,) in the space of a codebook's rows."""
    if layer.project_in is None:
        return residual
    x = layer.project_in(residual)
    return F.normalize(x, dim=-1) if layer.l2_normalize else x
