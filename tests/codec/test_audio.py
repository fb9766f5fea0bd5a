"""Reading, seeking and writing audio files."""

import io
import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from codec import audio
from codec.errors import AudioError

RATE = 16000

FORMATS = {
    "wav-u8": ("wav", "pcm_u8", RATE, 1 / 127),
    "wav-16": ("wav", "pcm_s16le", RATE, 1e-4),
    "wav-24": ("wav", "pcm_s24le", 44100, 1e-6),
    "wav-32": ("wav", "pcm_s32le", 8000, 1e-6),
    "wav-float": ("wav", "pcm_f32le", 22050, 1e-6),
    "wav-double": ("wav", "pcm_f64le", 22050, 1e-6),
    "aiff": ("aiff", "pcm_s16be", 11025, 1e-4),
    "flac": ("flac", "flac", 48000, 1e-4),
    "mp3": ("mp3", "libmp3lame", 44100, 0.1),
    "ogg-opus": ("ogg", "libopus", 48000, 0.1),
    "m4a": ("ipod", "aac", 48000, 0.1),
}
EXACT = [name for name in FORMATS if name.startswith("wav") or name in ("aiff", "flac")]


def tone(samples: int, rate: int, channels: int = 1) -> np.ndarray:
    time = np.arange(samples) / rate
    sweep = 200 + 150 * np.sin(2 * np.pi * 0.7 * time)
    return np.stack([0.3 * np.sin(2 * np.pi * (sweep + 40 * c) * time) for c in range(channels)])


