import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from codec.losses.balance import (
    Balancer,
    EmaBalancer,
    GradientBalancer,
    MovingAverage,
    NoBalancer,
)

Make = Callable[..., Balancer]
WEIGHTS = {"mel": 3.0, "wave": 1.0, "adversarial": 2.0}
BALANCERS: dict[str, Make] = {
    "ema": lambda weights=WEIGHTS: EmaBalancer(weights, decay=0.9),
    "gradient": lambda weights=WEIGHTS: GradientBalancer(weights, decay=0.9),
    "none": lambda weights=WEIGHTS: NoBalancer(weights),
}
every_balancer = pytest.mark.parametrize("make", BALANCERS.values(), ids=BALANCERS)
both_balancers = pytest.mark.parametrize(
    "make", [BALANCERS["ema"], BALANCERS["gradient"]], ids=["ema", "gradient"]
)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def outputs(steps: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(7)
    return [torch.randn(2, 1, 6, generator=generator).requires_grad_() for _ in range(steps)]


def losses_of(output: Tensor, scale: float = 1.0) -> dict[str, Tensor]:
    return {
        "mel": scale * output.square().mean(),
        "wave": (output - 1).abs().mean(),
        "adversarial": (1 - output.sum(dim=2)).relu().mean(),
    }


def output_and_loss(value: float) -> tuple[Tensor, Tensor]:
    """A loss of that value whose gradient sums to it."""
    output = torch.ones(1, 1, 4, requires_grad=True)
    return output, value * output.mean()


# --- MovingAverage -----------------------------------------------------------------------------


@settings(deadline=None, max_examples=50)
@given(
    values=st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=20),
    decay=st.sampled_from([0.0, 0.5, 0.9, 0.999, 0.99999]),
)
def test_moving_average_is_its_closed_form(values: list[float], decay: float) -> None:
    average = MovingAverage(decay)
    for value in values:
        last = average.update(value)
    weights = [(1 - decay) * decay ** (len(values) - i) for i in range(1, len(values) + 1)]
    wanted = math.fsum(w * v for w, v in zip(weights, values, strict=True)) / math.fsum(weights)
    assert last == average.value == pytest.approx(wanted, rel=1e-9, abs=1e-3)


@pytest.mark.parametrize("decay", [0.0, 0.3, 0.999, 0.999999])
def test_first_values_of_a_moving_average(decay: float) -> None:
    average = MovingAverage(decay)
    assert average.update(0.1) == 0.1
    # (d (1-d) a + (1-d) b) / (1 - d²) = (d a + b) / (1 + d)
    assert average.update(0.7) == pytest.approx((decay * 0.1 + 0.7) / (1 + decay))


def test_moving_average_of_a_constant_is_the_constant() -> None:
    average = MovingAverage(0.99)
    assert {average.update(0.1) for _ in range(2000)} == {0.1}


def test_moving_average_after_long_is_the_plain_recursion() -> None:
    average, plain = MovingAverage(0.9), 0.0
    for i in range(500):
        plain = 0.9 * plain + 0.1 * math.sin(i)
        average.update(math.sin(i))
    assert average.value == pytest.approx(plain, rel=1e-9)


@pytest.mark.parametrize("decay", [-0.1, 1.0, math.nan])
def test_a_decay_that_is_none_is_named(decay: float) -> None:
    with pytest.raises(ValueError, match="decay="):
        MovingAverage(decay)


# --- EmaBalancer -------------------------------------------------------------------------------


def test_ema_gradient_is_the_analytic_one() -> None:
    balancer = EmaBalancer(WEIGHTS, decay=0.9)
    averages: dict[str, MovingAverage] = {}
    for output in outputs(5):
        gradient, report = balancer.gradient(losses_of(output), output)
        wanted = torch.zeros_like(output)
        for name, loss in losses_of(output).items():
            average = averages.setdefault(name, MovingAverage(0.9)).update(loss.item())
            divisor = 1.0 if name == "adversarial" else average
            wanted += torch.autograd.grad(loss, output)[0] * WEIGHTS[name] / divisor
            assert report.balanced[name] == pytest.approx(WEIGHTS[name] * loss.item() / divisor)
        torch.testing.assert_close(gradient, wanted)


