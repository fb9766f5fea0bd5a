"""Filling in for frames that never came: `codec.concealment` without PyTorch.

The last codes are repeated and the decoder goes on from its own state; a fade brings the sound to
silence, and a limit keeps each frame at the level of what was heard last.
"""

import math

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float32]

# As in `codec.concealment`, in seconds: a loss at full level, until silence, ...
_HELD = 0.04
_FADED = 0.2
# ... until the gain is 1 again, until the limit has moved, and of what the level is taken.
_RECOVERY = 0.005
_LIMIT_MOVES = 0.0025
_HEARD = 0.02


class Concealment:
    """Shapes what a decoder makes of repeated codes; of one sample rate and hop.

    Attributes:
        faded_frames: missing frames in a row after which there is silence.
        heard_samples: samples that were heard last, from which the level is taken.
    """

    def __init__(self, sample_rate: int, hop_length: int) -> None:
        """`sample_rate` in Hz, `hop_length` in samples a frame."""
        self.faded_frames = math.ceil(_FADED * sample_rate / hop_length)
        self.heard_samples = math.ceil(_HEARD * sample_rate)
        self._hop_length = hop_length
        samples = np.arange(self.faded_frames * hop_length)
        part = (samples / sample_rate - _HELD) / (_FADED - _HELD)
        fade = 0.5 + 0.5 * np.cos(math.pi * part.clip(0, 1))
        self._fade = fade.astype(np.float32)
        self._recovery = _rise(_RECOVERY * sample_rate, hop_length)
        self._limit_moves = _rise(_LIMIT_MOVES * sample_rate, hop_length)

    def shape(self, wave: Float, heard: Float, limit: Float, lost: int) -> tuple[Float, Float]:
        """The sound of one missing frame.

        Args:
            wave: (batch, 1, hop_length) that the decoder makes of the repeated codes.
            heard: (batch, 1, samples), the last that was heard before the loss.
            limit: (batch, 1, 1), what the last call gave; 1 at the loss's beginning.
            lost: frames missing before this one, 0 ... faded_frames - 1.

        Returns:
            The shaped wave and the new limit.
        """
        start = lost * self._hop_length
        fade = self._fade[start : start + self._hop_length]
        level = np.sqrt(_power(heard) / np.maximum(_power(wave), np.float32(1e-20)))
        most = np.minimum(level, np.float32(1))
        return wave * fade * (limit + (most - limit) * self._limit_moves), most

    def recover(self, wave: Float, limit: Float, lost: int) -> Float:
        """The first wave after a loss of `lost` frames, (batch, 1, frames * hop_length), eased in.

        `limit` is what the last `shape` gave.
        """
        end = lost * self._hop_length
        faded = self._fade[end - 1] if lost < self.faded_frames else np.float32(0)
        gain = limit * faded
        rise = gain + (1 - gain) * self._recovery
        first = wave[..., : self._hop_length] * rise
        return np.concatenate((first, wave[..., self._hop_length :]), axis=-1)


def _rise(length: float, samples: int) -> Float:
    """From just above 0 to 1 within `length` samples, then 1; (samples,)."""
    steps = max(1, min(round(length), samples))
    rise: Float = ((np.arange(samples) + 1) / steps).clip(max=1).astype(np.float32)
    return rise


def _power(wave: Float) -> Float:
    """Mean square, (batch, 1, 1)."""
    power: Float = np.square(wave).mean(axis=-1, keepdims=True)
    return power
