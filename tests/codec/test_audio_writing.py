"""Writing audio files: lengths, rates, pipes, failures."""

import errno
import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codec import audio
from codec.audio_writing import WRITABLE, AudioWriter, writable_rate, write_flac, write_wav
from codec.errors import AudioError

RATE = 16000
ROOT = Path(__file__).parents[2]
LOSSY = [".mp3", ".m4a", ".ogg", ".opus"]


class Pipe:
    """Takes bytes, at most so many at a time, and can do nothing else."""

    def __init__(self, most: int = 1000) -> None:
        self.taken = bytearray()
        self.most = most

    def write(self, data: memoryview) -> int:
        self.taken += data[: self.most]
        return len(data[: self.most])


class Full(io.BytesIO):
    """A disk with room for so many bytes."""

    name = "full"
    room = 0

    def write(self, data: memoryview) -> int:  # type: ignore[override]
        if self.tell() + len(data) > self.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(data)


def sound(samples: int, rate: int = RATE, channels: int = 1) -> np.ndarray:
    """A sweep that lies at no other time alike, so that a shift of it is noticed."""
    time = np.arange(samples) / rate
    phase = [2 * np.pi * (150 + 60 * c + 100 * time) * time for c in range(channels)]
    return np.stack([0.3 * np.sin(one) for one in phase]).astype(np.float32)


def write(target: object, wave: np.ndarray, rate: int, cut: int = 3001, **keys: object) -> None:
    with AudioWriter(target, sample_rate=rate, channels=wave.shape[0], **keys) as writer:  # type: ignore[arg-type]
        for begin in range(0, wave.shape[1], cut):
            writer.write(wave[:, begin : begin + cut])
    assert writer.samples == wave.shape[1]


@pytest.mark.parametrize("ending", WRITABLE)
@pytest.mark.parametrize("rate", [8000, 12345, 16000, 22050, 44100, 48000])
@pytest.mark.parametrize("samples", [47, 5000, 20077])
def test_the_length_comes_back_exactly(
    ending: str, rate: int, samples: int, tmp_path: Path
) -> None:
    wave = sound(samples, rate)
    path = tmp_path / f"a{ending}"
    write(path, wave, rate)
    found, _ = audio.read(path, sample_rate=rate)
    assert found.shape == wave.shape
    info = audio.probe(path)
    assert info.samples is not None and abs(info.samples / info.sample_rate - samples / rate) < 1e-4
    if samples > 5000:  # and nothing is shifted
        middle = slice(3000, -3000)
        error = np.square(found - wave)[:, middle].mean()
        assert error < 0.02 * np.square(wave)[:, middle].mean()


@pytest.mark.parametrize("samples", [1, 30, 576 + 13])
def test_mp3_fills_a_nearly_empty_last_frame(samples: int, tmp_path: Path) -> None:
    write(tmp_path / "a.mp3", sound(samples), RATE)
    assert audio.read(tmp_path / "a.mp3")[0].shape[1] == samples - samples % 576 + 47


@pytest.mark.parametrize("ending", [".flac", ".ogg", ".opus"])
def test_a_pipe_carries_the_exact_length(ending: str) -> None:
    pipe = Pipe()
    wave = sound(20077, channels=2)
    write(pipe, wave, RATE, format=ending)
    found, _ = audio.read(io.BytesIO(bytes(pipe.taken)), sample_rate=RATE)
    assert found.shape == wave.shape


def test_mp3_through_a_pipe_is_longer_by_delay_and_padding() -> None:
    pipe = Pipe()
    write(pipe, sound(20077), RATE, format="mp3")
    found, _ = audio.read(io.BytesIO(bytes(pipe.taken)))
    assert 20077 + 1105 <= found.shape[1] <= 20077 + 1105 + 1199


