"""A model that looks ahead, by ONNX Runtime: what comes late, what is held back, and lengths."""

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codec.codec import Codec
from codec.errors import ModelFileError, SottoError
from infer.export import export
from infer.runtime import Codec as LightCodec
from infer.runtime import decode_sc, encode_sc
from tests.support.voices import assert_sounds_like, make_voice

HOP = 320
FADED = 10  # frames of 20 ms


@pytest.fixture(scope="module")
def light(exported_voice: Path) -> LightCodec:
    return LightCodec.load(exported_voice)


@pytest.fixture(scope="module")
def ahead(tmp_path_factory: pytest.TempPathFactory) -> tuple[Codec, LightCodec]:
    """Two frames of look-ahead."""
    codec = make_voice(1, decoder={"lookahead": 2})
    folder = tmp_path_factory.mktemp("export") / "out"
    export(codec, folder)
    return codec, LightCodec.load(folder)


def random_codes(frames: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(32, size=(3, frames))


def noise(samples: int) -> np.ndarray:
    return 0.1 * np.random.default_rng(0).standard_normal(samples).astype(np.float32)


@pytest.mark.parametrize("samples", [1, HOP - 1, HOP, HOP + 1, 51 * HOP + 7, 200 * HOP])
def test_whole_signals_are_those_of_pytorch(samples: int, voice: Codec, light: LightCodec) -> None:
    wave = noise(samples)
    codes = light.encode(wave)
    np.testing.assert_array_equal(codes, voice.encode(wave).numpy())
    assert_sounds_like(light.decode(codes, samples), voice.decode(codes, samples))
    assert light.decode(codes).shape == (-(-samples // HOP) * HOP,)
    assert light.decode(codes[:, :0]).shape == (0,)
    assert light.decode(np.stack([codes, codes]), samples).shape == (2, 1, samples)


@given(pieces=st.lists(st.integers(0, 70), max_size=6), n_quantizers=st.integers(1, 3))
@settings(max_examples=30, deadline=None)
def test_pushed_codes_give_the_whole_wave_late(
    light: LightCodec, pieces: list[int], n_quantizers: int
) -> None:
    codes = random_codes(sum(pieces))[:n_quantizers]
    parts, start = [np.zeros(0, np.float32)], 0
    with light.stream_decoder() as stream:
        assert stream.lookahead == light.card.lookahead == 1
        for length in pieces:
            parts.append(stream.push(codes[:, start : start + length]))
            start += length
            assert sum(part.size for part in parts) == max(0, start - 1) * HOP
        parts.append(stream.flush())
        again = [stream.push(codes), stream.flush()]
    np.testing.assert_allclose(
        np.concatenate(parts), light.decode(codes), rtol=0, atol=1e-2 * peak(light, codes)
    )
    assert_sounds_like(np.concatenate(parts), light.decode(codes))
    assert_sounds_like(np.concatenate(again), light.decode(codes))


def peak(light: LightCodec, codes: np.ndarray) -> float:
    return float(np.abs(light.decode(codes)).max(initial=0))


PUSHES = st.lists(st.tuples(st.booleans(), st.integers(0, 5) | st.just(12)), max_size=8)


@given(pushes=PUSHES, which=st.booleans())
@settings(max_examples=40, deadline=None)
def test_lost_frames_are_filled_in_as_in_pytorch(
    pushes: list[tuple[bool, int]],
    which: bool,
    voice: Codec,
    light: LightCodec,
    ahead: tuple[Codec, LightCodec],
) -> None:
    codec, runtime = ahead if which else (voice, light)
    ours, theirs = runtime.stream_decoder(), codec.stream_decoder()
    found, expected = [], []
    for lost, count in pushes:
        pushed = None if lost else random_codes(count)
        found.append(ours.push(pushed, count))
        expected.append(theirs.push(pushed, count).numpy())
        assert found[-1].shape == expected[-1].shape
    found.append(ours.flush())
    expected.append(theirs.flush().numpy())
    assert sum(part.size for part in found) == HOP * sum(count for _, count in pushes)
    assert_sounds_like(np.concatenate(found), np.concatenate(expected))


@pytest.mark.parametrize("way", ["copy", "restore", "file"])
@pytest.mark.parametrize("before", [0, 1, 5])
def test_a_conversation_forks(way: str, before: int, light: LightCodec, tmp_path: Path) -> None:
    codes = random_codes(9)
    stream, twin = light.stream_decoder(), light.stream_decoder()
    stream.push(codes[:, :before])
    if before == 5:
        stream.push(None, 2)
    if way == "copy":
        twin = stream.copy()
    elif way == "restore":
        twin.restore(stream.state())
    else:
        np.savez(tmp_path / "state.npz", **stream.state())
        with np.load(tmp_path / "state.npz") as state:
            twin.restore(state)
    expected = [stream.push(codes), stream.flush()]
    stream.push(codes)
    for part, found in zip(expected, (twin.push(codes), twin.flush()), strict=True):
        np.testing.assert_array_equal(found, part)


def test_states_of_phases_of_another_type_are_refused(light: LightCodec) -> None:
    stream = light.stream_decoder()
    state = stream.state()
    name = next(name for name, x in state.items() if x.dtype == np.float64)
    with pytest.raises(SottoError, match=f"{name} is .* float32"):
        stream.restore(state | {name: state[name].astype(np.float32)})


def test_a_long_loss_ends_in_silence_and_a_new_start(light: LightCodec) -> None:
    codes = random_codes(20)
    stream = light.stream_decoder()
    stream.push(codes[:, :6])
    filled = stream.push(None, FADED + 5)
    assert filled[:HOP].any() and not filled[FADED * HOP :].any()
    after = np.concatenate([stream.push(codes), stream.flush()])
    assert not after[:HOP].any()  # what a signal has before its first frame
    assert_sounds_like(after[HOP:], light.decode(codes))


@pytest.mark.parametrize("samples", [1, HOP, 3 * HOP + 1, 150 * HOP - 3])
@pytest.mark.parametrize("channels", [1, 2])
def test_files_are_as_long_as_what_they_are_of(
    samples: int, channels: int, light: LightCodec
) -> None:
    file = io.BytesIO()
    waves = noise(channels * samples).reshape(channels, samples)
    encode_sc(light, [waves[:, : samples // 2], waves[:, samples // 2 :]], file, channels=channels)
    decoded = np.concatenate(list(decode_sc(light, io.BytesIO(file.getvalue()))), axis=1)
    assert decoded.shape == (channels, samples)
    n = light.n_quantizers_for(light.default_kbps)
    for wave, one in zip(waves, decoded, strict=True):
        assert_sounds_like(one, light.decode(light.encode(wave, n), samples))


@pytest.mark.parametrize("channels", [1, 2])
def test_a_damaged_block_costs_itself(channels: int, light: LightCodec) -> None:
    file = io.BytesIO()
    samples = 200 * HOP
    encode_sc(light, [noise(channels * samples).reshape(channels, -1)], file, channels=channels)
    content = bytearray(file.getvalue())
    whole = np.concatenate(list(decode_sc(light, io.BytesIO(bytes(content)))), axis=1)
    content[len(content) // 2] ^= 255
    found = np.concatenate(list(decode_sc(light, io.BytesIO(bytes(content)))), axis=1)
    assert found.shape == whole.shape == (channels, samples)
    silent = ~found.reshape(channels, -1, HOP).any(axis=(0, 2))
    first, count = int(np.argmax(silent)), int(silent.sum())
    assert silent[first : first + count].all() and 0 < count < 150
    # The block before it is heard to its end, its last frame held.
    assert_sounds_like(found[:, : (first - 1) * HOP], whole[:, : (first - 1) * HOP])
    assert found[:, (first - 1) * HOP : first * HOP].any()


def test_int8_streams_as_it_decodes(voice: Codec, tmp_path: Path) -> None:
    waves = [noise(30 * HOP + i)[i:] for i in range(8)]
    export(voice, tmp_path / "out", calibration=waves)
    light = LightCodec.load(tmp_path / "out", precision="int8")
    codes = light.encode(waves[0])
    stream = light.stream_decoder()
    parts = [stream.push(frame) for frame in codes.T] + [stream.flush()]
    assert_sounds_like(np.concatenate(parts), light.decode(codes))


@pytest.mark.parametrize(
    ("old", "new"),
    [('"lookahead": 1', '"lookahead": -1'), ('"float64"', '"float16"')],
    ids=["look-ahead", "type"],
)
def test_cards_that_are_none_are_refused(
    old: str, new: str, exported_voice: Path, tmp_path: Path
) -> None:
    text = (exported_voice / "card.json").read_text()
    assert old in text
    (tmp_path / "card.json").write_text(text.replace(old, new))
    with pytest.raises(ModelFileError, match="damaged"):
        LightCodec.load(tmp_path)
