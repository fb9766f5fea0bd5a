import math

import pytest
import torch
from torch import Tensor

from codec.nn.quantizer import ResidualVectorQuantizer
from tests.support.quantizers import generator, latents, make, started


def error(quantizer: ResidualVectorQuantizer, latent: Tensor) -> float:
    return (quantizer.decode(quantizer.encode(latent)) - latent).square().mean().item()


def spoil(quantizer: ResidualVectorQuantizer, rows: slice) -> None:
    """Move rows of every codebook to where nothing hits them."""
    with torch.no_grad():
        for layer in quantizer.layers():
            layer.codebook[rows] += 100
            if layer.learning == "ema":
                averages = layer.statistics
                averages.sum[rows] = layer.codebook[rows] * averages.count[rows, None]


@pytest.mark.parametrize("learning", ["ema", "gradient"])
def test_revival_lowers_the_loss_and_survives_more_training(learning: str) -> None:
    quantizer = started(learning=learning, dropout=0.0)
    spoil(quantizer, slice(0, 8))
    quantizer.reset_usage()
    for seed in range(4):
        quantizer(latents(seed))
    before = error(quantizer, latents(50))
    assert all(use.used <= 0.5 for use in quantizer.usage())
    revival = quantizer.revive_dead_codes(generator=generator(), vectors_per_code=4)
    assert all(count >= 8 for count in revival.per_layer)
    assert revival.total == sum(revival.per_layer) == sum(int(rows.sum()) for rows in revival.rows)
    after = error(quantizer, latents(50))
    assert after < 0.9 * before
    for seed in range(10, 30):
        quantizer(latents(seed))
    assert all(use.used > 0.9 for use in quantizer.usage())
    assert error(quantizer, latents(50)) < 1.1 * after


def test_reset_moments_reaches_the_replaced_rows_only() -> None:
    quantizer = started(learning="gradient", dropout=0.0)
    optimizer = torch.optim.AdamW(quantizer.parameters(), lr=1e-3)
    output = quantizer(latents(1))
    (output.codebook_loss + output.quantized.sum()).backward()
    optimizer.step()
    for layer in quantizer.layers():
        optimizer.state[layer.codebook]["exp_avg"].fill_(1.0)
    spoil(quantizer, slice(0, 3))
    quantizer.reset_usage()
    for seed in range(3):
        quantizer(latents(seed))
    revival = quantizer.revive_dead_codes(vectors_per_code=4)
    quantizer.reset_moments(optimizer, revival)
    for layer, rows in zip(quantizer.layers(), revival.rows, strict=True):
        assert rows[:3].all()
        assert torch.equal(optimizer.state[layer.codebook]["exp_avg"][:, 0] == 0, rows)


def test_usage_is_perplexity_and_share_of_rows() -> None:
    quantizer = make(codebook_size=8)
    assert [(use.perplexity, use.used) for use in quantizer.usage()] == [(0.0, 0.0)] * 4
    hits = quantizer.codebooks[0].statistics.hits
    hits[:4] = 5
    assert quantizer.usage()[0].perplexity == pytest.approx(4)
    assert quantizer.usage()[0].used == 0.5
    hits[:] = torch.tensor([2, 1, 1, 0, 0, 0, 0, 0])
    assert quantizer.usage()[0].perplexity == pytest.approx(math.exp(1.5 * math.log(2)))
    quantizer.reset_usage()
    assert quantizer.usage()[0].used == 0
