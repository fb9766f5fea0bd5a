import math
from pathlib import Path

import numpy as np
import pytest

from codec.errors import SottoError
from codec.evaluation.transcripts import Transcript, dwer, edits, transcriber, word_errors
from tests.support.syllables import RATE, voiced

ENCODER = Path(__file__).parents[4] / "shared/models/whisper-base-encoder.pt"


@pytest.mark.parametrize(
    ("said", "heard", "number"),
    [
        ("", "", 0),
        ("a b c", "a b c", 0),
        ("a b c", "", 3),
        ("", "a b", 2),
        ("a b c d", "a x c d", 1),
        ("a b c d", "b c d e", 2),
        ("the cat sat on the mat", "a cat sat the mat today", 3),
        ("a a b", "b a a", 2),
        ("k i t t e n", "s i t t i n g", 3),
    ],
)
def test_edits_are_the_fewest(said, heard, number):
    assert edits(said.split(), heard.split()) == number
    assert edits(heard.split(), said.split()) == number


class Fake:
    """Understands a text by the first sample of a wave, and remembers what it was asked."""

    def __init__(self, *texts: str) -> None:
        self.texts = texts
        self.asked: list[tuple[int, str | None]] = []

    def __call__(self, wave: np.ndarray, language: str | None) -> Transcript:
        number = round(float(wave[0]))
        self.asked.append((number, language))
        return Transcript(tuple(self.texts[number].split()), language or "de")


def recording(number: int) -> np.ndarray:
    return np.full(RATE, number, np.float32)


def test_errors_are_edits_over_the_words_of_the_original():
    fake = Fake("one two three four", "one too three four five", "")
    assert word_errors(fake, recording(0), recording(1)) == 2 / 4
    assert word_errors(fake, recording(0), recording(2)) == 1
    assert word_errors(fake, recording(0), recording(0)) == 0
    assert math.isnan(word_errors(fake, recording(2), recording(0)))


def test_the_original_is_transcribed_once_and_tells_the_language():
    fake = Fake("eins zwei", "eins", "zwei")
    word_errors(fake, recording(0), recording(1))
    word_errors(fake, recording(0), recording(2))
    assert fake.asked == [(0, None), (1, "de"), (2, "de")]


def test_a_model_that_is_none_is_told(tmp_path):
    wrong = tmp_path / "model.pt"
    wrong.write_text("nothing")
    with pytest.raises(SottoError, match=r"Whisper model .*model\.pt: cannot be had"):
        dwer(voiced(1), voiced(1), RATE, whisper=str(wrong))


def test_an_encoder_alone_is_told():
    if not ENCODER.is_file():
        pytest.skip(f"{ENCODER} is not on this machine")
    with pytest.raises(SottoError, match="an encoder alone, which tells no words"):
        transcriber(str(ENCODER))


def test_a_whole_model_tells_words(tmp_path):
    """One of random weights, made here: the road from a checkpoint to a figure, not the words."""
    torch = pytest.importorskip("torch")
    whisper = pytest.importorskip("whisper")
    sizes = dict.fromkeys(("n_audio_state", "n_text_state"), 16)
    sizes |= dict.fromkeys(("n_audio_head", "n_text_head", "n_audio_layer", "n_text_layer"), 1)
    dims = whisper.model.ModelDimensions(
        n_mels=80, n_audio_ctx=1500, n_vocab=51865, n_text_ctx=8, **sizes
    )
    torch.manual_seed(0)
    model = whisper.model.Whisper(dims)
    path = tmp_path / "model.pt"
    torch.save({"dims": vars(dims), "model_state_dict": model.state_dict()}, path)
    score = dwer(voiced(1), voiced(1), RATE, whisper=str(path))
    assert math.isnan(score) or score == 0  # the same recording: the same words, if any


def test_the_real_model_understands_speech():
    pytest.skip("no Whisper checkpoint with a decoder is on this machine, and none is downloaded")
