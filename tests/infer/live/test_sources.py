import io
import os
import threading
from pathlib import Path

import numpy as np
import pytest

from codec import audio
from codec.errors import AudioError
from codec.resampling import resample
from infer.live.ends import PATIENCE, Source
from infer.live.pcm import Pcm
from infer.live.sources import Amplified, FileSource, Microphone, PipeSource
from tests.support.live import Clock, SimulatedMicrophone


def noise(samples: int, channels: int = 1) -> np.ndarray:
    return np.random.default_rng(0).uniform(-0.5, 0.5, (channels, samples)).astype(np.float32)


def everything(source: Source) -> np.ndarray:
    pieces = []
    while (piece := source.read()) is not None:
        pieces.append(piece)
    return np.concatenate(pieces)


@pytest.mark.parametrize("ending", ["wav", "flac", "mp3"])
def test_files_of_any_kind_are_read_at_the_models_rate(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"x.{ending}"
    with audio.AudioWriter(path, sample_rate=16000, channels=2) as writer:
        writer.write(noise(16000, 2))
    expected, _ = audio.read(path, sample_rate=8000)
    found = everything(FileSource(path, 8000, 160))
    assert found.size == expected.shape[1] == 8000
    np.testing.assert_allclose(found, audio.to_mono(expected)[0], atol=1e-3)


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="there is no such file"):
        FileSource(tmp_path / "gone.wav", 8000, 160)


def test_a_pipe_gives_what_there_is_without_waiting_for_more() -> None:
    reads, writes = os.pipe()
    with open(reads, "rb") as file, open(writes, "wb", buffering=0) as pipe:
        source = PipeSource(file, 8000, Pcm(8000))
        assert source.read().size == 0  # type: ignore[union-attr]
        wave = np.arange(100, dtype="<i2")
        pipe.write(wave.tobytes())
        found = source.read()
        while found is not None and not found.size:
            found = source.read()
        np.testing.assert_array_equal(found, wave / 32768)  # type: ignore[arg-type]
        pipe.close()
        while (rest := source.read()) is not None:
            assert not rest.size
        assert source.read() is None


@pytest.mark.parametrize("rate", [8000, 16000, 11025])
def test_pipes_are_resampled_as_files_are(rate: int) -> None:
    file = io.BytesIO()
    audio.write_wav(file, noise(rate), rate)
    expected = resample(np.rint(noise(rate) * 32768) / np.float32(32768), rate, 8000)
    found = everything(PipeSource(io.BytesIO(file.getvalue()), 8000, None))
    np.testing.assert_allclose(found, expected[0], atol=1e-6)


def test_what_a_pipe_lacks_is_told_where_it_is_read() -> None:
    source = PipeSource(io.BytesIO(b"no sound at all"), 8000, None)
    with pytest.raises(AudioError, match="is no WAV file; --raw HZ"):
        everything(source)
    assert source.read() is None


def test_a_thread_that_waits_for_a_pipe_does_not_keep_the_program() -> None:
    reads, writes = os.pipe()
    with open(reads, "rb") as file, open(writes, "wb"):
        PipeSource(file, 8000, Pcm(8000))
        assert all(t.daemon for t in threading.enumerate() if t is not threading.main_thread())


@pytest.mark.parametrize("rate", [8000, 48000])
def test_a_microphone_is_resampled(rate: int) -> None:
    clock = Clock()
    times = np.arange(rate) / rate
    signal = (0.5 * np.sin(2 * np.pi * 440 * times)).astype(np.float32)
    device = SimulatedMicrophone(clock, signal, sample_rate=rate, block=rate // 100)
    source = Microphone(device, 8000)
    pieces = []
    while not device.ended:
        pieces.append(source.read())
        assert clock.now <= len(pieces) * PATIENCE
    found = np.concatenate(pieces)  # type: ignore[arg-type]
    expected = 0.5 * np.sin(2 * np.pi * 440 * np.arange(found.size) / 8000)
    assert found.size > 7900
    np.testing.assert_allclose(found[100:-100], expected[100:-100], atol=1e-3)


def test_a_gain_clips_at_full_scale() -> None:
    file = io.BytesIO()
    audio.write_wav(file, np.array([[0.25, 0.5, -0.75]], np.float32), 8000)
    source = Amplified(PipeSource(io.BytesIO(file.getvalue()), 8000, None), 6.0206)
    np.testing.assert_allclose(everything(source), [0.5, 1.0, -1.0], atol=1e-4)
    assert (source.name, source.overruns) == ("standard input", 0)
