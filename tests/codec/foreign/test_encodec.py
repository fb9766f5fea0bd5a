from functools import cache

import pytest
import torch
from encodec import EncodecModel
from encodec.modules import SEANetDecoder
from encodec.quantization import ResidualVectorQuantizer
from torch import Tensor, nn

from codec.errors import BitstreamError, ForeignCodecError
from codec.foreign.check import check_layers
from codec.foreign.chunked import Chunked
from codec.foreign.describe import describe
from codec.foreign.encodec import HANDLERS, Carried, decoder_stages, encodec_decoder
from codec.foreign.stream import ForeignDecoder

# The packages' own weight norm warns that PyTorch has a newer one.
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")


@cache
def model(causal: bool = True, lstm: int = 2, ratios: tuple[int, ...] = (5, 3, 2)) -> EncodecModel:
    """The 24 kHz model's architecture, smaller, and loud enough that errors show."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        sizes = {"dimension": 8, "n_filters": 4, "ratios": list(ratios), "causal": causal}
        sizes |= {"lstm": lstm, "dilation_base": 2, "n_residual_layers": 2}
        quantizer = ResidualVectorQuantizer(dimension=8, n_q=4, bins=16)
        decoder = SEANetDecoder(**sizes)
        made = EncodecModel(encoder(sizes), decoder, quantizer, [1.0], 24000, 1)
        for parameter in made.parameters():
            parameter.data += 0.2 * torch.randn_like(parameter)
        for name, buffer in made.named_buffers():
            if name.endswith("embed"):  # zeros until they are trained
                buffer.normal_(std=3.0)
    return made.eval()


def encoder(sizes: dict) -> nn.Module:
    from encodec.modules import SEANetEncoder

    return SEANetEncoder(**sizes)


def random_codes(frames: int, batch: int = 1) -> Tensor:
    return torch.randint(16, (batch, 4, frames), generator=torch.Generator().manual_seed(2))


def whole(codec: EncodecModel, codes: Tensor) -> Tensor:
    with torch.inference_mode():
        return codec.decode([(codes, None)])


def streamed(stream: ForeignDecoder, codes: Tensor, piece: int) -> Tensor:
    pieces = [stream.push(part) for part in codes.split(piece, dim=-1)]
    return torch.cat([*pieces, stream.finish()], dim=-1)


@pytest.mark.parametrize("window", [1, 3, 8])
@pytest.mark.parametrize("lstm", [0, 2])
@pytest.mark.parametrize("causal", [True, False], ids=["causal", "both-sides"])
def test_streamed_equals_whole(causal, lstm, window):
    codec = model(causal, lstm)
    for frames in (1, 2, 6, 7, 8, 50):
        codes = random_codes(frames)
        expected = whole(codec, codes)
        assert expected.shape == (1, 1, frames * 30)
        wave = streamed(encodec_decoder(codec, window=window), codes, 1 + frames // 3)
        torch.testing.assert_close(wave, expected, rtol=0, atol=2e-6)
    other = whole(codec, codes.roll(1, dims=-1))
    assert (other - expected)[..., 600:].std() > 0.005


@pytest.mark.parametrize("causal", [True, False], ids=["causal", "both-sides"])
def test_the_layers_are_described_truly(causal):
    decoder = model(causal, lstm=0).decoder
    check_layers(decoder, describe(decoder, HANDLERS), torch.randn(1, 8, 60))


def test_the_causal_model_waits_for_the_reflected_start_alone():
    codes = random_codes(40)
    for window in (1, 4):
        stream = encodec_decoder(model(), window=window)
        assert (stream.delay, stream.start) == (window, 7)
        assert stream.push(codes[..., :6]).shape[-1] == 0
        assert stream.push(codes[..., 6:7]).shape[-1] == (7 // window) * window * 30
        for n in range(8, 41):
            new = stream.push(codes[..., n - 1 : n]).shape[-1]
            assert new == (window * 30 if n % window == 0 else 0)


def test_a_model_that_looks_ahead_has_a_bounded_delay():
    stream = encodec_decoder(model(causal=False), window=2)
    codes = random_codes(200)
    out = 0
    for n, frame in enumerate(codes.split(1, dim=-1), start=1):
        out += stream.push(frame).shape[-1]
        assert n <= stream.start or n * 30 - out < stream.delay * 30
    assert 3 < stream.delay < 12
    assert stream.delay_seconds == stream.delay * 30 / 24000
    assert out + stream.finish().shape[-1] == stream.length(200) == 200 * 30


def test_each_frame_passes_the_lstm_once():
    """Not again with every window, as it would as a part of what is chunked."""
    codec = model()
    stages = decoder_stages(codec.decoder, 2)
    assert [type(stage) for stage in stages] == [Chunked, Carried, Chunked]
    lstm = next(m for m in codec.decoder.modules() if isinstance(m, nn.LSTM))
    frames: list[int] = []
    hook = lstm.register_forward_hook(lambda m, inputs, out: frames.append(inputs[0].shape[0]))
    try:
        streamed(encodec_decoder(codec, window=2), random_codes(31), 3)
    finally:
        hook.remove()
    assert sum(frames) == 31


def test_two_streams_of_one_model_do_not_meet():
    codec, codes = model(), random_codes(20)
    a, b = encodec_decoder(codec, window=2), encodec_decoder(codec, window=2)
    pieces = []
    for part, other in zip(codes.split(2, -1), codes.flip(-1).split(2, -1), strict=True):
        pieces.append(a.push(part))
        b.push(other)
    wave = torch.cat([*pieces, a.finish()], dim=-1)
    assert torch.equal(wave, streamed(encodec_decoder(codec, window=2), codes, 5))


def test_the_batch_is_decoded_side_by_side():
    codes = random_codes(20, batch=3)
    wave = streamed(encodec_decoder(model(), window=4), codes, 7)
    torch.testing.assert_close(wave, whole(model(), codes), rtol=0, atol=1e-4)


def test_what_normalises_each_second_is_refused():
    with pytest.raises(ForeignCodecError, match="segment"):
        encodec_decoder(EncodecModel.encodec_model_48khz(pretrained=False), window=4)
    decoder = SEANetDecoder(dimension=8, n_filters=4, ratios=[2], norm="time_group_norm")
    with pytest.raises(ForeignCodecError, match="GroupNorm"):
        decoder_stages(decoder, 4)


@pytest.mark.parametrize(
    ("codes", "told"),
    [
        (torch.full((1, 4, 1), 16), "16"),
        (torch.full((1, 4, 1), -1), "-1"),
        (torch.zeros(1, 5, 1, dtype=torch.int64), "n from 1 to 4"),
        (torch.zeros(4, 1, dtype=torch.int64), "batch, n, frames"),
        (torch.zeros(1, 4, 1), "integers"),
    ],
    ids=["above", "below", "other-n", "two-dimensions", "floats"],
)
def test_bad_codes_are_refused_and_leave_the_stream_alone(codes, told):
    good = random_codes(12)
    stream = encodec_decoder(model(), window=2)
    first = stream.push(good[..., :9])
    with pytest.raises(BitstreamError, match=told):
        stream.push(codes)
    wave = torch.cat([first, stream.push(good[..., 9:]), stream.finish()], dim=-1)
    assert torch.equal(wave, streamed(encodec_decoder(model(), window=2), good, 4))


def test_no_frames_are_no_samples():
    stream = encodec_decoder(model(), window=2)
    assert stream.push(random_codes(0)).shape == (1, 1, 0)
    wave = streamed(stream, random_codes(9), 2)
    torch.testing.assert_close(wave, whole(model(), random_codes(9)))
    stream = encodec_decoder(model(), window=2)
    assert stream.finish().shape == (1, 1, 0)
    with pytest.raises(ValueError, match="finished"):
        stream.finish()
    with pytest.raises(ValueError, match="finished"):
        stream.push(random_codes(1))
