import io
import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from codec import audio
from codec.codec import Codec
from codec.errors import SottoError
from infer import bitstream, cli, codes


def write_sc(path: Path, values: np.ndarray, fingerprint: str, **facts: object) -> Path:
    channels, n_quantizers, frames = values.shape
    known = {"source_rate": 44_100, "source_channels": 2, "source_samples": frames * 220}
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:
        header = bitstream.Header(
            1, None, n_quantizers, 6, fingerprint, 8000, 40, channels=channels, gain_db=1.5
        )
        writer = bitstream.Writer(file, header.__class__(**{**header.__dict__, **known, **facts}))
        writer.write(values)
        writer.finish()
    return path


@pytest.fixture
def values(tmp_path: Path, codec: Codec) -> dict[str, np.ndarray]:
    """Codes of three files under in/, one of two channels."""
    rng = np.random.default_rng(0)
    shapes = {"a.sc": (1, 3, 450), "b.sc": (2, 3, 70), "sub/c.sc": (1, 3, 1)}
    made = {name: rng.integers(0, 64, shape).astype(np.uint16) for name, shape in shapes.items()}
    for name, value in made.items():
        write_sc(tmp_path / "in" / name, value, codec.fingerprint)
    return made


def sotto(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(cli.app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result.output


def test_codes_lie_in_one_array_time_first(
    values: dict[str, np.ndarray], codec: Codec, tmp_path: Path
) -> None:
    out = sotto("codes", tmp_path / "in", tmp_path / "all.npy")
    assert "591 frames of 3 codes, 2.96 s in 3 files" in out
    array = np.load(tmp_path / "all.npy", mmap_mode="r")
    assert isinstance(array, np.memmap) and array.dtype == np.uint16 and array.shape == (591, 3)
    index = json.loads((tmp_path / "all.json").read_text())
    assert index["model"] == codec.fingerprint
    assert (index["sample_rate"], index["hop_length"], index["frame_rate"]) == (8000, 40, 200.0)
    rows = [(f["name"], f["channel"], f["offset"], f["length"]) for f in index["files"]]
    assert rows == [
        ("a.sc", 0, 0, 450),
        ("b.sc", 0, 450, 70),
        ("b.sc", 1, 520, 70),
        ("sub/c.sc", 0, 590, 1),
    ]
    for name, channel, offset, length in rows:
        np.testing.assert_array_equal(array[offset : offset + length], values[name][channel].T)


def test_back_to_the_same_files(values: dict[str, np.ndarray], tmp_path: Path) -> None:
    array, back = tmp_path / "all.npy", tmp_path / "back"
    sotto("codes", tmp_path / "in", array)
    assert "3 files written" in sotto("codes", array, back)
    for name in values:
        with open(tmp_path / "in" / name, "rb") as first, open(back / name, "rb") as second:
            one, two = bitstream.Reader(first), bitstream.Reader(second, strict=True)
            assert one.header == two.header
            for left, right in zip(one.blocks(), two.blocks(), strict=True):
                np.testing.assert_array_equal(left.codes, right.codes)
    (back / "a.sc").unlink()
    out = sotto("codes", array, back)
    assert "1 file written" in out and "2 files skipped" in out


def test_back_to_audio(
    values: dict[str, np.ndarray], codec: Codec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    codec.save(tmp_path / "model.safetensors")
    array, back = tmp_path / "all.npy", tmp_path / "back"
    sotto("codes", tmp_path / "in", array)
    model = tmp_path / "model.safetensors"
    sotto("codes", array, back, "--format", "flac", "--restore", "--model", model)
    assert audio.read(back / "sub" / "c.flac")[0].shape == (2, 220)
    assert audio.read(back / "a.flac")[1] == 44_100


def test_codebooks_that_differ_are_cut_to_what_was_asked_for(
    values: dict[str, np.ndarray], codec: Codec, tmp_path: Path
) -> None:
    less = values["a.sc"][:, :2]
    write_sc(tmp_path / "in" / "less.sc", less, codec.fingerprint)
    out = sotto("codes", tmp_path / "in", tmp_path / "all.npy", code=1)
    assert "less.sc: has 2 codebooks, not 3: --codebooks" in out
    assert np.load(tmp_path / "all.npy").shape == (591, 3)
    sotto("codes", tmp_path / "in", tmp_path / "two.npy", "--codebooks", 2)
    array = np.load(tmp_path / "two.npy")
    assert array.shape == (591 + 450, 2)
    np.testing.assert_array_equal(array[:450], less[0].T)


@pytest.mark.parametrize("fault", ["cut", "damaged", "model", "text"])
def test_a_bad_file_is_left_out_and_told(
    values: dict[str, np.ndarray], tmp_path: Path, fault: str
) -> None:
    bad = tmp_path / "in" / "b.sc"
    data = bytearray(bad.read_bytes())
    if fault == "cut":
        data = data[:-30]
    elif fault == "damaged":
        data[150] ^= 1
    elif fault == "text":
        data = bytearray(b"text")
    bad.write_bytes(data)
    if fault == "model":
        write_sc(bad, values["b.sc"], "1" * 32)
    out = sotto("codes", tmp_path / "in", tmp_path / "all.npy", code=1)
    assert "451 frames" in out and "b.sc" in out
    array = np.load(tmp_path / "all.npy")
    np.testing.assert_array_equal(array[450:], values["sub/c.sc"][0].T)


def test_outputs_that_are_there_are_not_replaced(
    values: dict[str, np.ndarray], tmp_path: Path
) -> None:
    (tmp_path / "all.json").write_text("mine")
    assert "--force" in sotto("codes", tmp_path / "in", tmp_path / "all.npy", code=1)
    assert not (tmp_path / "all.npy").exists()
    sotto("codes", tmp_path / "in", tmp_path / "all.npy", "--force")
    assert (tmp_path / "all.npy").exists()


def test_nothing_is_written_when_no_file_can_be_read(tmp_path: Path) -> None:
    (tmp_path / "bad.sc").write_text("text")
    sotto("codes", tmp_path / "bad.sc", tmp_path / "all.npy", code=1)
    assert [path.name for path in tmp_path.iterdir()] == ["bad.sc"]


@pytest.mark.parametrize(
    "name",
    ["../a.sc", "/tmp/a.sc", "in/../../a.sc", "C:\\a.sc", "..\\a.sc", "\\\\host\\a.sc", "", "a\0"],
)
def test_a_name_that_leads_elsewhere_is_refused(
    values: dict[str, np.ndarray], tmp_path: Path, name: str
) -> None:
    array, back = tmp_path / "all.npy", tmp_path / "back"
    sotto("codes", tmp_path / "in", array)
    index = json.loads((tmp_path / "all.json").read_text())
    index["files"][0]["name"] = name
    (tmp_path / "all.json").write_text(json.dumps(index))
    assert "no path below a folder" in sotto("codes", array, back, code=1)
    assert not back.exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(lambda index: index.update(version=2), "version 2", id="newer"),
        pytest.param(lambda index: index.pop("model"), "no index", id="no-model"),
        pytest.param(lambda index: index.update(frames=5), "its index says", id="rows"),
        pytest.param(lambda index: index.update(frames=-1), "no index", id="negative"),
        pytest.param(lambda index: index.update(frames=True), "no index", id="no-number"),
        pytest.param(lambda index: index.update(files=3), "no index", id="no-list"),
        pytest.param(lambda index: index["files"][0].update(offset=999), "not there", id="offset"),
        pytest.param(lambda index: index["files"][0].update(channel=1), "do not fit", id="channel"),
        pytest.param(lambda index: index.update(bits=2), "does not fit", id="bits"),
        pytest.param(lambda index: index.update(model="x"), "fingerprint", id="fingerprint"),
    ],
)
def test_an_index_that_does_not_fit_is_an_error(
    values: dict[str, np.ndarray], tmp_path: Path, change: object, message: str
) -> None:
    array = tmp_path / "all.npy"
    sotto("codes", tmp_path / "in", array)
    index = json.loads((tmp_path / "all.json").read_text())
    change(index)  # type: ignore[operator]
    (tmp_path / "all.json").write_text(json.dumps(index))
    out = sotto("codes", array, tmp_path / "back", code=1)
    assert message in out and "Traceback" not in out


def test_an_array_that_holds_objects_is_not_unpickled(
    values: dict[str, np.ndarray], tmp_path: Path
) -> None:
    array = tmp_path / "all.npy"
    sotto("codes", tmp_path / "in", array)
    np.save(array, np.array([{}, {}], dtype=object))
    assert "no array that can be read" in sotto("codes", array, tmp_path / "back", code=1)


def test_an_array_is_as_numpy_would_write_it(values: dict[str, np.ndarray], tmp_path: Path) -> None:
    sotto("codes", tmp_path / "in", tmp_path / "all.npy")
    plain = io.BytesIO()
    np.save(plain, np.load(tmp_path / "all.npy"))
    assert (tmp_path / "all.npy").read_bytes() == plain.getvalue()


def test_reading_an_index_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SottoError, match="cannot be read"):
        codes.read_index(tmp_path / "x.npy")


