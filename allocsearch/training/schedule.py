"""The learning rate over a short training."""

from collections.abc import Callable


def warm_up_then_decay(num_steps: int, warmup_share: float) -> Callable[[int], float]:
    """Factors of the learning rate by step: linear up over the first share of the steps, then linear down to zero after the last."""
    warm = max(1, round(num_steps * warmup_share)) if warmup_share else 0

    def factor(step: int) -> float:
        return (step + 1) / warm if step < warm else (num_steps - step) / max(1, num_steps - warm)

    return factor
