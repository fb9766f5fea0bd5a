"""Reading and seeking audio files, from paths, file objects and pipes."""

import io
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from codec import audio
from codec.errors import AudioError
from tests.support.sounds import (
    EXACT,
    FORMATS,
    OPTIONS,
    PADDED,
    RATE,
    Pipe,
    assert_much_alike,
    encode,
    float_wav,
    tone,
)

ROOT = Path(__file__).parents[2]


@pytest.fixture(params=FORMATS, ids=str)
def written(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, np.ndarray, int, float]:
    container, codec, rate, error = FORMATS[request.param]
    wave = tone(2 * rate + 77, rate, channels=2)
    options = OPTIONS.get(request.param)
    path = encode(tmp_path / f"a.{request.param}", wave, container, codec, rate, options=options)
    return path, wave, rate, error


def test_any_format_and_rate_is_read(written: tuple[Path, np.ndarray, int, float]) -> None:
    path, wave, rate, error = written
    found, found_rate = audio.read(path)
    assert found_rate == rate and found.dtype == np.float32 and found.shape[0] == 2
    assert 0 <= found.shape[1] - wave.shape[1] <= PADDED.get(path.suffix[1:], 0)
    if path.suffix == ".aac":  # raw AAC has no place for the encoder's delay either
        found = found[:, 1024:]
    middle = slice(rate // 2, 3 * rate // 2)
    assert np.abs(found[:, middle] - wave[:, middle]).max() < error


def test_a_pipe_gives_what_the_file_gives(
    written: tuple[Path, np.ndarray, int, float],
) -> None:
    path, _, rate, _ = written
    whole, _ = audio.read(path)
    piped, piped_rate = audio.read(Pipe(path.read_bytes()))  # type: ignore[arg-type]
    assert piped_rate == rate
    if path.suffix == ".mp3":  # the padding at its end is cut off only where FFmpeg can seek
        assert 0 <= piped.shape[1] - whole.shape[1] <= 2 * 1152
        piped = piped[:, : whole.shape[1]]
    np.testing.assert_array_equal(piped, whole)
    part, _ = audio.read(Pipe(path.read_bytes()), start=0.7, seconds=0.5)  # type: ignore[arg-type]
    np.testing.assert_array_equal(part, audio.read(path, start=0.7, seconds=0.5)[0])


def test_a_part_equals_the_slice_of_the_whole(
    written: tuple[Path, np.ndarray, int, float],
) -> None:
    path, _, rate, _ = written
    whole, _ = audio.read(path)
    part, _ = audio.read(path, start=0.7, seconds=0.5)
    first = round(0.7 * rate)
    np.testing.assert_array_equal(part, whole[:, first : first + round(0.5 * rate)])


def test_a_resampled_part_equals_the_slice_of_the_resampled_whole(
    written: tuple[Path, np.ndarray, int, float],
) -> None:
    path, _, _, _ = written
    whole, rate = audio.read(path, sample_rate=12000)
    part, _ = audio.read(path, sample_rate=12000, start=0.7, seconds=0.5)
    assert rate == 12000
    np.testing.assert_array_equal(part, whole[:, 8400:14400])


@pytest.mark.parametrize("name", EXACT)
def test_probe_knows_lengths(name: str, tmp_path: Path) -> None:
    container, codec, rate, _ = FORMATS[name]
    path = encode(tmp_path / "a", tone(rate + 5, rate), container, codec, rate)
    info = audio.probe(path)
    assert (info.sample_rate, info.channels, info.samples) == (rate, 1, rate + 5)
    assert info.seconds == pytest.approx((rate + 5) / rate) and info.seeks_exactly


@pytest.mark.parametrize("name", ["mp3", "ogg-opus"])
def test_probe_leaves_out_what_the_decoder_leaves_out(name: str, tmp_path: Path) -> None:
    container, codec, rate, _ = FORMATS[name]
    path = encode(tmp_path / "a", tone(rate + 500, rate), container, codec, rate)
    assert audio.probe(path).samples == rate + 500 == audio.read(path)[0].shape[1]


@pytest.mark.parametrize("name", ["wav-16", "flac", "mp3", "ogg-opus"])
def test_a_far_seek_lands_where_it_should(name: str, tmp_path: Path) -> None:
    container, codec, *_ = FORMATS[name]
    rate = 48000 if codec == "libopus" else RATE
    path = encode(tmp_path / "long", tone(64 * rate, rate), container, codec, rate)
    whole, _ = audio.read(path)
    with audio.AudioReader(path) as reader:
        first = 62 * rate + 123
        part = reader.read(first, 4000)
        position, _ = next(reader.pieces(first))
    assert position > 60 * rate  # it did not decode from the beginning
    np.testing.assert_allclose(part, whole[:, first : first + 4000], atol=1e-3)


@pytest.mark.parametrize("rate", [RATE, 44100], ids=["same-rate", "resampled"])
@pytest.mark.parametrize("block", [1, 777, 10**6])
def test_blocks_join_to_the_whole(rate: int, block: int, tmp_path: Path) -> None:
    samples = 500 if block == 1 else 30000
    path = encode(tmp_path / "a.wav", tone(samples, rate, 2), "wav", "pcm_s16le", rate)
    blocks = list(audio.blocks(path, sample_rate=RATE, block_samples=block))
    assert all(piece.shape[1] == block for piece in blocks[:-1])
    whole, _ = audio.read(path, sample_rate=RATE)
    np.testing.assert_array_equal(np.concatenate(blocks, axis=1), whole)


def test_blocks_mix_before_they_resample(tmp_path: Path) -> None:
    wave = tone(9000, 44100, 2)
    path = encode(tmp_path / "a.wav", wave, "wav", "pcm_s16le", 44100)
    mixed = encode(tmp_path / "b.wav", wave.mean(axis=0, keepdims=True), "wav", "pcm_f32le", 44100)
    with audio.AudioReader(path) as reader:
        blocks = list(reader.blocks(sample_rate=RATE, block_samples=1000, channels=1))
    found = np.concatenate(blocks, axis=1)
    np.testing.assert_allclose(found, audio.read(mixed, sample_rate=RATE)[0], atol=1e-4)


def test_senseless_blocks_are_refused(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.wav", tone(900, RATE), "wav", "pcm_s16le", RATE)
    with audio.AudioReader(path) as reader, pytest.raises(ValueError, match="at least 1"):
        list(reader.blocks(block_samples=0))
    with audio.AudioReader(path) as reader, pytest.raises(ValueError, match="channels is 1"):
        list(reader.blocks(block_samples=10, channels=2))


def test_binary_files_are_read(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.flac", tone(3000, RATE), "flac", "flac", RATE)
    found, _ = audio.read(io.BytesIO(path.read_bytes()), start=0.05)
    np.testing.assert_array_equal(found, audio.read(path)[0][:, 800:])


def test_a_file_object_is_read_from_where_it_stands_and_stays_open(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.flac", tone(3000, RATE), "flac", "flac", RATE)
    file = io.BytesIO(b"something else" + path.read_bytes())
    file.seek(14)
    np.testing.assert_array_equal(audio.read(file)[0], audio.read(path)[0])
    assert not file.closed


@pytest.mark.parametrize("form", ["mp4", "matroska", "webm"])
@pytest.mark.parametrize("pipe", [False, True], ids=["file", "pipe"])
def test_the_sound_of_a_video(form: str, pipe: bool, tmp_path: Path) -> None:
    wave = tone(60000, 48000, 2)
    path = tmp_path / f"film.{form}"
    with av.open(str(path), "w", format=form) as out:
        pictures = out.add_stream("libvpx" if form == "webm" else "mpeg4", rate=10)
        pictures.width = pictures.height = 32
        pictures.pix_fmt = "yuv420p"
        sound = out.add_stream("aac" if form == "mp4" else "libopus", rate=48000, layout="stereo")
        for number in range(12):
            picture = av.VideoFrame(32, 32, "yuv420p")
            picture.pts, picture.time_base = number, Fraction(1, 10)
            out.mux(pictures.encode(picture))
            piece = np.ascontiguousarray(wave[:, number * 5000 :][:, :5000], np.float32)
            frame = av.AudioFrame.from_ndarray(piece, format="fltp", layout="stereo")
            frame.sample_rate = 48000
            frame.pts, frame.time_base = number * 5000, Fraction(1, 48000)
            out.mux(sound.encode(frame))
        out.mux(pictures.encode(None))
        out.mux(sound.encode(None))
    found, rate = audio.read(Pipe(path.read_bytes()) if pipe else path)  # type: ignore[arg-type]
    assert (rate, found.shape) == (48000, wave.shape)
    assert_much_alike(found, wave)


@pytest.mark.parametrize("channels", [3, 6, 8, 11], ids="{} channels".format)
@pytest.mark.parametrize("codec", ["pcm_s16le", "libopus"])
def test_any_number_of_channels(codec: str, channels: int, tmp_path: Path) -> None:
    rate = 48000
    wave = tone(rate, rate, channels).astype(np.float32)
    layout = f"{channels} channels"
    with av.open(str(tmp_path / "a.mka"), "w") as out:
        options = {"mapping_family": "255"} if codec == "libopus" else {}
        stream = out.add_stream(codec, rate=rate, layout=layout, options=options)
        packed = np.ascontiguousarray(wave.T).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(packed, format="flt", layout=layout)
        frame.sample_rate = rate
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    found, _ = audio.read(tmp_path / "a.mka")
    assert found.shape == wave.shape
    assert_much_alike(found, wave)


def test_reading_beyond_the_end_gives_what_there_is(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.wav", tone(RATE, RATE), "wav", "pcm_s16le", RATE)
    assert audio.read(path, start=0.75, seconds=5)[0].shape == (1, RATE // 4)
    with pytest.raises(AudioError, match=r"a\.wav: holds no audio from 2\.00 s on"):
        audio.read(path, start=2.0, seconds=1.0)


def test_float_files_are_clipped(tmp_path: Path) -> None:
    path = float_wav(tmp_path / "loud.wav", np.array([0.5, 3.0, -2.0]))
    np.testing.assert_array_equal(audio.read(path)[0], [[0.5, 1.0, -1.0]])


def test_mono_is_the_mean_of_the_channels() -> None:
    wave = np.array([[1, 0, -1], [0, 0, -1]], np.float32)
    np.testing.assert_array_equal(audio.to_mono(wave), [[0.5, 0, -1]])


MEASURE = """
import resource, struct, sys
from codec.audio import AudioReader

class Silence:
    def __init__(self, samples):
        form = struct.pack("<IHHIIHH", 16, 1, 1, 8000, 8000, 1, 8)
        self.head = b"RIFF" + struct.pack("<I", samples + 36) + b"WAVEfmt " + form
        self.head += b"data" + struct.pack("<I", samples)
        self.left = samples

    def read(self, size):
        if self.head:
            data, self.head = self.head[:size], self.head[size:]
            return data
        size = min(size, self.left)
        self.left -= size
        return bytes(size)

for minutes in 10, 600:
    with AudioReader(Silence(minutes * 480_000)) as reader:
        blocks = reader.blocks(block_samples=80_000)
        assert sum(block.shape[1] for block in blocks) == minutes * 480_000
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_ten_hours_need_no_more_memory_than_ten_minutes() -> None:
    pytest.importorskip("resource", reason="asks the operating system how much memory was used")
    run = subprocess.run(
        [sys.executable, "-c", MEASURE], capture_output=True, text=True, check=True, cwd=ROOT
    )
    ten_minutes, ten_hours = map(int, run.stdout.split())
    assert ten_hours < 1.1 * ten_minutes