def test_m4a_to_a_pipe_is_refused() -> None:
    pipe = Pipe()
    with pytest.raises(AudioError, match="m4a cannot be written to a pipe"):
        write(pipe, sound(100), RATE, format="m4a")
    assert not pipe.taken


@pytest.mark.parametrize("ending", WRITABLE)
@settings(max_examples=5, deadline=None)
@given(cut=st.integers(1, 9000), channels=st.integers(1, 2))
def test_how_it_is_cut_makes_no_difference(ending: str, cut: int, channels: int) -> None:
    wave = sound(9000, 22050, channels)
    whole, pieces = io.BytesIO(), io.BytesIO()
    write(whole, wave, 22050, cut=9000, format=ending)
    write(pieces, wave, 22050, cut=max(cut, 90), format=ending)
    assert whole.getvalue() == pieces.getvalue()


@pytest.mark.parametrize(
    ("ending", "channels"),
    [(".wav", 11), (".flac", 1), (".flac", 5), (".flac", 8), (".m4a", 5), (".m4a", 8)]
    + [(ending, channels) for ending in (".ogg", ".opus") for channels in (1, 2, 3, 4, 6)],
)
def test_channels_keep_their_places(ending: str, channels: int, tmp_path: Path) -> None:
    rate, samples = 48000, 24000
    phase = 2 * np.pi * np.arange(samples) / rate
    wave = np.stack([0.2 * np.sin((300 + 170 * c) * phase) for c in range(channels)])
    write(tmp_path / f"a{ending}", wave, rate)
    found, _ = audio.read(tmp_path / f"a{ending}")
    assert found.shape == wave.shape
    spectrum = np.abs(
        found[:, 4000:-4000]
        @ np.exp(1j * np.outer(phase[4000:-4000], [300 + 170 * c for c in range(channels)]))
    )
    # The low-frequency channel of 5.1 and 7.1 loses all but the lowest in AAC.
    full = [c for c in range(channels) if not (ending == ".m4a" and c == 3 and channels in (6, 8))]
    np.testing.assert_array_equal(spectrum.argmax(axis=1)[full], full)


@pytest.mark.parametrize(("ending", "channels"), [(".mp3", 3), (".flac", 9), (".opus", 5)])
def test_too_many_channels_are_refused(ending: str, channels: int, tmp_path: Path) -> None:
    path = tmp_path / f"a{ending}"
    with pytest.raises(AudioError, match=f"is not written with {channels} channels"):
        write(path, sound(100, channels=channels), RATE)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("ending", "rate", "file_rate"),
    [
        (".wav", 12345, 12345),
        (".flac", 12345, 12345),
        (".mp3", 16000, 16000),
        (".mp3", 16001, 22050),
        (".mp3", 96000, 48000),
        (".m4a", 7000, 7350),
        (".m4a", 192000, 96000),
        (".opus", 16000, 16000),
        (".ogg", 44100, 48000),
        (".ogg", 96000, 48000),
    ],
)
def test_the_next_higher_rate_is_taken(ending: str, rate: int, file_rate: int) -> None:
    assert writable_rate(rate, ending) == file_rate
    file = io.BytesIO()
    write(file, sound(3000, rate), rate, format=ending)
    decoded = 48000 if ending in (".ogg", ".opus") else file_rate
    assert audio.probe(io.BytesIO(file.getvalue())).sample_rate == decoded


@pytest.mark.parametrize("bits", [16, 24])
@pytest.mark.parametrize("ending", [".wav", ".flac"])
def test_samples_survive_bit_for_bit(ending: str, bits: int, tmp_path: Path) -> None:
    top = 1 << (bits - 1)
    levels = np.random.default_rng(0).integers(-top, top, (2, 5000))
    levels[:, :2] = -top, top - 1
    wave = (levels / top).astype(np.float32)
    write(tmp_path / f"a{ending}", wave, RATE, bits=bits)
    np.testing.assert_array_equal(audio.read(tmp_path / f"a{ending}")[0], wave)


