import io
import os
import struct
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codec import audio
from codec.audio_writing import AudioWriter
from codec.codec import Codec
from codec.errors import AudioError, BitstreamError, SottoError
from codec.resampling import resampled_length
from infer import bitstream, files

Wav = Callable[..., Path]


def read_codes(path: Path) -> tuple[bitstream.Header, np.ndarray]:
    with open(path, "rb") as file:
        reader = bitstream.Reader(file, strict=True)
        blocks = [block.codes for block in reader.blocks() if block.codes is not None]
        return reader.header, np.concatenate(blocks, axis=2)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def pcm(wave: np.ndarray) -> np.ndarray:
    """The 16-bit samples of a wave that is read, or is to be written."""
    return np.clip(np.rint(np.atleast_2d(wave) * 32768.0), -32768, 32767).astype(int)


def float_wav(path: Path, samples: list[float], sample_rate: int = 8000) -> Path:
    body = struct.pack(f"<{len(samples)}f", *samples)
    form = struct.pack("<HHIIHH", 3, 1, sample_rate, 4 * sample_rate, 4, 32)
    chunks = b"fmt " + struct.pack("<I", 16) + form + b"data" + struct.pack("<I", len(body)) + body
    path.write_bytes(b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks)
    return path


@pytest.fixture
def encoded(codec: Codec, wav: Wav, tmp_path: Path) -> Path:
    """Ten seconds and a bit, at the level they have: 10 blocks of 200 frames and one of 1."""
    source = wav("in.wav", 80_030)
    files.encode_file(codec, source, tmp_path / "in.sc", n_quantizers=3, target_lufs=None)
    source.unlink()
    return tmp_path / "in.sc"


def test_a_file_there_and_back_is_what_the_model_makes_of_it(
    codec: Codec, wav: Wav, tmp_path: Path
) -> None:
    source, target, decoded = wav("in.wav", 8030), tmp_path / "in.sc", tmp_path / "out.wav"
    done = files.encode_file(codec, source, target, n_quantizers=3, target_lufs=None)
    back = files.decode_file(codec, target, decoded)

    wave = audio.read(source)[0][0]
    codes = codec.encode(wave, 3)
    header, stored = read_codes(target)
    assert (header.frames, header.n_quantizers, header.bits) == (201, 3, 6)
    assert (header.fingerprint, header.sample_rate, header.hop_length) == (
        codec.fingerprint,
        8000,
        40,
    )
    assert (header.source_rate, header.source_channels, header.source_samples) == (8000, 1, 8030)
    np.testing.assert_array_equal(stored[0], codes.numpy())
    written, rate = audio.read(decoded)
    assert rate == 8000 and written.shape == (1, 8030)
    np.testing.assert_array_equal(pcm(written), pcm(codec.decode(codes, 8030).numpy()))

    assert (done.frames, done.n_quantizers, done.seconds) == (201, 3, 8030 / 8000)
    assert done.kbps == pytest.approx(3.6) and not done.warnings
    assert done.source_bytes == source.stat().st_size
    assert done.target_bytes == target.stat().st_size
    assert (back.frames, back.seconds) == (201, 8030 / 8000)
    assert back.target_bytes == decoded.stat().st_size
    assert names(tmp_path) == ["in.sc", "in.wav", "out.wav"]


def test_fewer_codebooks_make_a_smaller_file_of_the_first_codes(
    codec: Codec, wav: Wav, tmp_path: Path
) -> None:
    source = wav("in.wav", 4000)
    for n_quantizers in (1, 2, 4):
        target = tmp_path / f"{n_quantizers}.sc"
        files.encode_file(codec, source, target, n_quantizers=n_quantizers)
    full = read_codes(tmp_path / "4.sc")[1]
    np.testing.assert_array_equal(read_codes(tmp_path / "2.sc")[1], full[:, :2])
    np.testing.assert_array_equal(read_codes(tmp_path / "1.sc")[1], full[:, :1])


def test_stereo_is_mixed_down_or_kept(codec: Codec, wav: Wav, tmp_path: Path) -> None:
    source = wav("in.wav", 4000, channels=2)
    left, right = audio.read(source)[0]
    for channels, waves in (("mono", [(left + right) / 2]), ("keep", [left, right])):
        target = tmp_path / f"{channels}.sc"
        files.encode_file(
            codec, source, target, n_quantizers=4, channels=channels, target_lufs=None
        )
        expected = np.stack([codec.encode(wave).numpy() for wave in waves])
        header, stored = read_codes(target)
        assert header.channels == len(waves) and header.source_channels == 2
        np.testing.assert_array_equal(stored, expected)
        back = tmp_path / f"{channels}.wav"
        files.decode_file(codec, target, back)
        assert audio.read(back)[0].shape == (len(waves), 4000)


