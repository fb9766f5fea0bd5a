import pytest
import torch

from codec.training.pieces import random_piece


def two_batches():
    """Real samples that name their item and place, and decoded ones one higher."""
    real = (1000 * torch.arange(6.0)[:, None, None] + torch.arange(100.0)).contiguous()
    return real, (real + 1).requires_grad_()


def draw(seed=0, samples=30, share=0.5):
    generator = torch.Generator().manual_seed(seed)
    real, fake = two_batches()
    return (*random_piece(real, fake, samples=samples, share=share, generator=generator), fake)


def test_real_and_decoded_are_the_same_samples_of_the_same_items():
    places, starts = set(), set()
    for seed in range(20):
        real, fake, _ = draw(seed)
        assert real.shape == fake.shape == (3, 1, 30)
        assert torch.equal(real + 1, fake)
        assert torch.equal(real[..., 1:], real[..., :-1] + 1)
        places.add(tuple((real[:, 0, 0] // 1000).tolist()))
        starts.add(float(real[0, 0, 0]) % 1000)
    assert all(len(set(items)) == 3 and list(items) == sorted(items) for items in places)
    assert len(places) > 5
    assert len(starts) > 5


def test_the_gradient_goes_to_the_piece_alone():
    _, fake, whole = draw()
    fake.sum().backward()
    assert whole.grad.sum() == fake.numel()
    assert torch.equal(whole.grad > 0, torch.isin(whole, fake))


def test_the_piece_comes_from_the_generator_alone():
    torch.manual_seed(1)
    first = draw()[0]
    torch.manual_seed(2)
    assert torch.equal(first, draw()[0])


@pytest.mark.parametrize(("samples", "share"), [(None, 1.0), (100, 1.0), (200, 0.95)])
def test_all_of_it_is_handed_on_and_draws_nothing(samples, share):
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    real, fake = two_batches()
    pieces = random_piece(real, fake, samples=samples, share=share, generator=generator)
    assert pieces[0] is real
    assert pieces[1] is fake
    assert torch.equal(generator.get_state(), before)


def test_one_item_is_heard_at_least():
    assert draw(share=0.01)[0].shape == (1, 1, 30)
