import io
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from codec import audio
from codec.audio_writing import AudioWriter
from codec.errors import AudioError
from infer.live.pcm import Pcm, samples_of


def wav(wave: np.ndarray, bits: int = 16, rate: int = 8000) -> bytes:
    file = io.BytesIO()
    with AudioWriter(file, sample_rate=rate, channels=len(wave), format="wav", bits=bits) as writer:
        writer.write(wave)
    return file.getvalue()


def noise(channels: int, samples: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(-0.5, 0.5, (channels, samples)).astype(np.float32)


def read(data: bytes, raw: Pcm | None = None, at_once: int = 1 << 20) -> tuple[int, np.ndarray]:
    file = io.BytesIO(data)
    pieces = list(samples_of(lambda most: file.read(min(most, at_once)), raw))
    assert len({rate for rate, _ in pieces}) <= 1
    return pieces[0][0], np.concatenate([piece for _, piece in pieces])


@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize("bits", [16, 24, 32])
@pytest.mark.parametrize("at_once", [7, 1 << 20])
def test_wav_files_are_as_ffmpeg_reads_them(channels: int, bits: int, at_once: int) -> None:
    data = wav(noise(channels, 301), bits)
    expected, _ = audio.read(io.BytesIO(data))
    rate, found = read(data, at_once=at_once)
    assert rate == 8000
    np.testing.assert_allclose(found, audio.to_mono(expected)[0], atol=1e-7)


def test_eight_bits_are_unsigned() -> None:
    head = (
        b"RIFF"
        + struct.pack("<I", 0)
        + b"WAVEfmt "
        + struct.pack("<IHHIIHH", 16, 1, 1, 8000, 8000, 1, 8)
    )
    data = (
        head
        + b"LIST"
        + struct.pack("<I", 3)
        + b"abc\0"
        + b"data"
        + struct.pack("<I", 3)
        + b"\0\x80\xc0rest"
    )
    np.testing.assert_array_equal(read(data)[1], [-1, 0, 0.5])


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF, 0x7FFFFFFF])
def test_a_size_that_was_not_known_means_until_the_end(size: int) -> None:
    data = bytearray(wav(noise(1, 50)))
    place = data.index(b"data") + 4
    data[place : place + 4] = struct.pack("<I", size)
    assert read(bytes(data))[1].size == 50


@given(
    form=st.sampled_from(
        [Pcm(8000), Pcm(8000, 2), Pcm(8000, 1, 24), Pcm(8000, 3, 32), Pcm(8000, 2, 64, True)]
    ),
    frames=st.integers(1, 50),
    extra=st.integers(0, 3),
    at_once=st.integers(1, 40),
)
def test_raw_samples_come_however_the_pipe_cuts_them(
    form: Pcm, frames: int, extra: int, at_once: int
) -> None:
    random = np.random.default_rng(0)
    data = random.integers(0, 256, frames * form.frame_bytes, np.uint8).tobytes()
    if form.floats:
        data = random.uniform(-1, 1, frames * form.channels).astype("<f8").tobytes()
    whole = form.decode(data)
    assert whole.shape == (frames,)
    rate, found = read(data + bytes(extra)[: form.frame_bytes - 1], form, at_once)
    assert rate == 8000
    np.testing.assert_array_equal(found, whole)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "ends within the header"),
        (b"RIFF1234WAVE", "ends within the header"),
        (b"ID3 and an mp3 file", "is no WAV file"),
        (b"RIFF1234WAVEdata\0\0\0\0", "without a format"),
        (b"RIFF1234WAVEfmt \x02\0\0\0ab", "damaged header"),
        (b"RIFF1234WAVEjunk\xff\xff\xff\x7f", "does not end"),
        (
            b"RIFF1234WAVEfmt " + struct.pack("<IHHIIHH", 16, 2, 1, 8000, 4000, 1, 4),
            "another kind than PCM",
        ),
    ],
    ids=["empty", "cut", "mp3", "no-format", "short", "endless", "adpcm"],
)
def test_what_is_no_wav_file_is_refused(data: bytes, says: str) -> None:
    with pytest.raises(AudioError, match=says):
        read(data)


def test_samples_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(AudioError, match="NaN"):
        read(np.array([0.1, np.nan], "<f4").tobytes(), Pcm(8000, 1, 32, True))
