import gc
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from codec.codec import Codec
from codec.errors import AudioError, BitstreamError, SottoError
from tests.support.streams import SAMPLE_RATE, codec
from tests.support.voices import assert_sounds_like

AT_ONCE = ["seanet", "convnext", "convnext-noise"]  # these do not look ahead
FAMILIES = [*AT_ONCE, "voice"]
DIRECTIONS = ["encoder", "decoder"]

each_family = pytest.mark.parametrize("kind", FAMILIES)
each_direction = pytest.mark.parametrize("direction", DIRECTIONS)


architectures = st.builds(
    codec,
    kind=st.sampled_from(AT_ONCE),
    strides=st.sampled_from([(2,), (3,), (5,), (2, 3), (3, 7), (4, 1, 2)]),
    kernel=st.sampled_from([1, 2, 5, 7]),
    dilations=st.sampled_from([(1,), (3,), (1, 9)]),
)
voices = st.builds(
    codec,
    kind=st.just("voice"),
    strides=st.sampled_from([(8,), (8, 3), (8, 1, 2)]),
    kernel=st.sampled_from([1, 2, 5, 7]),
)


def noise(*shape: int, seed: int = 1) -> Tensor:
    return 0.3 * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def random_codes(*shape: int, seed: int = 2) -> Tensor:
    return torch.randint(16, shape, generator=torch.Generator().manual_seed(seed))


def signal(direction: str, model: Codec, frames: int, seed: int = 1) -> Tensor:
    """What a stream of that direction takes, for whole frames."""
    if direction == "encoder":
        return noise(frames * model.hop_length, seed=seed)
    return random_codes(3, frames, seed=seed)


def stream_of(direction: str, model: Codec, **arguments):
    return getattr(model, f"stream_{direction}")(**arguments)


def whole(direction: str, model: Codec, given: Tensor) -> Tensor:
    return model.encode(given) if direction == "encoder" else model.decode(given)


def run(stream, given: Tensor, cuts=()) -> Tensor:
    """Pushes the pieces in one array that is overwritten, and overwrites what comes out."""
    out = []
    for start, stop in pairwise([0, *sorted(cuts), given.shape[-1]]):
        piece = given[..., start:stop].numpy().copy()
        answer = stream.push(piece)
        out.append(answer.clone())
        answer.fill_(7)
        piece[...] = 7
    return torch.cat([*out, stream.flush()], dim=-1)


class Latents:
    """In place of the quantizer: lets latents through, so that they can be compared."""

    def encode(self, latent: Tensor, n_quantizers: int, norms: list[Tensor]) -> Tensor:
        return latent


def cuts_of(data: st.DataObject, length: int) -> list[int]:
    """Anywhere, doubled ones (empty pieces), equal pieces and runs of single items among them."""
    size = data.draw(st.sampled_from([0, 1, 2, 3, 7]))
    if size:
        return list(range(size, length, size))
    cuts = data.draw(st.lists(st.integers(0, length), max_size=6))
    start = data.draw(st.integers(0, length))
    return cuts + list(range(start, min(length, start + 12)))


def assert_same(actual: Tensor, expected: Tensor, model: Codec | None = None) -> None:
    """Up to float rounding, relative to the largest value; which the phase of a voice adds up."""
    if model is not None and model.config.lookahead and actual.is_floating_point():
        return assert_sounds_like(actual, expected)
    largest = float(expected.abs().max()) if expected.numel() else 0.0
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5 * largest)


each_set = pytest.mark.parametrize("models", [architectures, voices], ids=["at-once", "voices"])