def test_first_balanced_value_is_the_weight() -> None:
    output = outputs(1)[0]
    report = EmaBalancer(WEIGHTS).gradient(losses_of(output), output)[1]
    assert report.balanced["mel"] == 3.0
    assert report.balanced["wave"] == 1.0


def test_a_loss_that_comes_late_starts_at_its_weight_too() -> None:
    balancer = EmaBalancer({"mel": 1.0, "whisper": 2.0})
    for output in outputs(20):
        balancer.gradient({"mel": output.square().mean()}, output)
    output = outputs(1)[0]
    late = {"mel": output.square().mean(), "whisper": 5 * output.abs().mean()}
    assert balancer.gradient(late, output)[1].balanced["whisper"] == 2.0


def test_a_hinge_that_wakes_up_is_not_blown_up() -> None:
    balancer = EmaBalancer({"adversarial": 2.0})
    for value in [0.0] * 100 + [0.5]:
        output, loss = output_and_loss(value)
        gradient, report = balancer.gradient({"adversarial": loss}, output)
    assert report.balanced["adversarial"] == pytest.approx(1.0)
    assert gradient.sum().item() == pytest.approx(1.0)


def test_the_floor_bounds_a_loss_that_vanishes() -> None:
    balancer = EmaBalancer({"mel": 1.0}, floor=0.1)
    output, loss = output_and_loss(1e-9)
    gradient, _ = balancer.gradient({"mel": loss}, output)
    assert gradient.sum().item() == pytest.approx(1e-9 / 0.1)


# --- GradientBalancer --------------------------------------------------------------------------


def test_gradient_balancer_is_encodecs_equation() -> None:
    balancer = GradientBalancer(WEIGHTS, decay=0.9, total_norm=0.5)
    averages: dict[str, MovingAverage] = {}
    for output in outputs(5):
        gradient, report = balancer.gradient(losses_of(output), output)
        wanted = torch.zeros_like(output)
        for name, loss in losses_of(output).items():
            g = torch.autograd.grad(loss, output)[0]
            norm = sum(g[i].norm().item() for i in range(2)) / 2
            average = averages.setdefault(name, MovingAverage(0.9)).update(norm)
            wanted += 0.5 * WEIGHTS[name] / 6.0 * g / average / 2  # a batch of two clips
            assert report.balanced[name] == pytest.approx(0.5 * WEIGHTS[name] / 6 * norm / average)
        torch.testing.assert_close(gradient, wanted)


def test_first_shares_of_the_gradient_are_the_weights() -> None:
    output = outputs(1)[0]
    report = GradientBalancer(WEIGHTS, total_norm=2.0).gradient(losses_of(output), output)[1]
    assert report.share == pytest.approx({"mel": 1 / 2, "wave": 1 / 6, "adversarial": 1 / 3})
    assert sum(report.balanced.values()) == pytest.approx(2.0)


def test_a_zero_gradient_gives_zero() -> None:
    output = outputs(1)[0]
    losses = {"mel": (output * 0).sum()}
    gradient, report = GradientBalancer(WEIGHTS).gradient(losses, output)
    assert gradient.abs().max() == 0
    assert report.share == {"mel": 0.0}


def test_a_finite_loss_with_a_gradient_that_is_not_is_skipped() -> None:
    output = torch.zeros(1, 1, 4, requires_grad=True)
    balancer = GradientBalancer({"mel": 1.0, "wave": 1.0})
    losses = {"mel": output.sqrt().sum(), "wave": output.sum()}
    gradient, report = balancer.gradient(losses, output)
    assert gradient.isfinite().all()
    assert report.skipped == 1
    assert list(report.balanced) == ["wave"]
    assert balancer.averages["mel"].steps == 0


# --- All ---------------------------------------------------------------------------------------