@pytest.mark.parametrize("samples", [1, 39, 40, 41, 799, 12_345])
@pytest.mark.parametrize(
    ("rate", "channels"), [(8000, 1), (44_100, 2), (11_025, 1), (6000, 3)], ids=str
)
def test_the_length_comes_back_exactly(
    codec: Codec, wav: Wav, tmp_path: Path, samples: int, rate: int, channels: int
) -> None:
    source = wav("in.wav", samples, sample_rate=rate, channels=channels)
    target = tmp_path / "in.sc"
    if resampled_length(samples, rate, 8000) == 0:
        pytest.skip("less than a sample at the model's rate")
    files.encode_file(codec, source, target, n_quantizers=1)
    files.decode_file(codec, target, tmp_path / "model.wav")
    files.decode_file(codec, target, tmp_path / "restored.wav", restore=True)
    wave, its_rate = audio.read(tmp_path / "model.wav")
    assert (wave.shape, its_rate) == ((1, resampled_length(samples, rate, 8000)), 8000)
    wave, its_rate = audio.read(tmp_path / "restored.wav")
    assert (wave.shape, its_rate) == ((channels, samples), rate)


@pytest.mark.parametrize("ending", ["wav", "flac", "mp3", "m4a", "ogg", "opus"])
def test_every_format_goes_in_and_out(codec: Codec, tmp_path: Path, ending: str) -> None:
    noise = np.random.default_rng(2).uniform(-0.3, 0.3, (1, 9000)).astype(np.float32)
    source = tmp_path / f"in.{ending}"
    with AudioWriter(source, sample_rate=8000, channels=1) as writer:
        writer.write(noise)
    done = files.encode_file(codec, source, tmp_path / "in.sc", n_quantizers=4)
    assert done.seconds == pytest.approx(9000 / 8000, abs=1e-4)
    back = files.decode_file(codec, tmp_path / "in.sc", tmp_path / f"out.{ending}", restore=True)
    assert back.seconds == pytest.approx(9000 / 8000, abs=1e-4)
    assert audio.read(tmp_path / f"out.{ending}", sample_rate=8000)[0].shape == (1, 9000)


def test_another_format_with_the_same_samples_gives_the_same_file(
    codec: Codec, wav: Wav, tmp_path: Path
) -> None:
    source = wav("in.wav", 4000)
    audio.write_flac(tmp_path / "in.flac", *audio.read(source))
    files.encode_file(codec, source, tmp_path / "wav.sc", n_quantizers=4)
    files.encode_file(codec, tmp_path / "in.flac", tmp_path / "flac.sc", n_quantizers=4)
    assert (tmp_path / "wav.sc").read_bytes() == (tmp_path / "flac.sc").read_bytes()


