"""WAV headers: known and unknown lengths, pipes, RF64, many channels."""

import io
import os
import struct
import wave as riff

import numpy as np
import pytest

from codec import audio, wav_writing
from codec.audio_writing import AudioWriter
from codec.errors import AudioError

RATE = 16000


class Pipe:
    def __init__(self) -> None:
        self.taken = bytearray()

    def write(self, data: memoryview) -> int:
        self.taken += data
        return len(data)


class Sparse(io.RawIOBase):
    """A file that is a head and then zeros."""

    def __init__(self, head: bytes, size: int) -> None:
        self.head, self.size, self.position = head, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self.position, os.SEEK_END: self.size}[whence]
        self.position = base + offset
        return self.position

    def read(self, size: int = -1) -> bytes:
        size = max(0, min(size, self.size - self.position))
        data = self.head[self.position : self.position + size]
        self.position += size
        return data + bytes(size - len(data))


def noise(samples: int, channels: int = 1) -> np.ndarray:
    return np.random.default_rng(0).uniform(-0.9, 0.9, (channels, samples)).astype(np.float32)


def write(target: object, wave: np.ndarray, **keys: object) -> None:
    keys = {"sample_rate": RATE, "channels": wave.shape[0], "format": "wav", **keys}
    with AudioWriter(target, **keys) as writer:  # type: ignore[arg-type]
        writer.write(wave)


@pytest.mark.parametrize("samples", [None, 5001], ids=["unknown", "announced"])
@pytest.mark.parametrize("bits", [16, 24, 32])
@pytest.mark.parametrize("channels", [1, 2, 5])
def test_what_is_written_comes_back(samples: int | None, bits: int, channels: int) -> None:
    file, wave = io.BytesIO(), noise(5001, channels)
    write(file, wave, bits=bits, samples=samples)
    data = file.getvalue()
    assert struct.unpack("<I", data[4:8])[0] == len(data) - 8
    found, rate = audio.read(io.BytesIO(data))
    assert rate == RATE
    np.testing.assert_allclose(found, wave, rtol=0, atol=0 if bits == 32 else 1 / 2**bits * 1.01)
    assert audio.probe(io.BytesIO(data)).samples == 5001


def test_a_known_length_makes_the_plainest_header() -> None:
    file = io.BytesIO()
    write(file, noise(10), samples=10)
    assert len(file.getvalue()) == 44 + 20
    with riff.open(io.BytesIO(file.getvalue())) as read:
        assert read.getparams()[:4] == (1, 2, RATE, 10)


@pytest.mark.parametrize("bits", [16, 24, 32])
def test_a_pipe_is_read_to_its_end(bits: int) -> None:
    pipe, wave = Pipe(), noise(5001)
    write(pipe, wave, bits=bits)
    assert pipe.taken[4:8] == b"\xff" * 4
    found, _ = audio.read(io.BytesIO(bytes(pipe.taken)))
    np.testing.assert_allclose(found[:, :5001], wave, rtol=0, atol=0 if bits == 32 else 1e-4)
    assert found.shape == wave.shape


def test_a_pipe_with_a_known_length_has_a_true_header() -> None:
    pipe, file = Pipe(), io.BytesIO()
    write(pipe, noise(5001), samples=5001)
    write(file, noise(5001), samples=5001)
    assert bytes(pipe.taken) == file.getvalue()


def test_another_length_than_announced() -> None:
    with pytest.raises(ValueError, match="10 samples were announced, more are written"):
        write(io.BytesIO(), noise(11), samples=10)
    with pytest.raises(AudioError, match="10 samples were announced, 9 were written"):
        write(Pipe(), noise(9), samples=10)
    file = io.BytesIO()
    write(file, noise(9), samples=10)
    assert audio.probe(io.BytesIO(file.getvalue())).samples == 9


@pytest.mark.parametrize("bits", [16, 32])
@pytest.mark.parametrize("announced", [False, True], ids=["unknown", "announced"])
@pytest.mark.parametrize("more", [-1, 0, 1], ids=["just riff", "at the edge", "just rf64"])
def test_beyond_4_gigabytes_it_is_rf64(
    bits: int, announced: bool, more: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A small header limit stands for 4 GB; the sizes themselves are written as they are.
    header = (44 if bits == 16 else 58) + (0 if announced else 36)
    samples = 3000
    limit = header - 8 + samples * bits // 8 - more
    monkeypatch.setattr(wav_writing, "_UNKNOWN", limit + (more < 0))
    file = io.BytesIO()
    write(file, noise(samples), bits=bits, samples=samples if announced else None)
    monkeypatch.undo()
    data = file.getvalue()
    assert data[:4] == (b"RIFF" if more < 0 else b"RF64")
    if more >= 0:
        assert data[12:16] == b"ds64"
        size, content, count = struct.unpack("<QQQ", data[20:44])
        assert (size, content, count) == (len(data) - 8, samples * bits // 8, samples)


def test_a_file_of_more_than_4_gigabytes_is_read() -> None:
    samples = (1 << 31) + 5000
    pipe = Pipe()
    writer = AudioWriter(pipe, sample_rate=RATE, channels=1, format="wav", samples=samples)  # type: ignore[arg-type]
    writer.__enter__()
    assert pipe.taken[:4] == b"RF64"
    file = Sparse(bytes(pipe.taken), len(pipe.taken) + 2 * samples)
    with audio.AudioReader(file) as reader:  # type: ignore[arg-type]
        assert reader.info.samples == samples
        assert reader.read(samples - 3000).shape == (1, 3000)


def test_an_unfinished_file_is_read_as_far_as_it_goes() -> None:
    file = io.BytesIO()
    writer = AudioWriter(file, sample_rate=RATE, channels=1, format="wav")
    writer.__enter__()
    writer.write(noise(5000))  # and here the program is killed
    found, _ = audio.read(io.BytesIO(file.getvalue()))
    assert found.shape == (1, 5000)


def test_odd_data_is_padded() -> None:
    file = io.BytesIO()
    write(file, noise(3), bits=24)
    assert len(file.getvalue()) % 2 == 0
    assert audio.read(io.BytesIO(file.getvalue()))[0].shape == (1, 3)


def test_too_many_channels_for_a_header_are_refused() -> None:
    with pytest.raises(AudioError, match="cannot hold 40000 channels"):
        write(io.BytesIO(), np.zeros((40000, 1), np.float32))
