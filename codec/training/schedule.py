"""Learning rate as a function of the step: nothing to save, nothing to resume."""

import math


def learning_rate_factor(
    step: int, *, warmup_steps: int, steps: int, final_factor: float, decay_steps: int | None = None
) -> float:
    """Linear warm-up, then a cosine down to `final_factor` at the last step.

    With `decay_steps` the rate is held until that many steps before the end (Hu et al. 2024,
    "MiniCPM"): a run can then be made longer or shorter while it is held.

    Args:
        step: 0 ... steps - 1; later steps keep the final factor.
        warmup_steps: the factor reaches 1 after so many steps.
        steps: length of the run.
        final_factor: in [0, 1].
        decay_steps: length of the cosine; none, or more than there are: from the warm-up on.

    Returns:
        factor in (0, 1] that the configured learning rate is multiplied with.
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    held_until = warmup_steps if decay_steps is None else max(steps - decay_steps, warmup_steps)
    if step < held_until:
        return 1.0
    progress = min((step - held_until) / max(steps - 1 - held_until, 1), 1.0)
    return final_factor + (1 - final_factor) * 0.5 * (1 + math.cos(math.pi * progress))
