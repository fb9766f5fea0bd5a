import pytest
import torch

from codec.losses.adversarial import AdversarialKind, AdversarialLoss, feature_matching

REAL = [torch.tensor([[2.0, 0.5]]), torch.tensor([-1.0])]
FAKE = [torch.tensor([[-2.0, 0.5]]), torch.tensor([3.0])]


@pytest.mark.parametrize(
    ("kind", "real", "fake", "generator"),
    [
        # hinge: real ((0 + .5)/2 + 2)/2, fake ((0 + 1.5)/2 + 4)/2, generator ((3 + .5)/2 + 0)/2
        pytest.param("hinge", 1.125, 2.375, 0.875, id="hinge"),
        # squares: ((1 + .25)/2 + 4)/2, ((4 + .25)/2 + 9)/2, ((9 + .25)/2 + 4)/2
        pytest.param("least_squares", 2.3125, 5.5625, 4.3125, id="least_squares"),
    ],
)
def test_closed_forms(kind: AdversarialKind, real: float, fake: float, generator: float) -> None:
    loss = AdversarialLoss(kind)
    value = loss.discriminator(REAL, FAKE)
    assert value.parts["real"].item() == pytest.approx(real)
    assert value.parts["fake"].item() == pytest.approx(fake)
    assert value.total.item() == pytest.approx(real + fake)
    assert loss.generator(FAKE).total.item() == pytest.approx(generator)


def test_every_discriminator_counts_the_same_whatever_its_size() -> None:
    small, large = torch.zeros(1), torch.ones(1000)
    assert AdversarialLoss("least_squares").generator([small, large]).total.item() == 0.5


def test_hinge_rests_outside_the_margin() -> None:
    logits = torch.tensor([-1.5, 1.5], requires_grad=True)
    loss = AdversarialLoss("hinge")
    loss.discriminator([logits[1:]], [logits[:1]]).total.backward()
    assert logits.grad is not None
    assert logits.grad.tolist() == [0, 0]
    loss.generator([logits]).total.backward()
    assert logits.grad.tolist() == [-0.5, 0]


def test_logits_are_judged_in_float32() -> None:
    logits = [torch.full((4, 1001), 1 + 1 / 128, dtype=torch.bfloat16)]
    value = AdversarialLoss("least_squares").generator(logits).total
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(1 / 128**2)


def test_unknown_kind_is_named() -> None:
    with pytest.raises(ValueError, match=r"'wasserstein'.*hinge or least_squares"):
        AdversarialLoss("wasserstein")  # type: ignore[arg-type]


def test_feature_matching_of_equal_features_is_zero() -> None:
    features = [[torch.randn(2, 4, 5), torch.randn(2, 3)], [torch.randn(7)]]
    assert feature_matching(features, features).total.item() == 0


def test_feature_matching_closed_form() -> None:
    real = [[torch.tensor([1.0, -3.0])], [torch.tensor([4.0]), torch.tensor([1.0])]]
    fake = [[torch.tensor([2.0, -3.0])], [torch.tensor([2.0]), torch.tensor([1.0])]]
    # mean(1, 0) / 2, then 2 / 4, then 0
    assert feature_matching(real, fake).total.item() == pytest.approx((0.25 + 0.5 + 0) / 3)


def test_feature_matching_does_not_see_the_scale_of_a_layer() -> None:
    torch.manual_seed(0)
    real = [[torch.randn(2, 8), torch.randn(2, 8)]]
    fake = [[torch.randn(2, 8), torch.randn(2, 8)]]
    scaled = feature_matching([[real[0][0] * 1000, real[0][1]]], [[fake[0][0] * 1000, fake[0][1]]])
    assert scaled.total.item() == pytest.approx(feature_matching(real, fake).total.item())


def test_feature_matching_survives_dead_features_and_moves_only_the_fake_side() -> None:
    real = torch.zeros(3, requires_grad=True)
    fake = torch.zeros(3, requires_grad=True)
    value = feature_matching([[real * 1]], [[fake * 1]])
    value.total.backward()
    assert value.total.isfinite()
    assert fake.grad is not None
    assert real.grad is None


def test_feature_matching_gives_gradients_in_the_layout_of_the_features() -> None:
    fake = torch.randn(2, 8, 5, 6).contiguous(memory_format=torch.channels_last).requires_grad_()
    real = torch.randn(2, 8, 5, 6).contiguous(memory_format=torch.channels_last)
    (gradient,) = torch.autograd.grad(feature_matching([[real]], [[fake]]).total, fake)
    assert gradient.is_contiguous(memory_format=torch.channels_last)
