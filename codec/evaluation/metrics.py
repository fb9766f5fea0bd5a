"""How near a decoded recording is to its original: PESQ, STOI, a mel distance and a buzz."""

import math
import warnings
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch
from pesq import PesqError, pesq
from pystoi import stoi as pystoi_stoi

from codec.evaluation.buzz import repetition
from codec.evaluation.intervals import summary
from codec.evaluation.pairs import SCORED_RATE, Wave, at_scored_rate, prepared, silent
from codec.spectra import MelSpectrogram

# The ITU program keeps 50 utterances and writes past its table when there are more: three
# minutes of speech crash it. An utterance with its pause takes 0.4 s or more, so 20 s are safe.
_PESQ_PIECE_SECONDS = 20.0
_PESQ_SHORTEST_SECONDS = 0.25
# STOI drops frames 40 dB under the loudest of the whole signal, so it is cut only to bound memory.
_STOI_PIECE_SECONDS = 300.0
_STOI_SHORTEST_SECONDS = 0.1
_PYSTOI_TOO_SHORT = 1e-5  # what pystoi returns when fewer than 30 frames are left
_MEL_WINDOW_SECONDS = 0.064
_MEL_BANDS = 80
_MEL_FLOOR = 1e-4  # 80 dB under the loudest band of the reference


def pesq_nb(reference: Wave, decoded: Wave, sample_rate: int) -> float:
    """Narrowband PESQ (ITU-T P.862 with the P.862.1 mapping), at 16 kHz.

    Recordings over 20 s are scored in equal pieces and the pieces' scores averaged.

    Args:
        reference: The original, float32 (samples,) in [-1, 1].
        decoded: What came out of the codec, likewise.
        sample_rate: Hz, of both.

    Returns:
        MOS-LQO, or NaN for a recording that is silent, under 0.25 s or has no utterance.

    Raises:
        SottoError: A sample is NaN or infinite, or the lengths differ by more than 0.25 s.
    """
    return _pesq(*at_scored_rate(*prepared(reference, decoded, sample_rate)), "nb")


def pesq_wb(reference: Wave, decoded: Wave, sample_rate: int) -> float:
    """Wideband PESQ (ITU-T P.862.2), at 16 kHz; arguments and errors as `pesq_nb`."""
    return _pesq(*at_scored_rate(*prepared(reference, decoded, sample_rate)), "wb")


def stoi(reference: Wave, decoded: Wave, sample_rate: int) -> float:
    """Short-time objective intelligibility (Taal et al. 2011, not the extended form).

    Returns:
        0 to 1, or NaN for a silent recording or one with under 30 frames (0.4 s) of speech.
        Arguments and errors as `pesq_nb`.
    """
    return _stoi(*at_scored_rate(*prepared(reference, decoded, sample_rate)))


def mel_distance(reference: Wave, decoded: Wave, sample_rate: int) -> float:
    """Mean difference of two mel spectrograms in dB, at the recordings' own rate.

    The mean over bands and frames of |20 log10 max(R, f) - 20 log10 max(D, f)|, with R and D the
    magnitudes in 80 mel bands (64 ms window, 16 ms hop) and f = max(R) / 10,000: what lies 80 dB
    under the loudest band of the reference counts as silence.

    Returns:
        dB, or NaN for a silent reference or one shorter than a window. Arguments and errors as
        `pesq_nb`.
    """
    return _mel_distance(*prepared(reference, decoded, sample_rate))


def buzz(reference: Wave, decoded: Wave, sample_rate: int) -> float:
    """How much of a recording repeats from frame to frame, above 1 kHz and at 16 kHz.

    PESQ's bands and mel filters are too wide to hear it; see `codec.evaluation.buzz.repetition`.

    Returns:
        About 0 to 1, or NaN for a recording that is silent or under 0.15 s. Arguments and errors
        as `pesq_nb`.
    """
    return _buzz(*at_scored_rate(*prepared(reference, decoded, sample_rate)))


def _mean_of_pieces(
    metric: Callable[[Wave, Wave], float], reference: Wave, decoded: Wave, piece_seconds: float
) -> float:
    """Mean of a metric over equal pieces of at most `piece_seconds`, undefined ones left out."""
    n_pieces = max(1, math.ceil(len(reference) / (piece_seconds * SCORED_RATE)))
    pieces = zip(
        np.array_split(reference, n_pieces), np.array_split(decoded, n_pieces), strict=True
    )
    return summary(metric(*piece) for piece in pieces).mean


def _pesq(reference: Wave, decoded: Wave, band: str) -> float:
    def piece_score(reference: Wave, decoded: Wave) -> float:
        too_short = len(reference) < _PESQ_SHORTEST_SECONDS * SCORED_RATE
        if too_short or silent(reference) or silent(decoded):
            return math.nan
        try:
            return float(pesq(SCORED_RATE, reference, decoded, band))
        except (PesqError, ValueError):  # pesq meets its own NaN with a ValueError
            return math.nan

    return _mean_of_pieces(piece_score, reference, decoded, _PESQ_PIECE_SECONDS)


def _stoi(reference: Wave, decoded: Wave) -> float:
    def piece_score(reference: Wave, decoded: Wave) -> float:
        too_short = len(reference) < _STOI_SHORTEST_SECONDS * SCORED_RATE
        if too_short or silent(reference) or silent(decoded):
            return math.nan
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # "not enough frames": we say NaN
            score = float(pystoi_stoi(reference, decoded, SCORED_RATE, extended=False))
        return math.nan if score == _PYSTOI_TOO_SHORT else score

    return _mean_of_pieces(piece_score, reference, decoded, _STOI_PIECE_SECONDS)


def _buzz(reference: Wave, decoded: Wave) -> float:
    if silent(reference) or silent(decoded):
        return math.nan
    return repetition(reference, decoded, SCORED_RATE)


@lru_cache(maxsize=4)
def _mel_transform(sample_rate: int) -> MelSpectrogram:
    window = 4 * round(_MEL_WINDOW_SECONDS * sample_rate / 4)
    return MelSpectrogram(
        sample_rate=sample_rate, n_fft=window, hop_length=window // 4, n_mels=_MEL_BANDS
    )


def _mel_distance(reference: Wave, decoded: Wave, sample_rate: int) -> float:
    if len(reference) < _MEL_WINDOW_SECONDS * sample_rate or silent(reference):
        return math.nan
    both = torch.from_numpy(np.stack([reference, decoded]))[:, None]
    with torch.no_grad():
        mel = _mel_transform(sample_rate)(both)
    decibels = 20 * torch.log10(mel.clamp(min=_MEL_FLOOR * float(mel[0].max())))
    return float((decibels[0] - decibels[1]).abs().mean())
