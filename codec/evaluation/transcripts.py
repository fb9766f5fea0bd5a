"""Words that a recogniser no longer hears: Whisper's transcript of what was decoded."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from codec.errors import SottoError
from codec.evaluation.pairs import Wave, judging, remembering


@dataclass(frozen=True)
class Transcript:
    """What was understood: words, normalised, and the code of their language."""

    words: tuple[str, ...]
    language: str


class Transcriber(Protocol):
    """What tells words."""

    def __call__(self, wave: Wave, language: str | None) -> Transcript:
        """Of float32 (samples,) at 16 kHz; the language is found out where it is None."""


@judging(shortest=0.5)
def dwer(reference: Wave, decoded: Wave, *, whisper: str) -> float:
    """Word edits from the transcript of the original to that of what was decoded, by its words.

    Both are Whisper's, greedy, the second in the language that the first was found to be in, so
    that no text is needed; an original that Whisper mishears counts by what it heard. Files are
    averaged as in every other metric, each the same: the figure is the mean of their rates, and
    not the edits of all over the words of all, in which long files would weigh more.

    Args:
        reference: As in `codec.evaluation.metrics.pesq_nb`, whose errors are these too.
        decoded: Likewise.
        whisper: A name that openai-whisper knows (it downloads it once), or a checkpoint's path.

    Returns:
        0 for the same words; may be more than 1, where words were made up. NaN where silent or
        under 0.5 s, or where no word is understood in the original.

    Raises:
        SottoError: The model cannot be had or read, or is an encoder without its decoder.
    """
    return word_errors(transcriber(whisper), reference, decoded)


def word_errors(transcribe: Transcriber, reference: Wave, decoded: Wave) -> float:
    """As `dwer`, of waves at 16 kHz, by any transcriber."""
    said = _original(reference, transcribe)
    if not said.words:
        return float("nan")
    heard = transcribe(decoded, said.language)
    return edits(said.words, heard.words) / len(said.words)


@remembering(last=4)
def _original(wave: Wave, transcribe: Transcriber) -> Transcript:
    return transcribe(wave, None)


def edits(reference: Sequence[str], heard: Sequence[str]) -> int:
    """Fewest insertions, deletions and substitutions from one to the other (Levenshtein 1966)."""
    row = np.arange(len(heard) + 1)
    for word in reference:
        differs = np.array([word != other for other in heard], dtype=np.int64)
        best = np.append(row[0] + 1, np.minimum(row[:-1] + differs, row[1:] + 1))
        # An insertion adds 1 to the entry before it: the least of all before it, and steps between.
        steps = np.arange(len(best))
        row = np.minimum.accumulate(best - steps) + steps
    return int(row[-1])


@lru_cache(maxsize=1)
def transcriber(name: str) -> Transcriber:
    """Whisper of a name or path, loaded.

    Raises:
        SottoError: The model cannot be had or read, or is an encoder without its decoder.
    """
    import whisper
    from whisper.normalizers import BasicTextNormalizer, EnglishTextNormalizer

    model = _model(whisper, name)
    english, others = EnglishTextNormalizer(), BasicTextNormalizer()

    def transcribe(wave: Wave, language: str | None) -> Transcript:
        found: dict[str, Any] = whisper.transcribe(
            model,
            wave,
            language=language,
            temperature=0.0,
            condition_on_previous_text=False,
            fp16=False,
            verbose=None,
        )
        normalise = english if found["language"] == "en" else others
        return Transcript(tuple(normalise(found["text"]).split()), found["language"])

    return transcribe


def _model(whisper: Any, name: str) -> Any:
    """The whole model on the CPU; a path's tensors are read without running code from the file."""
    try:
        if not Path(name).is_file():
            return whisper.load_model(name, device="cpu")
        checkpoint = torch.load(name, map_location="cpu", weights_only=True)
        model = whisper.model.Whisper(whisper.model.ModelDimensions(**checkpoint["dims"]))
        weights = checkpoint["model_state_dict"]
    except Exception as error:
        raise SottoError(f"Whisper model {name}: cannot be had: {error}") from None
    if not any(key.startswith("decoder.") for key in weights):
        raise SottoError(f"Whisper model {name}: an encoder alone, which tells no words")
    model.load_state_dict(weights)
    return model.float().eval()