@each_set
@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.data())
def test_latents_are_those_of_the_whole_however_a_wave_is_cut(models, data):
    model = data.draw(models)
    hop = model.hop_length
    edge = st.sampled_from([0, 1, hop - 1, hop, hop + 1])
    samples = data.draw(edge | st.integers(0, 2 * SAMPLE_RATE + hop))
    wave = noise(samples)
    stream = model.stream_encoder()
    stream._quantizer, stream.n_quantizers = Latents(), 6
    latents = run(stream, wave, cuts_of(data, samples)).float()  # of no frames: of no codes
    assert latents.shape == (6, -(-samples // hop))
    assert_same(latents, model._autoencoder.encoder(wave[None, None])[0])


@each_set
@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.data())
def test_the_wave_is_that_of_the_whole_however_codes_are_cut(models, data):
    model = data.draw(models)
    frames = data.draw(st.sampled_from([0, 1, 2]) | st.integers(0, 2 * SAMPLE_RATE // 8))
    codes = random_codes(data.draw(st.integers(1, 3)), frames)
    wave = run(model.stream_decoder(), codes, cuts_of(data, frames))
    assert wave.dtype == torch.float32
    assert wave.shape == (frames * model.hop_length,)
    assert_same(wave, model.decode(codes), model)


@each_family
@pytest.mark.parametrize("size", [1, 5, 6, 7, 100])
@pytest.mark.parametrize("samples", [1, 5, 6, 7, 211])
def test_codes_are_those_of_encode(kind, samples, size):
    model = codec(kind)
    wave = noise(samples)
    codes = run(model.stream_encoder(), wave, range(size, samples, size))
    assert codes.dtype == torch.int64
    assert torch.equal(codes, model.encode(wave))


@each_family
def test_a_frame_is_answered_at_once(kind):
    model = codec(kind)
    wave, hop = noise(60), model.hop_length
    encoder, decoder = model.stream_encoder(), model.stream_decoder()
    assert encoder.push(wave[: hop - 1]).shape == (3, 0)
    codes = encoder.push(wave[hop - 1 : hop])
    assert codes.shape == (3, 1)
    late = model.config.lookahead
    for _ in range(late):
        assert decoder.push(codes).shape == (0,)
    first = decoder.copy().push(codes)
    assert_same(first, model.decode(codes.repeat(1, late + 1))[:hop], model)
    assert late or not torch.equal(
        decoder.push((codes + 1) % 16), first
    )  # sound of this very frame, no delayed one


@each_direction
@each_family
def test_the_future_changes_nothing_that_came_out(kind, direction):
    model = codec(kind)
    given = signal(direction, model, 20)
    changed = given.clone()
    first = given.shape[-1] // 2
    changed[..., first:] = given[..., first:].flip(-1)
    before, after = (whole(direction, model, x) for x in (given, changed))
    half = before.shape[-1] // 2
    if direction == "decoder":
        half -= model.config.lookahead * model.hop_length
    assert torch.equal(before[..., :half], after[..., :half])
    assert not torch.equal(before, after)
    stream = stream_of(direction, model)
    assert_same(stream.push(given[..., :first]), before[..., :half], model)


@each_direction
@each_family
def test_interleaved_streams_know_nothing_of_each_other(kind, direction):
    model = codec(kind)
    given = [signal(direction, model, 9, seed) for seed in range(3)]
    streams = [stream_of(direction, model) for _ in given]
    size, out = given[0].shape[-1] // 9, [[] for _ in given]
    for start in range(0, given[0].shape[-1], size):
        for stream, x, parts in zip(streams, given, out, strict=True):
            parts.append(stream.push(x[..., start : start + size]))
    for stream, x, parts in zip(streams, given, out, strict=True):
        wave = torch.cat([*parts, stream.flush()], dim=-1)
        assert_same(wave, whole(direction, model, x), model)


@each_direction
def test_a_batch_is_its_items(direction):
    model = codec()
    items = [signal(direction, model, 9, seed) for seed in range(3)]
    batch = torch.stack([torch.atleast_2d(x) for x in items])
    out = run(stream_of(direction, model, batch=3), batch, [batch.shape[-1] // 3])
    expected = torch.stack([torch.atleast_2d(whole(direction, model, x)) for x in items])
    assert out.shape == expected.shape
    assert_same(out, expected)


@each_direction
def test_answers_have_a_batch_axis_if_questions_have(direction):
    model = codec()
    given = signal(direction, model, 2)
    stream = stream_of(direction, model)
    bare = stream.push(given)
    batched = stream.push(given[None] if given.ndim == 2 else given[None, None])
    assert (bare.ndim, batched.ndim) == ((2, 3) if direction == "encoder" else (1, 3))
    assert stream.flush().shape == (*batched.shape[:2], 0)


@pytest.mark.parametrize("kind_of", ["uint16", "int32"])
def test_one_frame_of_codes_may_be_flat_and_of_any_integer(kind_of):
    model = codec()
    codes = random_codes(3, 8)
    stream = model.stream_decoder()
    wave = torch.cat([stream.push(codes[:, t].numpy().astype(kind_of)) for t in range(8)])
    assert_same(wave, model.decode(codes))


def test_fewer_codebooks():
    model = codec()
    wave, codes = noise(60), random_codes(3, 10)
    assert torch.equal(run(model.stream_encoder(n_quantizers=2), wave), model.encode(wave, 2))
    assert_same(run(model.stream_decoder(n_quantizers=2), codes[:2]), model.decode(codes[:2]))
    any_number = model.stream_decoder()
    assert_same(any_number.push(codes[:1, :5]), model.decode(codes[:1, :5]))
    assert any_number.push(codes[:, 5:]).shape == (5 * model.hop_length,)


@each_direction
@each_family
@pytest.mark.parametrize("how", ["reset", "flush"])
def test_a_new_signal_in_the_same_stream(kind, direction, how):
    model = codec(kind)
    given = signal(direction, model, 7)
    stream = stream_of(direction, model)
    stream.push(given[..., : given.shape[-1] - 1])
    if direction == "decoder":
        stream.push(None)
    getattr(stream, how)()
    fresh = stream_of(direction, model)
    assert all(torch.equal(x, fresh.state()[name]) for name, x in stream.state().items())
    assert_same(run(stream, given), whole(direction, model, given), model)


@each_direction
@each_family
@pytest.mark.parametrize("how", ["copied", "restored", "saved"])
def test_a_conversation_forks(kind, direction, how, tmp_path):
    model = codec(kind)
    start, left, right = (signal(direction, model, 9, seed) for seed in range(3))
    cut = 20 if direction == "encoder" else 5
    stream = stream_of(direction, model)
    stream.push(start[..., :cut])
    if how == "copied":
        twin = stream.copy()
    else:
        state = stream.state()
        twin = stream_of(direction, model)
        if how == "saved":
            save_file(state, tmp_path / "state.safetensors")
            state = load_file(tmp_path / "state.safetensors")
        twin.restore(state)
        for tensor in state.values():
            tensor.zero_()
    done = whole(direction, model, start[..., :cut]).shape[-1]
    if direction == "decoder":
        done -= model.config.lookahead * model.hop_length
    elif cut % model.hop_length:
        done -= 1  # the last frame is not whole
    for branch, rest in ((stream, left), (twin, right)):
        expected = whole(direction, model, torch.cat([start[..., :cut], rest], dim=-1))
        assert_same(run(branch, rest), expected[..., done:], model)


def test_states_that_do_not_belong_are_refused():
    model = codec()
    stream = model.stream_decoder()
    stream.push(random_codes(3, 4))
    before = stream.state()
    wrong = {
        "of this model": model.stream_encoder().state(),
        "of another model": codec(seed=1).stream_decoder().state(),
        "of batch 1": model.stream_decoder(batch=2).state(),
        "layers.0": before | {"layers.0": before["layers.0"][..., 1:]},
        "latent": before | {"latent": before["latent"].double()},
    }
    for message, state in wrong.items():
        with pytest.raises(SottoError, match=message):
            stream.restore(state)
    assert all(torch.equal(x, before[name]) for name, x in stream.state().items())


@each_direction
@pytest.mark.parametrize("kind", AT_ONCE)
def test_models_that_read_on_both_sides_are_refused(kind, direction):
    with pytest.raises(SottoError, match=r"looks ahead.*codec\.decoder\(\)"):
        stream_of(direction, codec(kind, causal=False))


@pytest.mark.parametrize(
    ("direction", "batch", "given", "message"),
    [
        ("encoder", 1, torch.zeros(2, 3), r"shape \(2, 3\).*\(1, 1, samples\) or \(samples,\)"),
        ("encoder", 2, torch.zeros(3), r"expected floats of shape \(2, 1, samples\)$"),
        ("encoder", 1, torch.zeros(3, dtype=torch.int16), "int16"),
        ("encoder", 1, torch.tensor([0, float("nan")]), "NaN or infinite"),
        ("encoder", 1, torch.tensor([0, -float("inf")]), "NaN or infinite"),
        ("decoder", 1, torch.zeros(3), "float32.*expected integers"),
        ("decoder", 1, torch.zeros(4, dtype=torch.int64), r"\(1, n, frames\) or \(n,\) with n"),
        ("decoder", 2, torch.zeros(3, 2, dtype=torch.int64), r"\(2, n, frames\) with n from 1 to"),
        ("decoder", 1, torch.tensor([1, 16, 3]), "codes from 1 to 16: this quantizer has 0 to 15"),
        ("decoder", 1, torch.tensor([1, -1, 3]), "codes from -1"),
    ],
)
def test_what_is_wrong_is_refused_and_nothing_of_it_taken(direction, batch, given, message):
    stream = stream_of(direction, codec(), batch=batch)
    before = stream.state()
    with pytest.raises(AudioError if direction == "encoder" else BitstreamError, match=message):
        stream.push(given)
    assert all(torch.equal(x, before[name]) for name, x in stream.state().items())


def test_impossible_streams_are_refused():
    model = codec()
    for direction in DIRECTIONS:
        with pytest.raises(ValueError, match="batch = 0"):
            stream_of(direction, model, batch=0)
        with pytest.raises(SottoError, match="4 codebooks: this model has 1 to 3"):
            stream_of(direction, model, n_quantizers=4)
    with pytest.raises(BitstreamError, match=r"\(1, 2, frames\) or \(2,\)"):
        model.stream_decoder(n_quantizers=2).push(random_codes(3))
    with pytest.raises(ValueError, match="-1 lost frames"):
        model.stream_decoder().push(None, frames=-1)


@each_direction
def test_a_closed_stream_takes_nothing(direction):
    model = codec()
    with stream_of(direction, model) as stream:
        stream.push(signal(direction, model, 1))
        twin = stream.copy()
    twin.push(signal(direction, model, 1))
    with pytest.raises(ValueError, match="closed"):
        stream.push(signal(direction, model, 1))


def held_bytes(stream) -> int:
    """Memory behind the tensors of a state: a view holds all that it is a view of."""
    return sum(x.untyped_storage().nbytes() for x in stream._tensors().values())


def living_tensors() -> int:
    gc.collect()
    return sum(issubclass(type(x), Tensor) for x in gc.get_objects())


@each_direction
@each_family
def test_what_a_stream_holds_does_not_grow(kind, direction):
    model = codec(kind)
    stream = stream_of(direction, model)
    piece, many = (signal(direction, model, frames) for frames in (3, 3000))
    for _ in range(8):
        stream.push(piece)
    tensors, held = living_tensors(), held_bytes(stream)
    for _ in range(100):
        stream.push(piece)
    assert held_bytes(stream) == held
    assert living_tensors() <= tensors
    stream.push(many)
    assert held_bytes(stream) < held + many.numel() * 4 / 10
