import torch

from codec.losses.base import LossValue


def test_parts_are_detached_and_the_total_is_not() -> None:
    weight = torch.ones((), requires_grad=True)
    value = LossValue(weight * 2, {"half": weight * 1})
    assert value.total.requires_grad
    assert not value.parts["half"].requires_grad
    assert value.parts["half"].item() == 1
