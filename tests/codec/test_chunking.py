from collections.abc import Callable, Sequence
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from codec.chunking import ChunkedDecoder, ChunkedEncoder, decoder_grid, encoder_grid, window_frames
from codec.errors import AudioError, BitstreamError
from codec.nn.autoencoder import Autoencoder
from codec.nn.convnext import ConvNeXtDecoder, ConvNeXtEncoder
from codec.nn.quantizer import ResidualVectorQuantizer
from codec.nn.seanet import SEANetDecoder, SEANetEncoder
from codec.nn.voice_halves import VoiceDecoder, VoiceEncoder
from tests.support.voices import assert_sounds_like

MODELS = ["seanet-2x3", "seanet-5", "seanet-3x7-odd-kernels", "convnext-4x3", "convnext-noise"]
VOICES = ["voice", "voice-2-ahead"]
CAUSAL = [True, False]
WINDOWS = [1, 3, 40]  # less than the context, too

both = pytest.mark.parametrize("causal", CAUSAL, ids=["causal", "both-sides"])
each_model = pytest.mark.parametrize(
    ("name", "causal"),
    [(name, causal) for name in MODELS for causal in CAUSAL] + [(name, True) for name in VOICES],
)


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@cache
def model(name: str, causal: bool) -> Autoencoder:
    """With biases all over: what pads with zeros where it should not is noticed."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        sizes: dict = {"dimension": 6, "causal": causal}
        if name.startswith("voice"):
            sizes = {"sample_rate": 1600, "strides": (8, 2), "channels": (6, 8), "blocks": (1, 1)}
            encoder = VoiceEncoder(dimension=6, **sizes)
            decoder = VoiceDecoder(dimension=6, lookahead=2 if "2" in name else 1, **sizes)
        elif name.startswith("convnext"):
            sizes |= {"strides": (4, 3), "channels": (6, 8), "blocks": (1, 1)}
            encoder = ConvNeXtEncoder(n_fft=10, **sizes)
            noise = 4 if name.endswith("noise") else 0
            decoder = ConvNeXtDecoder(noise_channels=noise, **sizes)
        else:
            strides = {"seanet-2x3": (2, 3), "seanet-5": (5,)}.get(name, (3, 7))
            sizes |= {"channels": 4, "strides": strides, "dilations": (1, 3), "activation": "elu"}
            if name.endswith("kernels"):
                sizes |= {"kernel_size": 4, "residual_kernel_size": 2}
            encoder, decoder = SEANetEncoder(**sizes), SEANetDecoder(**sizes)
        quantizer = ResidualVectorQuantizer(dimension=6, n_quantizers=3, codebook_size=16)
        autoencoder = Autoencoder(encoder, quantizer, decoder)
        with torch.no_grad():
            for parameter in autoencoder.parameters():
                size = 0.05 if name.startswith("voice") else 0.2
                parameter += size * torch.randn_like(parameter)
    return autoencoder.eval().requires_grad_(False)


def noise(channels: int, samples: int, seed: int = 1) -> Tensor:
    return 0.3 * torch.randn(channels, samples, generator=torch.Generator().manual_seed(seed))


def random_codes(channels: int, frames: int, n: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randint(16, (channels, n, frames), generator=generator)


def encoder_of(autoencoder: Autoencoder, window: int, channels: int = 1) -> ChunkedEncoder:
    return ChunkedEncoder(autoencoder, channels=channels, n_quantizers=3, window=window)


def decoder_of(autoencoder: Autoencoder, window: int, channels: int = 1) -> ChunkedDecoder:
    return ChunkedDecoder(autoencoder, channels=channels, window=window)


def run(coder: ChunkedEncoder | ChunkedDecoder, stream: Tensor, cuts: Sequence[int] = ()) -> Tensor:
    """Pushes the pieces in one array that is overwritten, as readers of files do."""
    edges = [0, *sorted(cuts), stream.shape[-1]]
    out = []
    for start, stop in pairwise(edges):
        piece = stream[..., start:stop].numpy().copy()
        out.append(coder.push(piece))
        piece[...] = 7
    return torch.cat([*out, coder.finish()], dim=-1)


class Latents(torch.nn.Module):
    """In place of the quantizer: lets latents through, so that they can be compared."""

    def encode(self, latent: Tensor, n_quantizers: int) -> Tensor:
        return latent


def lengths(data: st.DataObject, window: int, unit: int) -> int:
    """Around nothing, whole frames and whole windows."""
    frames = data.draw(st.sampled_from([0, 1, 2]) | st.integers(0, 3 * window + 20))
    near = data.draw(st.sampled_from([0, window, 2 * window]))
    return max(0, (frames + near) * unit + data.draw(st.integers(-1, 1)))


def cuts_of(data: st.DataObject, length: int) -> list[int]:
    """Anywhere, doubled ones (empty pieces) and runs of single items among them."""
    cuts = data.draw(st.lists(st.integers(0, length), max_size=8))
    start = data.draw(st.integers(0, length))
    single = data.draw(st.sampled_from([0, 5, 30]))
    return cuts + list(range(start, min(length, start + single)))


@each_model
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_codes_do_not_depend_on_how_a_signal_is_cut(name, causal, data):
    autoencoder, window = model(name, causal), data.draw(st.sampled_from(WINDOWS))
    hop = autoencoder.encoder.hop_length
    wave = noise(1, lengths(data, window, hop))
    codes = run(encoder_of(autoencoder, window), wave, cuts_of(data, wave.shape[-1]))
    assert codes.dtype == torch.int64
    assert codes.shape == (1, 3, -(-wave.shape[-1] // hop))
    assert torch.equal(codes, run(encoder_of(autoencoder, window), wave))


@each_model
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_the_wave_does_not_depend_on_how_codes_are_cut(name, causal, data):
    autoencoder, window = model(name, causal), data.draw(st.sampled_from(WINDOWS))
    codes = random_codes(1, lengths(data, window, 1), data.draw(st.integers(1, 3)))
    wave = run(decoder_of(autoencoder, window), codes, cuts_of(data, codes.shape[-1]))
    assert wave.dtype == torch.float32
    assert wave.shape == (1, codes.shape[-1] * autoencoder.decoder.hop_length)
    assert torch.equal(wave, run(decoder_of(autoencoder, window), codes))


@each_model
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_latents_are_those_of_the_whole_signal(name, causal, data):
    whole, window = model(name, causal), data.draw(st.sampled_from(WINDOWS))
    wave = noise(1, max(1, lengths(data, window, whole.encoder.hop_length)))
    passing = Autoencoder(whole.encoder, whole.quantizer, whole.decoder)
    passing.quantizer = Latents()
    encoder = ChunkedEncoder(passing, channels=1, n_quantizers=6, window=window)
    latents = run(encoder, wave)
    expected = whole.encoder(wave[None])
    assert expected.std() > 0.05
    torch.testing.assert_close(latents, expected, rtol=1e-4, atol=1e-5 * float(expected.std()))


@each_model
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_waves_are_those_of_the_whole_signal(name, causal, data):
    whole, window = model(name, causal), data.draw(st.sampled_from(WINDOWS))
    codes = random_codes(1, max(1, lengths(data, window, 1)))
    wave = run(decoder_of(whole, window), codes)
    expected = whole.decoder(whole.quantizer.decode(codes))[0]
    assert expected.std() > 0.01
    if name in VOICES:  # whose phase adds rounding up
        return assert_sounds_like(wave, expected)
    torch.testing.assert_close(wave, expected, rtol=1e-4, atol=1e-5 * float(expected.std()))


@each_model
@pytest.mark.parametrize("side", ["before", "after"])
def test_no_context_is_longer_than_it_has_to_be(name, causal, side):
    """One frame of context less, and inputs are missing; none is there for nothing."""
    autoencoder = model(name, causal)
    encoder, decoder = autoencoder.encoder, autoencoder.decoder
    window = 2
    for grid, reads, unit in (
        (
            encoder_grid(encoder, window),
            _reads(encoder, window, 1, encoder.hop_length),
            encoder.hop_length,
        ),
        (decoder_grid(decoder, window), _reads(decoder.windowed, window, 6, 1), 1),
    ):
        first, last = (int(at) // unit - 30 for at in reads)
        expected = -first if side == "before" else max(0, last + 1 - window)
        assert getattr(grid, side) == expected
        assert causal <= (grid.after == 0)


def _reads(
    network: Callable[[Tensor], Tensor], window: int, channels: int, unit: int, frames: int = 60
) -> tuple[Tensor, Tensor]:
    """First and last input that `window` frames from frame 30 on depend on, by gradient."""
    x = torch.randn(1, channels, frames * unit, dtype=torch.float32, requires_grad=True)
    y = network(x)
    frame = y.shape[-1] // frames
    wanted = y[..., 30 * frame : (30 + window) * frame]
    (gradient,) = torch.autograd.grad(wanted.square().sum(), x)
    touched = gradient.abs().sum((0, 1)).nonzero()
    return touched[0], touched[-1]


@both
def test_channels_are_coded_each_by_itself(causal):
    autoencoder = model("seanet-2x3", causal)
    waves, codes = noise(3, 500), random_codes(3, 70)
    encoded = run(encoder_of(autoencoder, 10, channels=3), waves)
    decoded = run(decoder_of(autoencoder, 10, channels=3), codes)
    for i in range(3):
        alone = run(encoder_of(autoencoder, 10), waves[i : i + 1])
        assert torch.equal(encoded[i : i + 1], alone)
        assert torch.equal(decoded[i : i + 1], run(decoder_of(autoencoder, 10), codes[i : i + 1]))


@both
def test_the_network_never_sees_more_than_a_window(causal):
    """So memory does not grow, and a causal model meets few different shapes."""
    autoencoder = model("seanet-2x3", causal)
    grid = encoder_grid(autoencoder.encoder, 40)
    seen: list[int] = []
    hook = autoencoder.encoder.register_forward_hook(
        lambda network, inputs, output: seen.append(inputs[0].shape[-1])
    )
    try:
        run(encoder_of(autoencoder, 40), noise(1, 6 * 1000))
        assert len(seen) == 25
        assert max(seen) == (grid.before + 40 + grid.after) * 6
        seen.clear()
        for samples in range(1, 1000, 9):
            run(encoder_of(autoencoder, 40), noise(1, samples))
    finally:
        hook.remove()
    assert not causal or len(set(seen)) <= 8


@both
def test_a_window_comes_out_after_the_delay(causal):
    autoencoder = model("seanet-2x3", causal)
    encoder, decoder = encoder_of(autoencoder, 10), decoder_of(autoencoder, 10)
    assert encoder.window_frames == decoder.window_frames == 10
    assert (encoder.delay == 10 * 6) == (decoder.delay == 10) == causal
    assert encoder.push(noise(1, encoder.delay - 1)).shape == (1, 3, 0)
    assert encoder.push(noise(1, 1)).shape == (1, 3, 10)
    assert encoder.push(noise(1, 59)).shape == (1, 3, 0)
    assert encoder.push(noise(1, 1)).shape == (1, 3, 10)
    assert decoder.push(random_codes(1, decoder.delay - 1)).shape == (1, 0)
    assert decoder.push(random_codes(1, 1)).shape == (1, 60)


def test_an_empty_stream_has_no_codes_and_no_codes_no_wave():
    autoencoder = model("seanet-5", True)
    assert encoder_of(autoencoder, 4, channels=2).finish().shape == (2, 3, 0)
    assert decoder_of(autoencoder, 4, channels=2).finish().shape == (2, 0)
    decoder = decoder_of(autoencoder, 4)
    assert decoder.push(random_codes(1, 0)).shape == (1, 0)
    assert decoder.finish().shape == (1, 0)


@pytest.mark.parametrize("make", [encoder_of, decoder_of], ids=["encoder", "decoder"])
def test_a_finished_stream_takes_nothing_more(make: Callable):
    coder = make(model("seanet-5", True), 4)
    coder.finish()
    with pytest.raises(ValueError, match="finished"):
        coder.finish()
    with pytest.raises(ValueError, match="finished"):
        coder.push(noise(1, 5))


@pytest.mark.parametrize("make", [encoder_of, decoder_of], ids=["encoder", "decoder"])
def test_a_stream_has_channels(make: Callable):
    with pytest.raises(ValueError, match="channels = 0"):
        make(model("seanet-5", True), 4, channels=0)


@pytest.mark.parametrize(
    ("piece", "told"),
    [
        (torch.tensor([[0.0, float("nan")]]), "NaN"),
        (torch.tensor([[float("inf")]]), "infinite"),
        (torch.zeros(2, 5), r"\(1, samples\)"),
        (torch.zeros(5), r"\(1, samples\)"),
        (torch.zeros(1, 5, dtype=torch.int16), "floats"),
    ],
    ids=["nan", "inf", "channels", "one-dimension", "integers"],
)
def test_a_bad_piece_is_refused_and_leaves_the_stream_alone(piece, told):
    autoencoder, wave = model("seanet-5", True), noise(1, 33)
    encoder = encoder_of(autoencoder, 4)
    first = encoder.push(wave[:, :22])
    with pytest.raises(AudioError, match=told):
        encoder.push(piece)
    codes = torch.cat([first, encoder.push(wave[:, 22:]), encoder.finish()], dim=-1)
    assert torch.equal(codes, run(encoder_of(autoencoder, 4), wave))


@pytest.mark.parametrize(
    ("piece", "told"),
    [
        (torch.full((1, 3, 1), 16), "16"),
        (torch.full((1, 3, 1), -1), "-1"),
        (torch.zeros(1, 2, 1, dtype=torch.int64), "n = 3"),
        (torch.zeros(2, 3, 1, dtype=torch.int64), r"\(1, n, frames\)"),
        (torch.zeros(3, 1, dtype=torch.int64), r"\(1, n, frames\)"),
        (torch.zeros(1, 3, 1), "integers"),
    ],
    ids=["above", "below", "other-n", "channels", "two-dimensions", "floats"],
)
def test_bad_codes_are_refused_and_leave_the_stream_alone(piece, told):
    autoencoder, codes = model("seanet-5", True), random_codes(1, 9)
    decoder = decoder_of(autoencoder, 4)
    first = decoder.push(codes[..., :6])
    with pytest.raises(BitstreamError, match=told):
        decoder.push(piece)
    wave = torch.cat([first, decoder.push(codes[..., 6:]), decoder.finish()], dim=-1)
    assert torch.equal(wave, run(decoder_of(autoencoder, 4), codes))


def test_codes_of_any_integer_type_go_in():
    autoencoder, codes = model("seanet-5", True), random_codes(1, 9)
    expected = run(decoder_of(autoencoder, 4), codes)
    for dtype in (np.uint8, np.uint16, np.int32):
        wave = decoder_of(autoencoder, 20)
        wave.push(codes.numpy().astype(dtype))
        torch.testing.assert_close(wave.finish(), expected)


def test_windows_last_two_seconds_or_eight_times_the_context():
    autoencoder = model("seanet-2x3", False)
    contexts = [
        grid.before + grid.after
        for grid in (encoder_grid(autoencoder.encoder, 1), decoder_grid(autoencoder.decoder, 1))
    ]
    assert window_frames(autoencoder, 0.1) == 8 * max(contexts) > 8
    assert window_frames(autoencoder, 8.0 * max(contexts)) == 16 * max(contexts)