@pytest.mark.parametrize("whole", [write_wav, write_flac], ids=["wav", "flac"])
@pytest.mark.parametrize("channels", [1, 2])
def test_writing_a_whole_array(whole: object, channels: int, tmp_path: Path) -> None:
    levels = np.random.default_rng(0).integers(-32768, 32768, (channels, 10000))
    levels[:, :2] = -32768, 32767
    wave = (levels / 32768).astype(np.float32)
    whole(tmp_path / "a", wave, RATE)  # type: ignore[operator]
    found, rate = audio.read(tmp_path / "a")
    assert rate == RATE
    np.testing.assert_array_equal(found, wave)
    memory = io.BytesIO()
    whole(memory, wave, RATE)  # type: ignore[operator]
    assert memory.getvalue() == (tmp_path / "a").read_bytes()


def test_writing_clips_and_takes_one_dimension(tmp_path: Path) -> None:
    write_wav(tmp_path / "a.wav", np.array([2.0, -2.0], np.float32), RATE)
    found, _ = audio.read(tmp_path / "a.wav")
    np.testing.assert_allclose(found, [[1.0, -1.0]], atol=1e-4)


@pytest.mark.parametrize("ending", LOSSY)
def test_no_samples_make_a_file_all_the_same(ending: str, tmp_path: Path) -> None:
    write(tmp_path / f"a{ending}", np.zeros((1, 0), np.float32), RATE)
    assert [path.name for path in tmp_path.iterdir()] == [f"a{ending}"]


def test_a_file_object_is_written_from_where_it_stands_and_stays_open() -> None:
    for ending in WRITABLE:
        file, alone = io.BytesIO(), io.BytesIO()
        file.write(b"before")
        write(file, sound(3000), RATE, format=ending)
        write(alone, sound(3000), RATE, format=ending)
        assert file.getvalue() == b"before" + alone.getvalue()


@pytest.mark.parametrize("name", ["a.txt", "a", "a.aac"])
def test_other_endings_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(AudioError, match=r"cannot write .*; use one of \.wav \.flac"):
        AudioWriter(tmp_path / name, sample_rate=RATE, channels=1)


def test_senseless_arguments_are_refused(tmp_path: Path) -> None:
    for keys in ({"sample_rate": 0, "channels": 1}, {"sample_rate": RATE, "channels": 0}):
        with pytest.raises(ValueError, match="at least 1"):
            AudioWriter(tmp_path / "a.wav", **keys)
    for ending, bits in ((".wav", 8), (".flac", 32), (".mp3", 24)):
        with pytest.raises(ValueError, match=f"bits of .*, got {bits}"):
            AudioWriter(tmp_path / f"a{ending}", sample_rate=RATE, channels=1, bits=bits)
    writer = AudioWriter(tmp_path / "a.wav", sample_rate=RATE, channels=2)
    with pytest.raises(ValueError, match="inside its with block"):
        writer.write(np.zeros((2, 1), np.float32))
    with writer, pytest.raises(ValueError, match=r"expected \(2, n\) samples, got \(1, 7\)"):
        writer.write(np.zeros((1, 7), np.float32))


@pytest.mark.parametrize("ending", WRITABLE)
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_exception_in_the_block_leaves_things_as_they_were(
    ending: str, error: type[BaseException], tmp_path: Path
) -> None:
    path = tmp_path / f"a{ending}"
    for before in (None, b"what was here"):
        if before is not None:
            path.write_bytes(before)
        with (
            pytest.raises(error),
            AudioWriter(path, sample_rate=RATE, channels=1) as writer,
        ):
            writer.write(sound(50000))
            raise error
        assert [one.read_bytes() for one in tmp_path.iterdir()] == ([before] if before else [])