@both_balancers
def test_the_scale_of_a_loss_does_not_matter(make: Make) -> None:
    plain, scaled = make(), make()
    for output in outputs(10):
        a, _ = plain.gradient(losses_of(output), output)
        b, _ = scaled.gradient(losses_of(output, scale=1000), output)
        torch.testing.assert_close(a, b)


def test_without_a_balancer_it_does() -> None:
    output = outputs(1)[0]
    gradient, report = NoBalancer(WEIGHTS).gradient(losses_of(output), output)
    weighed = [WEIGHTS[name] * loss for name, loss in losses_of(output).items()]
    total = torch.stack(weighed).sum()
    torch.testing.assert_close(gradient, torch.autograd.grad(total, output)[0])
    assert sum(report.balanced.values()) == pytest.approx(total.item())


@every_balancer
def test_shares_sum_to_one(make: Make) -> None:
    balancer = make()
    for output in outputs(5):
        report = balancer.gradient(losses_of(output), output)[1]
        assert set(report.share) == set(WEIGHTS)
        assert sum(report.share.values()) == pytest.approx(1)
        assert all(share >= 0 for share in report.share.values())


@every_balancer
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf], ids=str)
def test_a_loss_that_is_not_finite_is_skipped_and_counted(make: Make, value: float) -> None:
    balancer = make()
    for step, output in enumerate(outputs(4)):
        losses, bad = losses_of(output), step == 2
        if bad:
            losses["mel"] = losses["mel"] * value
        before = balancer.state_dict().get("averages")
        gradient, report = balancer.gradient(losses, output)
        after = balancer.state_dict().get("averages")
        assert gradient.isfinite().all()
        assert report.skipped == int(bad)
        assert ("mel" in report.balanced) != bad
        if before and after:
            assert (after["mel"] == before["mel"]) == bad
            assert after["wave"] != before["wave"]
    assert balancer.skipped == 1


@every_balancer
def test_a_skipped_loss_leaves_the_others_as_they_are(make: Make) -> None:
    output = outputs(1)[0]
    losses = losses_of(output)
    whole = make().gradient(losses, output)[0]
    mel = make({"mel": WEIGHTS["mel"]}).gradient({"mel": losses["mel"]}, output)[0]
    if isinstance(make(), GradientBalancer):  # alone, it has all of the norm
        mel = mel * WEIGHTS["mel"] / sum(WEIGHTS.values())
    without = make().gradient({**losses, "mel": losses["mel"] * math.nan}, output)[0]
    torch.testing.assert_close(without, whole - mel)


@every_balancer
def test_all_losses_skipped_gives_zero(make: Make) -> None:
    output = outputs(1)[0]
    losses = {"mel": output.sum() * math.nan, "wave": output.sum() * math.inf}
    gradient, report = make().gradient(losses, output)
    assert gradient.shape == output.shape
    assert gradient.abs().max() == 0
    assert report.skipped == 2
    assert report.share == {}


@every_balancer
def test_weight_zero_takes_no_part(make: Make) -> None:
    output = outputs(1)[0]
    balancer = make({"mel": 1.0, "wave": 0.0, "adversarial": 0.0})
    losses = {**losses_of(output), "wave": output.sum() * math.nan}
    gradient, report = balancer.gradient(losses, output)
    assert list(report.balanced) == ["mel"]
    assert report.skipped == 0
    alone = make({"mel": 1.0}).gradient({"mel": losses["mel"]}, output)[0]
    assert torch.equal(gradient, alone)
    nothing = make({"mel": 0.0}).gradient({"mel": losses["mel"]}, output)
    assert nothing[0].abs().max() == 0


@every_balancer
def test_a_resumed_balancer_goes_on_as_if_it_had_never_stopped(make: Make) -> None:
    one, other = make(), make()
    for output in outputs(6):
        one.gradient({**losses_of(output), "wave": output.sum() * math.nan}, output)
        one.gradient(losses_of(output), output)
    other.load_state_dict(json.loads(json.dumps(one.state_dict())))
    assert other.state_dict() == one.state_dict()
    for output in outputs(12)[6:]:
        a, report_a = one.gradient(losses_of(output), output)
        b, report_b = other.gradient(losses_of(output), output)
        assert torch.equal(a, b)
        assert report_a == report_b
    assert other.skipped == 6