def encode(path: Path, wave: np.ndarray, container: str, codec: str, rate: int) -> Path:
    layout = {1: "mono", 2: "stereo"}[wave.shape[0]]
    with av.open(str(path), "w", format=container) as out:
        stream = out.add_stream(codec, rate=rate, layout=layout)
        convert = av.AudioResampler(stream.codec_context.format, layout, rate)
        plane = np.ascontiguousarray(wave, np.float32)
        frame = av.AudioFrame.from_ndarray(plane, format="fltp", layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
        for one in [*convert.resample(frame), *convert.resample(None)]:
            out.mux(stream.encode(one))
        out.mux(stream.encode(None))
    return path


def float_wav(path: Path, samples: np.ndarray) -> Path:
    data = samples.astype("<f4").tobytes()
    form = struct.pack("<IHHIIHH", 16, 3, 1, RATE, 4 * RATE, 4, 32)
    head = b"RIFF" + struct.pack("<I", 36 + len(data)) + b"WAVEfmt " + form
    path.write_bytes(head + b"data" + struct.pack("<I", len(data)) + data)
    return path


@pytest.fixture(params=FORMATS, ids=str)
def written(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, np.ndarray, int, float]:
    container, codec, rate, error = FORMATS[request.param]
    wave = tone(2 * rate + 77, rate, channels=2)
    return encode(tmp_path / "a.any", wave, container, codec, rate), wave, rate, error


def test_any_format_and_rate_is_read(written: tuple[Path, np.ndarray, int, float]) -> None:
    path, wave, rate, error = written
    found, found_rate = audio.read(path)
    assert found_rate == rate and found.dtype == np.float32 and found.shape[0] == 2
    assert abs(found.shape[1] - wave.shape[1]) <= 2048  # AAC ends in a whole frame
    middle = slice(rate // 2, 3 * rate // 2)
    assert np.abs(found[:, middle] - wave[:, middle]).max() < error


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


def test_binary_files_are_read(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.flac", tone(3000, RATE), "flac", "flac", RATE)
    found, _ = audio.read(io.BytesIO(path.read_bytes()), start=0.05)
    np.testing.assert_array_equal(found, audio.read(path)[0][:, 800:])


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


@pytest.mark.parametrize("cut", ["flac", "wav-16", "mp3"])
def test_a_cut_file_gives_what_there_is(cut: str, tmp_path: Path) -> None:
    container, codec, rate, _ = FORMATS[cut]
    path = encode(tmp_path / "a", tone(2 * rate, rate), container, codec, rate)
    whole, _ = audio.read(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    part, _ = audio.read(path)
    assert 0 < part.shape[1] < whole.shape[1]
    np.testing.assert_array_equal(part[:, :2000], whole[:, :2000])


def test_damage_inside_is_passed_over_and_told(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mp3", tone(88200, 44100), "mp3", "libmp3lame", 44100)
    data = bytearray(path.read_bytes())
    data[9000:12000] = np.random.default_rng(0).bytes(3000)
    path.write_bytes(data)
    with audio.AudioReader(path) as reader:
        assert reader.read().shape[1] > 44100
        assert reader.damaged > 0


def _text(path: Path) -> None:
    path.write_text("this is a letter and no sound\n" * 50)


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _noise(path: Path) -> None:
    path.write_bytes(np.random.default_rng(0).bytes(9000))


def _playlist(path: Path) -> None:
    path.write_text("#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/x.mp3\n")


def _video(path: Path) -> None:
    with av.open(str(path), "w", format="mp4") as out:
        stream = out.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        out.mux(stream.encode(av.VideoFrame(32, 32, "yuv420p")))
        out.mux(stream.encode(None))


@pytest.mark.parametrize("make", [_text, _empty, _noise, _playlist, _video])
@pytest.mark.parametrize("suffix", [".mp3", ".wav", ".txt"])
def test_what_is_no_audio_ends_in_one_line_that_names_it(
    make: object, suffix: str, tmp_path: Path
) -> None:
    path = tmp_path / f"thing{suffix}"
    make(path)  # type: ignore[operator]
    for attempt in (audio.probe, audio.read):
        with pytest.raises(AudioError) as error:
            attempt(path)
        assert str(error.value).startswith(f"{path}: not an audio file that can be read")
        assert "\n" not in str(error.value)


def test_other_bad_input_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match=r"nope\.wav: there is no such file"):
        audio.read(tmp_path / "nope.wav")
    with pytest.raises(AudioError, match="is a folder"):
        audio.read(tmp_path)
    audio.write_wav(tmp_path / "zero.wav", np.zeros((1, 0), np.float32), RATE)
    with pytest.raises(AudioError, match=r"zero\.wav: holds no audio"):
        audio.read(tmp_path / "zero.wav")
    with pytest.raises(AudioError, match=r"zero\.wav: holds no audio"):
        list(audio.blocks(tmp_path / "zero.wav", sample_rate=RATE, block_samples=10))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinite_samples_are_refused(value: float, tmp_path: Path) -> None:
    samples = np.zeros(5000, np.float32)
    samples[3000] = value
    path = float_wav(tmp_path / "bad.wav", samples)
    with pytest.raises(AudioError, match=r"bad\.wav: holds NaN or infinite samples"):
        audio.read(path)
    with pytest.raises(AudioError, match="NaN or infinite"):
        list(audio.blocks(path, sample_rate=8000, block_samples=100))
    with pytest.raises(AudioError, match="NaN or infinite"):
        audio.write_wav(tmp_path / "out.wav", samples, RATE)
    assert not (tmp_path / "out.wav").exists()


@pytest.mark.parametrize("write", [audio.write_wav, audio.write_flac], ids=["wav", "flac"])
@pytest.mark.parametrize("channels", [1, 2])
def test_16_bit_samples_survive_writing_bit_for_bit(
    write: object, channels: int, tmp_path: Path
) -> None:
    levels = np.random.default_rng(0).integers(-32768, 32768, (channels, 10000))
    levels[:, :2] = -32768, 32767
    wave = (levels / 32768).astype(np.float32)
    write(tmp_path / "a", wave, RATE)  # type: ignore[operator]
    found, rate = audio.read(tmp_path / "a")
    assert rate == RATE
    np.testing.assert_array_equal(found, wave)
    memory = io.BytesIO()
    write(memory, wave, RATE)  # type: ignore[operator]
    assert memory.getvalue() == (tmp_path / "a").read_bytes()


def test_writing_clips_and_takes_one_dimension(tmp_path: Path) -> None:
    audio.write_wav(tmp_path / "a.wav", np.array([2.0, -2.0], np.float32), RATE)
    found, _ = audio.read(tmp_path / "a.wav")
    np.testing.assert_allclose(found, [[1.0, -1.0]], atol=1e-4)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.wav"
    audio.write_wav(path, np.zeros(10, np.float32), RATE)
    before = path.read_bytes()

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(AudioError, match=r"a\.wav: cannot be written \(No space left"):
        audio.write_wav(path, np.ones(10, np.float32), RATE)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]
