import pytest
import torch

from codec.building import build_autoencoder
from codec.chunking import decoder_grid
from codec.config_model import ModelConfig
from codec.foreign.check import check_layers
from codec.foreign.chunked import Chunked
from codec.foreign.sotto import DecoderLayers, sotto_decoder
from codec.nn.autoencoder import Autoencoder

HALVES = {
    "seanet": {"channels": 4},
    "convnext": {"kind": "convnext", "channels": [8, 12], "blocks": [1, 1]},
}
STRIDES = {"seanet": [3, 4, 5], "convnext": [12, 5]}


def model(kind: str, causal: bool) -> Autoencoder:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        quantizer = {"n_quantizers": 3, "codebook_size": 16}
        keys = {"dimension": 8, "strides": STRIDES[kind], "hop_length": 60}
        keys |= {"default_kbps": 3.2, "causal": causal}
        half = HALVES[kind]
        config = ModelConfig.model_validate(
            keys | {"quantizer": quantizer, "encoder": half, "decoder": half}
        )
        made = build_autoencoder(config).eval().requires_grad_(False)
        for parameter in made.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
        for codebook in made.quantizer.buffers():
            if codebook.is_floating_point() and codebook.ndim == 2:
                codebook.normal_()
    return made


@pytest.mark.parametrize("causal", [True, False], ids=["causal", "both-sides"])
@pytest.mark.parametrize("kind", list(HALVES))
@pytest.mark.parametrize("window", [1, 5])
def test_streamed_equals_whole_with_the_context_of_sottos_own_grid(kind, causal, window):
    autoencoder = model(kind, causal)
    stream = sotto_decoder(autoencoder, window=window, sample_rate=16000)
    (stage,) = stream.stages
    grid = decoder_grid(autoencoder.decoder, window)
    assert isinstance(stage, Chunked)
    assert (stage.before, stage.after) == (grid.before, grid.after)
    assert stream.delay == stream.start == window + grid.after
    codes = torch.randint(16, (1, 3, 33), generator=torch.Generator().manual_seed(1))
    expected = autoencoder.decoder(autoencoder.quantizer.decode(codes))
    pieces = [stream.push(piece) for piece in codes.split(2, dim=-1)]
    wave = torch.cat([*pieces, stream.finish()], dim=-1)
    assert expected.std() > 1e-3
    torch.testing.assert_close(wave, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("kind", list(HALVES))
def test_the_layers_are_described_truly(kind):
    decoder = model(kind, causal=False).decoder
    check_layers(decoder, DecoderLayers(decoder), torch.randn(1, 8, 50))