@given(st.data())
@settings(deadline=None, max_examples=12)
def test_a_stretch_is_to_the_bit_that_of_the_whole(codec: Codec, data: st.DataObject) -> None:
    frames = data.draw(st.integers(1, 2000))
    begin = data.draw(st.integers(0, frames * 40 - 1))
    end = data.draw(st.integers(begin + 1, frames * 40 + 100))
    codes = np.random.default_rng(frames).integers(0, 64, (2, frames))
    file = io.BytesIO()
    header = bitstream.Header(1, None, 2, 6, codec.fingerprint, 8000, 40, source_rate=8000)
    writer = bitstream.Writer(file, header)
    writer.write(codes[None])
    writer.finish(source_samples=frames * 40 - 7 * (frames > 1))
    samples = frames * 40 - 7 * (frames > 1)
    whole = pcm(codec.decode(codes).numpy())[:, :samples]
    if begin >= samples:
        return
    file.seek(0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "out.wav"
        files.decode_file(codec, file, path, start=begin / 8000, stop=end / 8000)
        stretch, _ = audio.read(path)
    np.testing.assert_array_equal(pcm(stretch), whole[:, begin : min(end, samples)])


def test_a_stretch_that_is_not_there_is_refused(
    codec: Codec, encoded: Path, tmp_path: Path
) -> None:
    with pytest.raises(BitstreamError, match=r"ends at 10\.00 s"):
        files.decode_file(codec, encoded, tmp_path / "out.wav", start=10.1)
    with pytest.raises(SottoError, match="from 3 s to 2 s"):
        files.decode_file(codec, encoded, tmp_path / "out.wav", start=3, stop=2)
    assert names(tmp_path) == ["in.sc"]


def test_another_model_is_refused_saying_which_one_is_needed(
    codec: Codec, make_codec: Callable[[int], Codec], encoded: Path, tmp_path: Path
) -> None:
    other = make_codec(1)
    with pytest.raises(BitstreamError) as caught:
        files.decode_file(other, encoded, tmp_path / "out.wav")
    assert f"encoded with model {codec.fingerprint}" in str(caught.value)
    assert f"this model is {other.fingerprint}" in str(caught.value)
    assert names(tmp_path) == ["in.sc"]


@pytest.mark.parametrize(
    ("codes", "bits", "message"),
    [
        pytest.param(np.zeros((5, 2), int), 6, "5 codebooks of 6 bits", id="too-many-codebooks"),
        pytest.param(np.zeros((4, 2), int), 7, "4 codebooks of 7 bits", id="other-bits"),
        pytest.param(np.zeros((4, 0), int), 6, "no frames", id="no-frames"),
    ],
)
def test_codes_that_the_model_cannot_have_made_are_refused(
    codec: Codec, tmp_path: Path, codes: np.ndarray, bits: int, message: str
) -> None:
    with open(tmp_path / "x.sc", "wb") as file:
        bitstream.write(file, codes, bits=bits, fingerprint=codec.fingerprint)
    with pytest.raises(BitstreamError, match=rf"x\.sc .*{message}"):
        files.decode_file(codec, tmp_path / "x.sc", tmp_path / "out.wav")
    assert names(tmp_path) == ["x.sc"]


def test_version_0_decodes_to_whole_frames_and_has_nothing_to_restore(
    codec: Codec, tmp_path: Path
) -> None:
    codes = np.random.default_rng(3).integers(0, 64, (4, 500))
    with open(tmp_path / "x.sc", "wb") as file:
        bitstream.write(file, codes, bits=6, fingerprint=codec.fingerprint)
    done = files.decode_file(codec, tmp_path / "x.sc", tmp_path / "out.wav", restore=True)
    assert "not restored" in done.warnings[0]
    np.testing.assert_array_equal(
        pcm(audio.read(tmp_path / "out.wav")[0]), pcm(codec.decode(codes).numpy())
    )


@pytest.mark.parametrize(
    "samples",
    [
        pytest.param([], id="no-samples"),
        pytest.param([0.1] * 500 + [float("nan")] + [0.1] * 500, id="nan"),
        pytest.param([0.1] * 500 + [float("inf")] + [0.1] * 500, id="infinite"),
    ],
)
@pytest.mark.parametrize("target_lufs", [None, -23.0])
def test_audio_that_cannot_be_coded_is_named_and_nothing_is_written(
    codec: Codec, tmp_path: Path, samples: list[float], target_lufs: float | None
) -> None:
    source = float_wav(tmp_path / "bad.wav", samples)
    with pytest.raises(AudioError, match=r"bad\.wav"):
        files.encode_file(
            codec, source, tmp_path / "bad.sc", n_quantizers=4, target_lufs=target_lufs
        )
    assert names(tmp_path) == ["bad.wav"]


def test_a_float_file_as_such_is_fine(codec: Codec, tmp_path: Path) -> None:
    source = float_wav(tmp_path / "good.wav", [0.1] * 1001)
    done = files.encode_file(codec, source, tmp_path / "good.sc", n_quantizers=4)
    assert done.frames == 26


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param({"n_quantizers": 0}, "1 to 4", id="no-codebooks"),
        pytest.param({"n_quantizers": 5}, "1 to 4", id="too-many-codebooks"),
        pytest.param({"n_quantizers": 4, "compact": True}, "no probability tables", id="tables"),
        pytest.param({"n_quantizers": 4, "block_seconds": 0}, "blocks of 0 s", id="no-block"),
        pytest.param({"n_quantizers": 4, "block_seconds": 1e9}, "blocks of", id="endless-block"),
        pytest.param({"n_quantizers": 4, "block_seconds": float("nan")}, "blocks of", id="nan"),
    ],
)
def test_what_cannot_be_written_is_refused(
    codec: Codec, wav: Wav, tmp_path: Path, options: dict[str, float], message: str
) -> None:
    with pytest.raises(SottoError, match=message):
        files.encode_file(codec, wav("in.wav", 800), tmp_path / "x.sc", **options)  # type: ignore
    assert names(tmp_path) == ["in.wav"]


def test_blocks_last_as_long_as_asked_for(codec: Codec, wav: Wav, tmp_path: Path) -> None:
    target = tmp_path / "in.sc"
    files.encode_file(codec, wav("in.wav", 8000), target, n_quantizers=1, block_seconds=0.25)
    assert read_codes(target)[0].block_frames == 50


