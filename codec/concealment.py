"""Filling in for frames that never came: what a decoder says while codes are missing.

The last latent is repeated and the decoder goes on from its own state, so the wave continues where
it was: there is nothing to click. What comes out is shaped by two gains:

* a fade, 1 for the first 40 ms of a loss, then down along half a cosine to silence at 200 ms:
  speech changes too much to be carried on for longer. (G.711 Appendix I, ITU-T 1999, which repeats
  pitch periods of the wave, is silent after 60 ms; held latents bear more, by PESQ.)
* a limit, at most 1, that brings each filled-in frame down to the level of the last 20 ms heard: a
  latent that is held can swell to what no frame of speech was.

When codes come again, the gain rises to 1 within 5 ms, and what the decoder remembers of the gap
leaves it within its receptive field. After a loss that lasted to the end of the fade the decoder
starts anew from its initial state, as at the beginning of a signal: of a sound that long past,
nothing belongs into what comes next.
"""

import math

import torch
from torch import Tensor

# Seconds of a loss at full level, and until silence.
_HELD = 0.04
_FADED = 0.2
# Seconds over which the gain returns to 1 when codes come again.
_RECOVERY = 0.005
# Seconds over which the limit moves from one frame's to the next one's.
_LIMIT_MOVES = 0.0025
# Seconds heard last whose level bounds what is filled in; longer than a pitch period.
_HEARD = 0.02


class Concealment:
    """Shapes what a decoder makes of a repeated latent; of one sample rate and hop.

    Attributes:
        faded_frames: missing frames in a row after which there is silence.
        heard_samples: samples that were heard last, from which the level is taken.
    """

    def __init__(self, sample_rate: int, hop_length: int, device: torch.device) -> None:
        """`sample_rate` in Hz, `hop_length` in samples a frame."""
        self.faded_frames = math.ceil(_FADED * sample_rate / hop_length)
        self.heard_samples = math.ceil(_HEARD * sample_rate)
        self._hop_length = hop_length
        samples = torch.arange(self.faded_frames * hop_length, device=device)
        part = (samples / sample_rate - _HELD) / (_FADED - _HELD)
        self._fade = 0.5 + 0.5 * torch.cos(math.pi * part.clamp(0, 1))
        self._recovery = _rise(_RECOVERY * sample_rate, hop_length, device)
        self._limit_moves = _rise(_LIMIT_MOVES * sample_rate, hop_length, device)

    def shape(self, wave: Tensor, heard: Tensor, limit: Tensor, lost: int) -> tuple[Tensor, Tensor]:
        """The sound of one missing frame.

        Args:
            wave: (batch, 1, hop_length) that the decoder makes of the repeated latent.
            heard: (batch, 1, samples), the last that was heard before the loss.
            limit: (batch, 1, 1), what the last call gave; 1 at the loss's beginning.
            lost: frames missing before this one, 0 ... faded_frames - 1.

        Returns:
            The shaped wave and the new limit.
        """
        start = lost * self._hop_length
        fade = self._fade[start : start + self._hop_length]
        most = (_power(heard) / _power(wave).clamp_min(1e-20)).sqrt().clamp(max=1)
        return wave * fade * torch.lerp(limit, most, self._limit_moves), most

    def recover(self, wave: Tensor, limit: Tensor, lost: int) -> Tensor:
        """The first wave after a loss of `lost` frames, (batch, 1, frames * hop_length), eased in.

        `limit` is what the last `shape` gave.
        """
        end = lost * self._hop_length
        gain = limit * (self._fade[end - 1] if lost < self.faded_frames else 0.0)
        rise = torch.lerp(gain, torch.ones_like(gain), self._recovery)
        first = wave[..., : self._hop_length] * rise
        return torch.cat((first, wave[..., self._hop_length :]), dim=-1)


def _rise(length: float, samples: int, device: torch.device) -> Tensor:
    """From just above 0 to 1 within `length` samples, then 1; (samples,)."""
    steps = max(1, min(round(length), samples))
    return ((torch.arange(samples, device=device) + 1) / steps).clamp(max=1)


def _power(wave: Tensor) -> Tensor:
    """Mean square, (batch, 1, 1)."""
    return wave.square().mean(dim=-1, keepdim=True)