def test_two_files_of_one_name_are_refused(values: dict[str, np.ndarray], tmp_path: Path) -> None:
    """They could not be told apart on the way back."""
    twin = tmp_path / "twin" / "a.sc"
    twin.parent.mkdir()
    twin.write_bytes((tmp_path / "in" / "a.sc").read_bytes())
    out = sotto("codes", tmp_path / "in" / "a.sc", twin, tmp_path / "all.npy", code=1)
    assert "would both be a.sc" in " ".join(out.split())
    assert not (tmp_path / "all.npy").exists()
    sotto("codes", tmp_path / "in", tmp_path / "twin", tmp_path / "all.npy")
    sotto("codes", tmp_path / "all.npy", tmp_path / "back")
    assert (tmp_path / "back" / "in" / "a.sc").is_file()
    assert (tmp_path / "back" / "twin" / "a.sc").is_file()


def test_codes_are_taken_from_stdin(values: dict[str, np.ndarray], tmp_path: Path) -> None:
    coded = (tmp_path / "in" / "b.sc").read_bytes()
    arguments = ["codes", "-", str(tmp_path / "one.npy")]
    assert CliRunner().invoke(cli.app, arguments, input=coded).exit_code == 0
    array = np.load(tmp_path / "one.npy")
    assert np.array_equal(array[:70], values["b.sc"][0].T)
    sotto("codes", tmp_path / "one.npy", tmp_path / "back")
    with open(tmp_path / "back" / "stdin.sc", "rb") as file:
        (block,) = bitstream.Reader(file, strict=True).blocks()
    assert block.codes is not None and np.array_equal(block.codes, values["b.sc"])
