import math

import pytest

from codec.training.schedule import learning_rate_factor


def factor(step, **changes):
    return learning_rate_factor(
        step, **({"warmup_steps": 10, "steps": 111, "final_factor": 0.1} | changes)
    )


def test_warm_up_is_linear_and_never_zero():
    assert [factor(step) for step in (0, 4, 9)] == pytest.approx([0.1, 0.5, 1.0])


@pytest.mark.parametrize(("share", "cosine"), [(0.0, 1.0), (0.25, 0.853553), (0.5, 0.5), (1.0, 0)])
def test_then_a_cosine_to_the_final_factor(share, cosine):
    step = 10 + round(100 * share)
    assert factor(step) == pytest.approx(0.1 + 0.9 * cosine, abs=1e-5)


def test_the_rate_is_held_until_the_decay_and_falls_like_the_cosine_then():
    held = [factor(step, decay_steps=40) for step in (10, 50, 70)]
    assert held == [1.0, 1.0, 1.0]
    falling = [factor(step, decay_steps=40) for step in range(71, 111)]
    assert falling == sorted(falling, reverse=True)
    assert falling[20] == pytest.approx(0.1 + 0.9 * 0.5, abs=0.05)
    assert falling[-1] == pytest.approx(0.1)


def test_while_it_is_held_the_length_of_the_run_does_not_matter():
    shorter = [factor(step, decay_steps=40) for step in range(71)]
    assert shorter == [factor(step, decay_steps=40, steps=1000) for step in range(71)]


def test_a_decay_longer_than_the_run_is_the_whole_cosine():
    assert factor(60, decay_steps=1000) == factor(60)


def test_beyond_the_end_it_stays():
    assert factor(1000) == pytest.approx(0.1)


def test_no_warm_up_and_runs_of_one_step_are_possible():
    assert factor(0, warmup_steps=0) == 1.0
    assert math.isfinite(factor(0, warmup_steps=0, steps=1))
