"""Audio files that are cut, damaged, foreign, or cannot be read."""

from pathlib import Path

import av
import numpy as np
import pytest

from codec import audio
from codec.errors import AudioError
from tests.support.sounds import FORMATS, RATE, Pipe, encode, float_wav, tone


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
    with audio.AudioReader(path) as reader:
        assert sum(block.shape[1] for block in reader.blocks(block_samples=500)) > 44100
        assert reader.damaged > 0


def test_a_file_that_changes_its_rate_midway_is_refused(tmp_path: Path) -> None:
    pieces = [
        encode(tmp_path / "piece.mp3", tone(rate, rate), "mp3", "libmp3lame", rate).read_bytes()
        for rate in (44100, 48000)
    ]
    path = tmp_path / "joined.mp3"
    path.write_bytes(b"".join(pieces))
    with pytest.raises(AudioError, match=r"joined\.mp3: changes from \d+ Hz.* midway"):
        audio.read(path)


class Breaks(Pipe):
    """A pipe that ends in an error, as a disk with a bad block or a lost share does."""

    def __init__(self, data: bytes, error: BaseException) -> None:
        super().__init__(data)
        self.error = error
        self.name = "broken"

    def read(self, size: int = -1) -> bytes:
        data = super().read(size)
        if not data:
            raise self.error
        return data


@pytest.mark.parametrize("name", ["wav-16", "mp3"])
def test_an_error_while_reading_is_told(name: str, tmp_path: Path) -> None:
    container, codec, rate, _ = FORMATS[name]
    path = encode(tmp_path / "a", tone(5 * rate, rate), container, codec, rate)
    half = path.read_bytes()[: path.stat().st_size // 2]
    with pytest.raises(AudioError, match=r"broken: cannot be read \(Input/output error\)"):
        audio.read(Breaks(half, OSError(5, "Input/output error")))  # type: ignore[arg-type]
    with pytest.raises(KeyboardInterrupt):
        audio.read(Breaks(half, KeyboardInterrupt()))  # type: ignore[arg-type]


@pytest.mark.parametrize("head", [0, 100], ids=["at once", "in the header"])
def test_an_error_before_the_first_sample_is_told(head: int, tmp_path: Path) -> None:
    path = encode(tmp_path / "a.wav", tone(900, RATE), "wav", "pcm_s16le", RATE)
    broken = Breaks(path.read_bytes()[:head], OSError(5, "Input/output error"))
    with pytest.raises(AudioError, match=r"broken: cannot be read \(Input/output error\)"):
        audio.read(broken)  # type: ignore[arg-type]


def test_no_other_file_is_opened(tmp_path: Path) -> None:
    encode(tmp_path / "secret.wav", tone(900, RATE), "wav", "pcm_s16le", RATE)
    for name, text in {
        "list.ffconcat": "ffconcat version 1.0\nfile secret.wav\n",
        "list.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:1,\nsecret.wav\n#EXT-X-ENDLIST\n",
    }.items():
        (tmp_path / name).write_text(text)
        with pytest.raises(AudioError, match="not an audio file that can be read"):
            audio.read(tmp_path / name)


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


def _unknown_codec(path: Path) -> None:
    float_wav(path, np.zeros(500))
    data = bytearray(path.read_bytes())
    data[20:22] = b"\xee\xee"
    path.write_bytes(data)


@pytest.mark.parametrize("make", [_text, _empty, _noise, _playlist, _video, _unknown_codec])
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
