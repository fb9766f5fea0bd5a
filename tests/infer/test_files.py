import errno
import os
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from codec import audio
from codec.codec import Codec
from codec.errors import AudioError, BitstreamError, SottoError
from infer import bitstream, files

Wav = Callable[..., Path]


def read_codes(path: Path) -> tuple[bitstream.Header, np.ndarray]:
    with open(path, "rb") as file:
        return bitstream.read(file)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def float_wav(path: Path, samples: list[float], sample_rate: int = 8000) -> Path:
    body = struct.pack(f"<{len(samples)}f", *samples)
    form = struct.pack("<HHIIHH", 3, 1, sample_rate, 4 * sample_rate, 4, 32)
    chunks = b"fmt " + struct.pack("<I", 16) + form + b"data" + struct.pack("<I", len(body)) + body
    path.write_bytes(b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks)
    return path


def test_a_file_there_and_back_is_what_the_model_makes_of_it(
    codec: Codec, wav: Wav, tmp_path: Path
) -> None:
    source, encoded, decoded = wav("in.wav", 8030), tmp_path / "in.sc", tmp_path / "out.wav"
    done = files.encode_file(codec, source, encoded, n_quantizers=3)
    back = files.decode_file(codec, encoded, decoded)

    wave = audio.read(source)[0][0]
    codes = codec.encode(wave, 3)
    header, stored = read_codes(encoded)
    assert header == bitstream.Header(201, 3, 6, codec.fingerprint)
    np.testing.assert_array_equal(stored, codes.numpy())
    written, rate = audio.read(decoded)
    assert rate == 8000 and written.shape == (1, 201 * 40)
    np.testing.assert_array_equal(
        audio.pcm16(written), audio.pcm16(codec.decode(codes).numpy()[None])
    )

    assert (done.frames, done.n_quantizers, done.seconds) == (201, 3, 8030 / 8000)
    assert done.source_bytes == source.stat().st_size
    assert done.target_bytes == encoded.stat().st_size == 27 + -(-201 * 3 * 6 // 8)
    assert back.seconds == 201 * 40 / 8000 and back.target_bytes == decoded.stat().st_size
    assert names(tmp_path) == ["in.sc", "in.wav", "out.wav"]


def test_fewer_codebooks_make_a_smaller_file_of_the_first_codes(
    codec: Codec, wav: Wav, tmp_path: Path
) -> None:
    source = wav("in.wav", 4000)
    sizes = []
    for n_quantizers in (1, 2, 4):
        target = tmp_path / f"{n_quantizers}.sc"
        files.encode_file(codec, source, target, n_quantizers=n_quantizers)
        sizes.append(target.stat().st_size - 27)
    assert sizes == [75, 150, 300]
    full = read_codes(tmp_path / "4.sc")[1]
    np.testing.assert_array_equal(read_codes(tmp_path / "2.sc")[1], full[:2])
    np.testing.assert_array_equal(read_codes(tmp_path / "1.sc")[1], full[:1])


def test_stereo_at_another_rate_is_mixed_down_and_resampled(
    codec: Codec, wav: Wav, tmp_path: Path
) -> None:
    source, target = wav("in.wav", 44100, sample_rate=44100, channels=2), tmp_path / "in.sc"
    done = files.encode_file(codec, source, target, n_quantizers=4)
    assert done.frames == 200 and done.seconds == pytest.approx(1.0)
    wave = audio.read(source, sample_rate=8000)[0].mean(axis=0, dtype=np.float32)
    np.testing.assert_array_equal(read_codes(target)[1], codec.encode(wave).numpy())


def test_another_format_with_the_same_samples_gives_the_same_file(
    codec: Codec, wav: Wav, tmp_path: Path
) -> None:
    source = wav("in.wav", 4000)
    audio.write_flac(tmp_path / "in.flac", *audio.read(source))
    files.encode_file(codec, source, tmp_path / "wav.sc", n_quantizers=4)
    files.encode_file(codec, tmp_path / "in.flac", tmp_path / "flac.sc", n_quantizers=4)
    assert (tmp_path / "wav.sc").read_bytes() == (tmp_path / "flac.sc").read_bytes()


@pytest.mark.parametrize(("samples", "frames"), [(1, 1), (39, 1), (40, 1), (41, 2)])
def test_a_part_of_a_frame_is_coded_as_a_frame(
    codec: Codec, wav: Wav, tmp_path: Path, samples: int, frames: int
) -> None:
    target = tmp_path / "short.sc"
    files.encode_file(codec, wav("short.wav", samples), target, n_quantizers=4)
    assert read_codes(target)[0].frames == frames
    assert files.decode_file(codec, target, tmp_path / "back.wav").seconds == frames / 200


def test_another_model_is_refused_saying_which_one_is_needed(
    codec: Codec, make_codec: Callable[[int], Codec], wav: Wav, tmp_path: Path
) -> None:
    other, target = make_codec(1), tmp_path / "in.sc"
    files.encode_file(codec, wav("in.wav", 800), target, n_quantizers=4)
    with pytest.raises(BitstreamError) as caught:
        files.decode_file(other, target, tmp_path / "out.wav")
    assert f"encoded with model {codec.fingerprint}" in str(caught.value)
    assert f"this model is {other.fingerprint}" in str(caught.value)
    assert names(tmp_path) == ["in.sc", "in.wav"]


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


@pytest.mark.parametrize(
    "samples",
    [
        pytest.param([], id="no-samples"),
        pytest.param([0.1] * 500 + [float("nan")] + [0.1] * 500, id="nan"),
        pytest.param([0.1] * 500 + [float("inf")] + [0.1] * 500, id="infinite"),
    ],
)
def test_audio_that_cannot_be_coded_is_named_and_nothing_is_written(
    codec: Codec, tmp_path: Path, samples: list[float]
) -> None:
    source = float_wav(tmp_path / "bad.wav", samples)
    with pytest.raises(AudioError, match=r"bad\.wav"):
        files.encode_file(codec, source, tmp_path / "bad.sc", n_quantizers=4)
    assert names(tmp_path) == ["bad.wav"]


def test_a_float_file_as_such_is_fine(codec: Codec, tmp_path: Path) -> None:
    source = float_wav(tmp_path / "good.wav", [0.1] * 1001)
    done = files.encode_file(codec, source, tmp_path / "good.sc", n_quantizers=4)
    assert done.frames == 26


@pytest.mark.parametrize("n_quantizers", [0, 5])
def test_codebooks_that_the_model_lacks_are_refused(
    codec: Codec, wav: Wav, tmp_path: Path, n_quantizers: int
) -> None:
    with pytest.raises(SottoError, match="1 to 4"):
        files.encode_file(codec, wav("in.wav", 800), tmp_path / "x.sc", n_quantizers=n_quantizers)
    assert names(tmp_path) == ["in.wav"]


def test_encoding_what_is_encoded_is_refused(codec: Codec, wav: Wav, tmp_path: Path) -> None:
    files.encode_file(codec, wav("in.wav", 800), tmp_path / "in.sc", n_quantizers=4)
    with pytest.raises(AudioError, match=r"in\.sc is encoded already"):
        files.encode_file(codec, tmp_path / "in.sc", tmp_path / "x.sc", n_quantizers=4)


@pytest.mark.parametrize(
    ("fault", "raised"),
    [
        pytest.param(OSError(errno.ENOSPC, "No space left on device"), SottoError, id="full-disk"),
        pytest.param(KeyboardInterrupt(), KeyboardInterrupt, id="ctrl-c"),
    ],
)
@pytest.mark.parametrize("before", [None, b"what was there"])
def test_a_write_that_fails_leaves_things_as_they_were(
    codec: Codec,
    wav: Wav,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fault: BaseException,
    raised: type[BaseException],
    before: bytes | None,
) -> None:
    source, target = wav("in.wav", 8000), tmp_path / "in.sc"
    if before is not None:
        target.write_bytes(before)
    there = names(tmp_path)

    def failing(codes: np.ndarray, bits: int) -> bytes:
        raise fault  # after the header went out

    monkeypatch.setattr(bitstream, "pack", failing)
    with pytest.raises(raised) as caught:
        files.encode_file(codec, source, target, n_quantizers=4)
    if raised is SottoError:
        assert str(caught.value) == f"{target} cannot be written: No space left on device"
    assert names(tmp_path) == there
    if before is not None:
        assert target.read_bytes() == before


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_device_is_not_replaced_by_a_file(codec: Codec, wav: Wav, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.sc")
    with pytest.raises(SottoError, match="not a plain file"):
        files.encode_file(codec, wav("in.wav", 800), tmp_path / "pipe.sc", n_quantizers=4)
    assert (tmp_path / "pipe.sc").is_fifo()