def test_encoding_what_is_encoded_is_refused(codec: Codec, encoded: Path, tmp_path: Path) -> None:
    with pytest.raises(AudioError, match=r"in\.sc is encoded already"):
        files.encode_file(codec, encoded, tmp_path / "x.sc", n_quantizers=4)


@pytest.mark.parametrize("before", [None, b"what was there"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_a_write_that_fails_leaves_things_as_they_were(
    codec: Codec,
    wav: Wav,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: type[BaseException],
    before: bytes | None,
) -> None:
    source, target = wav("in.wav", 8000), tmp_path / "in.sc"
    if before is not None:
        target.write_bytes(before)
    there = names(tmp_path)

    def failing(self: object, codes: np.ndarray) -> None:
        raise error  # after the header went out

    monkeypatch.setattr(bitstream.Writer, "write", failing)
    with pytest.raises(error):
        files.encode_file(codec, source, target, n_quantizers=4)
    assert names(tmp_path) == there
    if before is not None:
        assert target.read_bytes() == before


def test_progress_goes_from_nothing_to_all(codec: Codec, wav: Wav, tmp_path: Path) -> None:
    source, target = wav("in.wav", 80_000), tmp_path / "in.sc"
    shares: list[float] = []
    files.encode_file(codec, source, target, n_quantizers=1, report=shares.append)
    assert shares == sorted(shares) and 0 < shares[0] < 0.2 and shares[-1] == 1.0
    back: list[float] = []
    files.decode_file(codec, target, tmp_path / "out.wav", report=back.append)
    assert back == sorted(back) and back[-1] == 1.0


@pytest.mark.skipif(os.name != "posix", reason="measures memory by POSIX means")
def test_memory_does_not_grow_with_the_length(codec: Codec, tmp_path: Path) -> None:
    """What Python and NumPy hold at their peak while coding 10 s, and 60 s."""
    import tracemalloc

    peaks = []
    for seconds in (10, 60):
        source, target = tmp_path / f"{seconds}.flac", tmp_path / f"{seconds}.sc"
        with AudioWriter(source, sample_rate=8000, channels=1) as writer:
            for second in range(seconds):
                noise = np.random.default_rng(second).uniform(-0.1, 0.1, (1, 8000))
                writer.write(noise.astype(np.float32))
        tracemalloc.start()
        files.encode_file(codec, source, target, n_quantizers=1)
        files.decode_file(codec, target, tmp_path / f"{seconds}.wav")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.3 * peaks[0] + 200_000


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_named_pipe_is_read_once(codec: Codec, wav: Wav, tmp_path: Path) -> None:
    source, pipe = wav("in.wav", 8030), tmp_path / "pipe"
    os.mkfifo(pipe)
    feeder = threading.Thread(target=lambda: pipe.write_bytes(source.read_bytes()))
    feeder.start()
    files.encode_file(codec, pipe, tmp_path / "pipe.sc", n_quantizers=2)
    feeder.join()
    files.encode_file(codec, source, tmp_path / "file.sc", n_quantizers=2, target_lufs=None)
    assert (tmp_path / "pipe.sc").read_bytes() == (tmp_path / "file.sc").read_bytes()


def test_a_single_sample_comes_back(codec: Codec, wav: Wav, tmp_path: Path) -> None:
    """At the model's rate it is less than half a sample."""
    coded, back = tmp_path / "in.sc", tmp_path / "out.wav"
    done = files.encode_file(codec, wav("in.wav", 1, sample_rate=44_100), coded, n_quantizers=2)
    assert done.frames == 1
    for restore, rate in ((True, 44_100), (False, 8000)):
        files.decode_file(codec, coded, back, restore=restore)
        assert audio.read(back)[0].shape == (1, 1) and audio.read(back)[1] == rate


def test_a_wav_file_that_is_cut_is_told(codec: Codec, wav: Wav, tmp_path: Path) -> None:
    """FFmpeg takes what there is for all."""
    source, target = wav("in.wav", 8000), tmp_path / "in.sc"
    assert not files.encode_file(codec, source, target, n_quantizers=2).warnings
    source.write_bytes(source.read_bytes()[:-6000])
    done = files.encode_file(codec, source, target, n_quantizers=2)
    assert done.seconds == 5000 / 8000
    assert done.warnings == (f"{source}: cut: 6,000 bytes of its samples are missing",)
    before = target.read_bytes()
    with pytest.raises(AudioError, match="6,000 bytes"):
        files.encode_file(codec, source, target, n_quantizers=2, strict=True)
    assert target.read_bytes() == before
