"""Learning rate as a function of the step: nothing to save, nothing to resume."""

import math


def learning_rate_factor(step: int, *, warmup_steps: int, steps: int, final_factor: float) -> float:
    """Linear warm-up, then a cosine down to `final_factor` at the last step.

    Args:
        step: 0 ... steps - 1; later steps keep the final factor.
        warmup_steps: the factor reaches 1 after so many steps.
        steps: length of the run.
        final_factor: in [0, 1].

    Returns:
        factor in (0, 1] that the configured learning rate is multiplied with.
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    progress = min((step - warmup_steps) / max(steps - 1 - warmup_steps, 1), 1.0)
    return final_factor + (1 - final_factor) * 0.5 * (1 + math.cos(math.pi * progress))
