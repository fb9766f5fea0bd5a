from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codec.codec import Codec
from codec.errors import AudioError, BitstreamError, SottoError
from infer.runtime import Codec as LightCodec

HOP = 40


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return 0.1 * np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@given(pieces=st.lists(st.integers(0, 3 * HOP), max_size=8), n_quantizers=st.integers(1, 4))
@settings(max_examples=25, deadline=None)
def test_pushed_samples_give_the_codes_of_the_whole(
    light: LightCodec, pieces: list[int], n_quantizers: int
) -> None:
    wave = noise(sum(pieces))
    stream = light.stream_encoder(n_quantizers=n_quantizers)
    parts, start = [], 0
    for length in pieces:
        parts.append(stream.push(wave[start : start + length]))
        start += length
        assert sum(part.shape[1] for part in parts) == start // HOP
    codes = np.concatenate([*parts, stream.flush()], axis=1)
    expected = light.encode(wave, n_quantizers) if len(wave) else np.zeros((n_quantizers, 0))
    np.testing.assert_array_equal(codes, expected)


@given(pieces=st.lists(st.integers(0, 70), max_size=5), n_quantizers=st.integers(1, 4))
@settings(max_examples=25, deadline=None)
def test_pushed_codes_give_the_whole_wave(
    light: LightCodec, pieces: list[int], n_quantizers: int
) -> None:
    codes = np.random.default_rng(0).integers(64, size=(n_quantizers, sum(pieces)))
    parts, start = [np.zeros(0, np.float32)], 0
    with light.stream_decoder() as stream:
        for length in pieces:
            parts.append(stream.push(codes[:, start : start + length]))
            start += length
            assert len(parts[-1]) == length * HOP
        assert stream.flush().shape == (0,)
    np.testing.assert_allclose(np.concatenate(parts), light.decode(codes), atol=1e-6)


@pytest.mark.parametrize("samples", [0, 1, HOP - 1, HOP, HOP + 1])
def test_lengths_are_those_of_pytorch(samples: int, codec: Codec, light: LightCodec) -> None:
    wave = noise(samples)
    ours, theirs = light.stream_encoder(), codec.stream_encoder()
    for _ in range(2):  # flush begins a new signal
        np.testing.assert_array_equal(ours.push(wave), theirs.push(wave).numpy())
        np.testing.assert_array_equal(ours.flush(), theirs.flush().numpy())


def test_batches_are_streams_side_by_side(light: LightCodec) -> None:
    waves = noise(3, 1, 5 * HOP)
    codes = light.stream_encoder(batch=3).push(waves)
    np.testing.assert_array_equal(codes[1], light.stream_encoder().push(waves[1, 0]))
    decoded = light.stream_decoder(batch=3, n_quantizers=4).push(codes)
    single = light.stream_decoder().push(codes[2])
    np.testing.assert_allclose(decoded[2, 0], single, atol=1e-6)


def test_what_was_returned_is_the_callers(light: LightCodec) -> None:
    codes = np.random.default_rng(6).integers(64, size=(4, 4))
    with light.stream_decoder() as decoder, light.stream_encoder() as encoder:
        for push, pieces in ((decoder.push, codes.T), (encoder.push, noise(4, HOP))):
            answers = [push(piece) for piece in pieces]
            copies = [answer.copy() for answer in answers]
            answers[0][:] = 7
            again = push(pieces[0])
            assert not np.shares_memory(again, answers[2])
            for answer, copied in zip(answers[1:], copies[1:], strict=True):
                np.testing.assert_array_equal(answer, copied)


def test_streams_do_not_disturb_each_other(light: LightCodec) -> None:
    codes = np.random.default_rng(1).integers(64, size=(2, 4, 6))
    one, other = light.stream_decoder(), light.stream_decoder()
    parts = [(one.push(codes[0, :, i]), other.push(codes[1, :, i])) for i in range(6)]
    for stream, expected in zip(zip(*parts, strict=True), codes, strict=True):
        np.testing.assert_allclose(np.concatenate(stream), light.decode(expected), atol=1e-6)