@every_balancer
def test_only_the_output_gets_a_gradient_and_the_graph_stays_alive(make: Make) -> None:
    """One discriminator pass serves the generator's loss and, afterwards, its own."""
    generator, discriminator = nn.Linear(4, 6), nn.Linear(6, 1)
    output = generator(torch.randn(2, 1, 4))
    logits = discriminator(output)
    losses = {"mel": output.square().mean(), "adversarial": (1 - logits).relu().mean()}
    gradient, _ = make().gradient(losses, output)
    assert not gradient.requires_grad
    assert gradient.shape == output.shape
    for parameter in (*generator.parameters(), *discriminator.parameters()):
        assert parameter.grad is None
    # The discriminator's own loss through the same pass, and the generator by the gradient.
    torch.autograd.backward((1 + logits).relu().mean(), inputs=list(discriminator.parameters()))
    assert discriminator.weight.grad is not None
    assert generator.weight.grad is None
    output.backward(gradient)
    assert generator.weight.grad is not None


@every_balancer
@pytest.mark.parametrize(
    ("losses", "message"),
    [
        pytest.param(lambda o: {"mal": o.sum()}, "'mal' has no weight", id="unknown name"),
        pytest.param(lambda o: {"mel": torch.ones(())}, "'mel' does not depend", id="constant"),
        pytest.param(
            lambda o: {"mel": torch.ones((), requires_grad=True) * 2},
            "'mel' does not depend",
            id="other graph",
        ),
    ],
)
def test_losses_that_cannot_be_balanced_are_named(
    make: Make, losses: Callable[[Tensor], dict[str, Tensor]], message: str
) -> None:
    output = outputs(1)[0]
    with pytest.raises(ValueError, match=message):
        make().gradient(losses(output), output)


@pytest.mark.parametrize("weight", [-1.0, math.nan, math.inf], ids=str)
def test_a_bad_weight_is_named(weight: float) -> None:
    with pytest.raises(ValueError, match="weight of loss 'mel'"):
        NoBalancer({"mel": weight})


TWO_PROCESSES = """
import json, sys
import torch, torch.distributed as dist
from codec.losses.balance import EmaBalancer, GradientBalancer
rank, meeting = int(sys.argv[1]), sys.argv[2]
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
states = []
for kind in (EmaBalancer, GradientBalancer):
    balancer = kind({"mel": 1.0, "wave": 1.0}, decay=0.5)
    for step in range(3):
        output = torch.ones(1, 1, 4, requires_grad=True)
        nan = float("nan") if rank == 1 and step == 1 else 1.0
        mel, wave = (rank + 1.0 + step) * output.mean() * nan, 2 * output.sum()
        balancer.gradient({"mel": mel, "wave": wave}, output)
    states.append([balancer.skipped, balancer.averages["mel"].value])
print(json.dumps(states))
dist.destroy_process_group()
"""


def test_two_processes_agree_on_the_averages(tmp_path: Path) -> None:
    root = Path(__file__).parents[3]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", TWO_PROCESSES, str(rank), str(tmp_path / "meeting")],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(root), "GLOO_SOCKET_IFNAME": "lo"},
            text=True,
        )
        for rank in range(2)
    ]
    try:
        first, second = (json.loads(p.communicate(timeout=120)[0]) for p in processes)
    finally:
        for process in processes:
            process.kill()
    wanted = MovingAverage(0.5)
    for mean in (1.5, 2.0, 3.5):  # the second value of the second process was not finite
        wanted.update(mean)
    for (skipped_1, value_1), (skipped_2, value_2) in zip(first, second, strict=True):
        assert value_1 == value_2
        assert (skipped_1, skipped_2) == (0, 1)
    assert first[0][1] == pytest.approx(wanted.value)
    assert first[1][1] == pytest.approx(wanted.value / 2)  # the norm of c · mean over 4 is c / 2
