"""Files that are damaged, cut or compact."""

import copy
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from codec import audio
from codec.audio_writing import AudioWriter
from codec.codec import Codec
from codec.entropy_learning import learn_tables
from codec.errors import AudioError, BitstreamError
from infer import bitstream, files

Wav = Callable[..., Path]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def encoded(codec: Codec, wav: Wav, tmp_path: Path) -> Path:
    """Ten seconds and a bit, at the level they have: 10 blocks of 200 frames and one of 1."""
    source = wav("in.wav", 80_030)
    files.encode_file(codec, source, tmp_path / "in.sc", n_quantizers=3, target_lufs=None)
    source.unlink()
    return tmp_path / "in.sc"


def test_what_lies_before_a_stretch_is_not_read(
    codec: Codec, encoded: Path, tmp_path: Path
) -> None:
    """Damage that far from it goes unnoticed."""
    data = bytearray(encoded.read_bytes())
    data[200:300] = bytes(100)
    encoded.write_bytes(data)
    out = tmp_path / "out.wav"
    done = files.decode_file(codec, encoded, out, start=8.0, strict=True)
    assert not done.warnings and audio.read(out)[0].shape == (1, 16_030)


class TestDamage:
    def test_a_damaged_block_is_silent_and_named(
        self, codec: Codec, encoded: Path, tmp_path: Path
    ) -> None:
        files.decode_file(codec, encoded, tmp_path / "whole.wav")
        whole = audio.read(tmp_path / "whole.wav")[0]
        data = bytearray(encoded.read_bytes())
        block = (len(data) - 80) // 10
        data[80 + 3 * block + 100] ^= 8
        encoded.write_bytes(data)
        done = files.decode_file(codec, encoded, tmp_path / "out.wav")
        [warning] = done.warnings
        assert "in.sc: 0:03.00 to 0:04.00" in warning
        wave = audio.read(tmp_path / "out.wav")[0]
        assert wave.shape == whole.shape
        np.testing.assert_array_equal(wave[:, :24_000], whole[:, :24_000])
        assert not wave[:, 24_000:32_000].any() and wave[:, 32_000:].any()
        with pytest.raises(BitstreamError, match=r"in\.sc is damaged: 0:03"):
            files.decode_file(codec, encoded, tmp_path / "strict.wav", strict=True)
        assert not (tmp_path / "strict.wav").exists()

    @pytest.mark.parametrize("kept", [0.3, 0.75, 0.999])
    def test_a_cut_file_decodes_to_where_it_is_cut(
        self, codec: Codec, encoded: Path, tmp_path: Path, kept: float
    ) -> None:
        files.decode_file(codec, encoded, tmp_path / "whole.wav")
        whole = audio.read(tmp_path / "whole.wav")[0]
        data = encoded.read_bytes()
        encoded.write_bytes(data[: int(kept * len(data))])
        done = files.decode_file(codec, encoded, tmp_path / "out.wav", restore=True)
        assert done.warnings and "in.sc" in done.warnings[0]
        wave = audio.read(tmp_path / "out.wav")[0]
        seconds = wave.shape[1] / 8000
        assert 10 * kept - 1.2 <= seconds <= 10.01
        # Where the end is missing, the last frame is whole.
        there = min(wave.shape[1], whole.shape[1])
        np.testing.assert_array_equal(wave[:, :there], whole[:, :there])
        with pytest.raises(BitstreamError, match=r"in\.sc"):
            files.decode_file(codec, encoded, tmp_path / "strict.wav", strict=True)

    def test_a_source_length_that_does_not_fit_is_not_believed(
        self, codec: Codec, tmp_path: Path
    ) -> None:
        file = io.BytesIO()
        header = bitstream.Header(
            1, None, 1, 6, codec.fingerprint, 8000, 40, source_rate=8000, source_samples=2**60
        )
        writer = bitstream.Writer(file, header)
        writer.write(np.zeros((1, 1, 10), int))
        writer.finish()
        file.seek(0)
        files.decode_file(codec, file, tmp_path / "out.wav", restore=True)
        assert audio.read(tmp_path / "out.wav")[0].shape == (1, 400)


@pytest.mark.parametrize(
    ("ending", "fault"), [("flac", "damaged"), ("flac", "cut"), ("mp3", "damaged")]
)
def test_bad_audio_is_warned_of_or_refused(
    codec: Codec, wav: Wav, tmp_path: Path, fault: str, ending: str
) -> None:
    source = tmp_path / f"x.{ending}"
    with AudioWriter(source, sample_rate=8000, channels=1) as writer:
        writer.write(audio.read(wav("in.wav", 40_000))[0])
    data = bytearray(source.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 300 if fault == "damaged" else len(data)] = b""
    source.write_bytes(data)
    done = files.encode_file(codec, source, tmp_path / "x.sc", n_quantizers=4)
    assert f"x.{ending}: damaged" in done.warnings[0] and 0 < done.frames < 1000
    with pytest.raises(AudioError, match=rf"x\.{ending}: damaged"):
        files.encode_file(codec, source, tmp_path / "strict.sc", n_quantizers=4, strict=True)
    assert not (tmp_path / "strict.sc").exists()


@pytest.fixture(scope="module")
def with_tables(codec: Codec) -> Codec:
    """The same model with tables learned from a little of its codes."""
    rng = np.random.default_rng(5)
    waves = [rng.uniform(-0.5, 0.5, 16_000).astype(np.float32) for _ in range(4)]
    examples = [codec.encode(wave).numpy() for wave in waves]
    other = copy.copy(codec)
    other.tables = learn_tables(examples, 64, hidden=4, mixed=4, passes=1)
    return other


class TestCompact:
    def test_it_holds_the_same_codes(
        self, codec: Codec, with_tables: Codec, wav: Wav, tmp_path: Path
    ) -> None:
        source = wav("in.wav", 30_000)
        files.encode_file(codec, source, tmp_path / "plain.sc", n_quantizers=3)
        files.encode_file(
            with_tables, source, tmp_path / "compact.sc", n_quantizers=3, compact=True
        )
        for name in ("plain", "compact"):
            files.decode_file(with_tables, tmp_path / f"{name}.sc", tmp_path / f"{name}.wav")
        assert (tmp_path / "plain.sc").read_bytes() != (tmp_path / "compact.sc").read_bytes()
        plain, compact = (tmp_path / f"{name}.wav" for name in ("plain", "compact"))
        assert plain.read_bytes() == compact.read_bytes()

    def test_a_model_without_its_tables_is_refused(
        self, codec: Codec, with_tables: Codec, wav: Wav, tmp_path: Path
    ) -> None:
        target = tmp_path / "x.sc"
        files.encode_file(with_tables, wav("in.wav", 4000), target, n_quantizers=3, compact=True)
        with pytest.raises(BitstreamError, match="probability tables"):
            files.decode_file(codec, target, tmp_path / "out.wav")
        assert names(tmp_path) == ["in.wav", "x.sc"]
