import pytest
import torch

from tests.support.quantizers import generator, latents, make, started, state


def test_dropout_leaves_out_codebooks_per_item_and_their_statistics() -> None:
    quantizer = started(dropout=0.5)
    quantizer.reset_usage()
    filled = [int(layer.statistics.cache.filled) for layer in quantizer.layers()]
    latent = latents(1, batch=64, frames=2)
    output = quantizer(latent, generator=generator())
    in_use = (output.codes >= 0).all(2)
    assert torch.equal(in_use, (output.codes >= 0).any(2))
    depths = in_use.sum(1)
    for item, depth in enumerate(depths.tolist()):
        assert in_use[item].tolist() == [n < depth for n in range(4)]  # the first ones
    served = in_use.sum(0).tolist()
    for layer, items, before in zip(quantizer.layers(), served, filled, strict=True):
        assert int(layer.statistics.hits.sum()) == items * 2
        assert int(layer.statistics.cache.filled) == min(200, before + items * 2)
    assert served[0] == 64
    assert 64 > served[1] > served[2] > served[3] > 32


@pytest.mark.parametrize("dropout", [0.0, 0.5, 1.0])
def test_dropout_draws_depths_as_it_says(dropout: float) -> None:
    quantizer = started(dropout=dropout)
    codes = quantizer(latents(1, batch=4000, frames=1), generator=generator()).codes
    shares = (codes[:, :, 0] >= 0).sum(1).bincount(minlength=5)[1:] / 4000
    expected = torch.full((4,), dropout / 4)
    expected[3] += 1 - dropout
    torch.testing.assert_close(shares, expected, atol=0.04, rtol=0)


def test_items_of_unequal_depth_are_quantized_as_if_alone() -> None:
    quantizer = started().eval()
    latent, depths = latents(1), torch.tensor([2, 4, 1, 3])
    together = quantizer(latent, n_quantizers=depths)
    for item, depth in enumerate(depths.tolist()):
        alone = quantizer(latent[item : item + 1], n_quantizers=depth)
        assert torch.equal(together.codes[item], alone.codes[0])
        torch.testing.assert_close(together.quantized[item], alone.quantized[0])


def test_codebooks_left_out_learn_nothing() -> None:
    quantizer = started()
    before = state(quantizer)
    quantizer(latents(1), n_quantizers=2)
    after = quantizer.state_dict()
    for index in range(4):
        names = [f"codebooks.{index}.codebook", f"codebooks.{index}.statistics.cache.vectors"]
        for name in names:
            assert torch.equal(before[name], after[name]) == (index >= 2), name
        hits = after[f"codebooks.{index}.statistics.hits"]
        assert int(hits.sum()) == (80 if index < 2 else 0)


def test_depths_must_be_one_or_one_each() -> None:
    with pytest.raises(ValueError, match="each of the 4 items"):
        make()(latents(), n_quantizers=torch.tensor([1, 2, 3]))


@pytest.mark.parametrize("continuous", [0.0, 0.5, 1.0])
def test_spared_items_come_back_as_they_went_in_and_are_learnt_from(continuous: float) -> None:
    quantizer = started(continuous=continuous, dropout=0.0)
    plain = started(continuous=0.0, dropout=0.0)
    latent = latents(3, batch=200)
    output, expected = (q(latent, generator=generator(5)) for q in (quantizer, plain))
    same = (output.quantized == latent).flatten(1).all(dim=1)
    assert abs(float(same.float().mean()) - continuous) < 0.1
    torch.testing.assert_close(output.quantized[~same], expected.quantized[~same])
    torch.testing.assert_close(output.codes, expected.codes)
    torch.testing.assert_close(quantizer.usage(), plain.usage())


def test_nobody_is_spared_outside_training() -> None:
    quantizer = started(continuous=1.0).eval()
    latent = latents(3)
    assert not torch.equal(quantizer(latent).quantized, latent)