@pytest.mark.parametrize("way", ["copy", "restore", "file"])
def test_a_conversation_forks(way: str, light: LightCodec, tmp_path: Path) -> None:
    codes = np.random.default_rng(2).integers(64, size=(4, 9))
    stream = light.stream_decoder()
    stream.push(codes[:, :3])
    stream.push(None, 2)
    twin = light.stream_decoder()
    if way == "copy":
        twin = stream.copy()
    elif way == "restore":
        twin.restore(stream.state())
    else:
        np.savez(tmp_path / "state.npz", **stream.state())
        with np.load(tmp_path / "state.npz") as state:
            twin.restore(state)
    expected = stream.push(codes[:, 3:])
    stream.push(codes)
    np.testing.assert_array_equal(twin.push(codes[:, 3:]), expected)


def test_an_encoder_forks_within_a_frame(light: LightCodec) -> None:
    wave = noise(100)
    stream = light.stream_encoder()
    stream.push(wave[:50])
    state = stream.state()
    expected = stream.push(wave[50:])
    stream.restore(state)
    np.testing.assert_array_equal(stream.push(wave[50:]), expected)
    np.testing.assert_array_equal(state["pending"][0, 0], wave[40:50])


def test_reset_begins_anew(light: LightCodec) -> None:
    codes = np.random.default_rng(3).integers(64, size=(4, 3))
    stream = light.stream_decoder()
    expected = stream.push(codes)
    stream.reset()
    np.testing.assert_array_equal(stream.push(codes), expected)


@pytest.mark.parametrize(
    "pattern", ["xxx...", "..x..", "..xx.xxx.", "." * 3 + "x" * 30 + "....", "...xxxxxxx.x."]
)
def test_lost_frames_are_filled_in_as_in_pytorch(
    pattern: str, codec: Codec, light: LightCodec
) -> None:
    codes = np.random.default_rng(4).integers(64, size=(4, len(pattern)))
    ours, theirs = light.stream_decoder(), codec.stream_decoder()
    for index, kind in enumerate(pattern):
        pushed = None if kind == "x" else codes[:, index]
        expected = theirs.push(pushed).numpy()
        found = ours.push(pushed)
        assert found.shape == expected.shape == (HOP,)
        np.testing.assert_allclose(found, expected, atol=2e-6)


def test_a_burst_can_be_pushed_at_once(codec: Codec, light: LightCodec) -> None:
    codes = np.random.default_rng(5).integers(64, size=(2, 4))
    ours, theirs = light.stream_decoder(), codec.stream_decoder()
    for pushed, frames in ((codes, 1), (None, 7), (None, 60), (codes, 1)):
        expected = theirs.push(pushed, frames).numpy()
        np.testing.assert_allclose(ours.push(pushed, frames), expected, atol=2e-6)
    with pytest.raises(ValueError, match="-1 lost"):
        ours.push(None, -1)


def test_states_of_others_are_refused(light: LightCodec) -> None:
    stream = light.stream_decoder()
    state = stream.state()
    with pytest.raises(SottoError, match="not the state of a StreamEncoder"):
        light.stream_encoder().restore(state)
    with pytest.raises(SottoError, match="of batch 2"):
        light.stream_decoder(batch=2).restore(state)
    with pytest.raises(SottoError, match="another model"):
        stream.restore(state | {"model": np.zeros(16, np.uint8)})


def test_what_is_no_signal_is_refused_and_nothing_taken(light: LightCodec) -> None:
    encoder, decoder = light.stream_encoder(), light.stream_decoder(n_quantizers=3)
    before = encoder.state()
    for wrong in (np.zeros(3, np.int64), np.zeros((2, 1, 3)), np.array([np.inf])):
        with pytest.raises(AudioError):
            encoder.push(wrong)
    assert all(np.array_equal(before[name], x) for name, x in encoder.state().items())
    for codes in (np.zeros(4, np.int64), np.zeros(3), np.full(3, 64)):
        with pytest.raises(BitstreamError):
            decoder.push(codes)


def test_closed_streams_and_empty_batches_are_refused(light: LightCodec) -> None:
    with light.stream_encoder() as encoder, light.stream_decoder() as decoder:
        pass
    for call in (
        lambda: encoder.push(noise(3)),
        encoder.flush,
        lambda: decoder.push(None),
        decoder.flush,
    ):
        with pytest.raises(ValueError, match="closed"):
            call()
    with pytest.raises(ValueError, match="batch = 0"):
        light.stream_decoder(batch=0)
