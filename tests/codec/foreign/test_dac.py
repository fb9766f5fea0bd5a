from functools import cache

import pytest
import torch
from torch import Tensor, nn

from codec.errors import ForeignCodecError
from codec.foreign.check import check_layers
from codec.foreign.chunked import Chunked
from codec.foreign.dac import dac_decoder, handlers
from codec.foreign.dac_classes import dac_classes
from codec.foreign.describe import describe
from codec.foreign.stream import ForeignDecoder

try:
    dac_classes()
except ForeignCodecError as missing:  # its packages are too many for the development extra
    pytest.skip(str(missing), allow_module_level=True)

# The package's own weight norm and TorchScript warn that PyTorch has newer ones.
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")

RATES = [(8, 4, 2), (8, 5, 4, 2), (5, 3), (3, 7, 2)]


@cache
def model(rates: tuple[int, ...]) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = dac_classes().DAC(
            encoder_dim=4,
            encoder_rates=list(reversed(rates)),
            latent_dim=16,
            decoder_dim=32,
            decoder_rates=list(rates),
            n_codebooks=3,
            codebook_size=16,
            sample_rate=16000,
        )
        for parameter in made.parameters():
            parameter.data += 0.05 * torch.randn_like(parameter)
    return made.eval()


def random_codes(frames: int) -> Tensor:
    return torch.randint(16, (1, 3, frames), generator=torch.Generator().manual_seed(2))


def whole(dac: nn.Module, codes: Tensor) -> Tensor:
    with torch.inference_mode():
        return dac.decode(dac.quantizer.from_codes(codes)[0])


def streamed(stream: ForeignDecoder, codes: Tensor, piece: int) -> Tensor:
    pieces = [stream.push(part) for part in codes.split(piece, dim=-1)]
    return torch.cat([*pieces, stream.finish()], dim=-1)


@pytest.mark.parametrize("window", [1, 4, 20])
@pytest.mark.parametrize("rates", RATES, ids=str)
def test_streamed_equals_whole_and_is_as_long(rates, window):
    dac = model(rates)
    for frames in (1, 2, 5, 47):
        codes = random_codes(frames)
        expected = whole(dac, codes)
        stream = dac_decoder(dac, window=window)
        wave = streamed(stream, codes, 1 + frames // 4)
        assert wave.shape == expected.shape == (1, 1, stream.length(frames))
        torch.testing.assert_close(wave, expected, rtol=0, atol=1e-5)
    assert expected.std() > 0.05


def test_odd_strides_lose_a_sample_times_the_strides_behind_them():
    lost = {rates: 10 * dac_decoder(model(rates), window=1).hop_length for rates in RATES}
    for rates in RATES:
        lost[rates] -= dac_decoder(model(rates), window=1).length(10)
    assert list(lost.values()) == [0, 1 * 4 * 2, 1 * 3 + 1, 1 * 7 * 2 + 1 * 2]


@pytest.mark.parametrize("rates", RATES, ids=str)
def test_the_layers_of_both_halves_are_described_truly(rates):
    dac = model(rates)
    check_layers(dac.decoder, describe(dac.decoder, handlers()), torch.randn(1, 16, 50))
    wave = torch.randn(1, 1, 24 * dac.hop_length)
    check_layers(dac.encoder, describe(dac.encoder, handlers()), wave)


@pytest.mark.parametrize("rates", RATES, ids=str)
def test_the_encoder_streams_too(rates):
    dac = model(rates)
    wave = 0.3 * torch.randn(1, 1, 40 * int(dac.hop_length) + 3)
    with torch.inference_mode():
        expected = dac.encoder(wave)
    layers = describe(dac.encoder, handlers())
    stage = Chunked(dac.encoder, layers, window=5, out_channels=16)
    latent = torch.cat([*(stage.push(x) for x in wave.split(100, -1)), stage.finish()], dim=-1)
    torch.testing.assert_close(latent, expected, rtol=0, atol=1e-5 * float(expected.std()))


def test_without_padding_the_wave_is_that_of_the_whole_without():
    dac = model((5, 3))
    dac.padding = False
    try:
        codes = random_codes(60)
        expected = whole(dac, codes)
        wave = streamed(dac_decoder(dac, window=4), codes, 7)
    finally:
        dac.padding = True
    assert 0 < expected.shape[-1] < 60 * 15 - 100
    torch.testing.assert_close(wave, expected, rtol=0, atol=1e-5)


def test_the_delay_is_known_and_kept():
    stream = dac_decoder(model((8, 5, 4, 2)), window=3)
    assert stream.delay == stream.start
    assert stream.push(random_codes(stream.delay - 1)).shape[-1] == 0
    assert stream.push(random_codes(1)).shape[-1] == 3 * 320
    assert stream.delay_seconds == pytest.approx(stream.delay * 0.02)


def test_only_the_model_is_imported():
    import sys

    dac_classes()
    loaded = {name.partition(".")[0] for name in sys.modules}
    assert "audiotools" not in loaded or sys.modules["audiotools"].__file__


def test_no_frames_are_no_samples():
    stream = dac_decoder(model((5, 3)), window=2)
    assert stream.push(random_codes(0)).shape == (1, 1, 0)
    wave = streamed(stream, random_codes(9), 2)
    torch.testing.assert_close(wave, whole(model((5, 3)), random_codes(9)))
    stream = dac_decoder(model((5, 3)), window=2)
    assert stream.finish().shape == (1, 1, 0)
    with pytest.raises(ValueError, match="finished"):
        stream.finish()
    with pytest.raises(ValueError, match="finished"):
        stream.push(random_codes(1))