@pytest.mark.parametrize("ending", WRITABLE)
def test_the_name_appears_when_the_file_is_complete(ending: str, tmp_path: Path) -> None:
    path = tmp_path / "new folder" / f"a{ending}"
    with AudioWriter(path, sample_rate=RATE, channels=1) as writer:
        writer.write(sound(50000))
        assert not path.exists()
    assert [one.name for one in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinite_samples_are_refused(value: float, tmp_path: Path) -> None:
    wave = sound(1000)
    wave[0, 500] = value
    with pytest.raises(AudioError, match=r"a\.wav: the samples to be written are NaN or infinite"):
        write(tmp_path / "a.wav", wave, RATE)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("ending", WRITABLE)
@pytest.mark.parametrize("room", [0, 60, 4000, -1], ids=["none", "header", "some", "all but one"])
def test_a_full_disk_is_an_error(ending: str, room: int) -> None:
    wave = np.random.default_rng(0).uniform(-0.5, 0.5, (1, 60000)).astype(np.float32)
    file = Full()
    file.room = 10**9
    write(file, wave, RATE, format=ending)
    size = len(file.getvalue())
    file = Full()
    file.room = room % size
    with pytest.raises(AudioError, match=r"full: cannot be written \(No space left on device\)"):
        write(file, wave, RATE, format=ending)


@pytest.mark.parametrize("ending", WRITABLE)
def test_an_interrupt_while_writing_is_not_lost(ending: str) -> None:
    class Interrupted(io.BytesIO):
        def write(self, data: memoryview) -> int:  # type: ignore[override]
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(Interrupted(), sound(60000), RATE, format=ending)


LIMITED = """
import resource, sys
import numpy as np
from codec.audio_writing import AudioWriter
from codec.errors import AudioError

resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
noise = np.random.default_rng(0).uniform(-1, 1, (1, 16000)).astype(np.float32)
for path in sys.argv[1:]:
    try:
        with AudioWriter(path, sample_rate=16000, channels=1) as writer:
            for _ in range(10):
                writer.write(noise)
    except AudioError as error:
        print(error)
"""


def test_files_that_grow_too_large_leave_nothing(tmp_path: Path) -> None:
    pytest.importorskip("resource", reason="limits the size of files as POSIX can")
    paths = [str(tmp_path / f"a{ending}") for ending in WRITABLE]
    run = subprocess.run(
        [sys.executable, "-c", LIMITED, *paths],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    assert run.stdout.splitlines() == [
        f"{path}: cannot be written (File too large)" for path in paths
    ]
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
@pytest.mark.parametrize("ending", [".wav", ".flac", ".mp3", ".ogg"])
@pytest.mark.parametrize("samples", [0, 10, 50000])
def test_dev_full(ending: str, samples: int) -> None:
    with (
        open("/dev/full", "wb", buffering=0) as file,
        pytest.raises(AudioError, match=r"/dev/full: cannot be written \(No space left"),
    ):
        write(file, sound(samples), RATE, format=ending)


def test_an_unwritable_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"no folder")
    with pytest.raises(AudioError, match=r"a\.wav: cannot be written"):
        write(tmp_path / "file" / "a.wav", sound(10), RATE)


MEASURE = """
import resource, sys
import numpy as np
from codec.audio_writing import AudioWriter

class Nowhere:
    def write(self, data):
        return len(data)

minute = np.zeros((1, 480_000), np.float32)
for minutes in 5, 30:
    with AudioWriter(Nowhere(), sample_rate=8000, channels=1, format=sys.argv[1]) as writer:
        for _ in range(minutes):
            writer.write(minute)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.parametrize("ending", [".wav", ".flac"])
def test_half_an_hour_needs_no_more_memory_than_five_minutes(ending: str) -> None:
    pytest.importorskip("resource", reason="asks the operating system how much memory was used")
    run = subprocess.run(
        [sys.executable, "-c", MEASURE, ending],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    five_minutes, half_an_hour = map(int, run.stdout.split())
    assert half_an_hour < 1.1 * five_minutes
