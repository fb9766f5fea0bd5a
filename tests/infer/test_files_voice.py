"""Files of a model that looks ahead and whose phase runs on: they are as long as what went in."""

from pathlib import Path

import numpy as np
import pytest

from codec import audio
from codec.codec import Codec
from infer.export_int8 import loudness
from infer.files import decode_file, encode_file
from tests.support.voices import assert_sounds_like

RATE, HOP = 16000, 320


def coded(voice: Codec, folder: Path, samples: int, rate: int = RATE) -> Path:
    noise = np.random.default_rng(1).uniform(-0.5, 0.5, (1, samples)).astype(np.float32)
    audio.write_wav(folder / "in.wav", noise, rate)
    encode_file(voice, folder / "in.wav", folder / "x.sc", n_quantizers=3, target_lufs=None)
    return folder / "x.sc"


def decoded(voice: Codec, source: Path, **options: object) -> np.ndarray:
    """Not clipped: a voice of random weights is loud."""
    target = source.parent / "out.wav"
    conversion = decode_file(voice, source, target, **options)  # type: ignore[arg-type]
    wave, rate = audio.read(target)
    assert conversion.seconds == pytest.approx(wave.shape[1] / rate)
    return wave[0]


@pytest.mark.parametrize("samples", [1, HOP, HOP + 1, 5 * RATE - 3])
def test_what_comes_out_is_as_long_as_what_went_in(
    samples: int, voice: Codec, tmp_path: Path
) -> None:
    wave = decoded(voice, coded(voice, tmp_path, samples))
    assert wave.shape == (samples,)
    given, _ = audio.read(tmp_path / "in.wav")
    expected = voice.decode(voice.encode(given[0], 3), samples).numpy()
    assert_sounds_like(wave, expected.clip(-1, 1 - 2**-15))


def test_restored_it_has_the_samples_of_the_source(voice: Codec, tmp_path: Path) -> None:
    source = coded(voice, tmp_path, 44_101, rate=44_100)
    assert decoded(voice, source, restore=True).shape == (44_101,)
    assert decoded(voice, source).shape == (16_000,)


def test_a_stretch_is_that_of_the_whole_but_for_its_phase(voice: Codec, tmp_path: Path) -> None:
    source = coded(voice, tmp_path, 9 * RATE)
    whole = decoded(voice, source)
    stretch = decoded(voice, source, start=6.0, stop=8.5)
    assert stretch.shape == (round(2.5 * RATE),)
    expected, found = (
        loudness(wave[None, None], HOP) for wave in (whole[6 * RATE : round(8.5 * RATE)], stretch)
    )
    difference = np.square(found - expected).mean() ** 0.5
    assert difference < 0.2 * np.square(expected).mean() ** 0.5
    first = decoded(voice, source, stop=3.0)
    assert_sounds_like(first, whole[: 3 * RATE])


def test_after_a_damaged_block_a_voice_begins_anew(voice: Codec, tmp_path: Path) -> None:
    source = coded(voice, tmp_path, 6 * RATE)
    whole = decoded(voice, source)
    content = bytearray(source.read_bytes())
    content[len(content) // 2] ^= 255
    source.write_bytes(content)
    wave = decoded(voice, source)
    assert wave.shape == whole.shape
    silent = ~wave.reshape(-1, HOP).any(axis=1)
    first, count = int(np.argmax(silent)), int(silent.sum())
    assert silent[first : first + count].all()
    assert count * HOP <= 2 * RATE
    # The last frame before it is held.
    assert_sounds_like(wave[: (first - 1) * HOP], whole[: (first - 1) * HOP])
