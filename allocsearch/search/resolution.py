"""What a number of seeds and rows can tell apart: the power of the paired test that `confirmation` makes.

The test's critical value depends on its own estimate of the seeds' noise, which few seeds make uncertain; so its power is that of
the estimate's distribution, by draws that are the same for every question (larger splits never resolve less).
"""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from allocsearch.search import student
from allocsearch.search.replicates import Array
from allocsearch.search.variance_components import Components

POWER: Final = 0.8
ALPHA: Final = 0.05
_DRAWS: Final = 20_000
_MAX_ROWS: Final = 10_000_000
_LENT: Final = 4


@dataclass(frozen=True, slots=True)
class Design:
    """The test to be made.

    Attributes:
        num_allocations: how many are trained on the same seeds; they share one estimate of the seeds' noise.
        alpha: level of one test. Holm's first of n pairs has `alpha / n`.
        power: the chance to find a difference that is there.
        sides: 2 for "different", 1 for "not worse by a margin".
    """

    num_allocations: int = 8
    alpha: float = ALPHA
    power: float = POWER
    sides: int = 2

    def __post_init__(self) -> None:
        if self.num_allocations < 2 or not 0 < self.alpha < 1 or not 0 < self.power < 1 or self.sides not in {1, 2}:  # noqa: PLR2004
            raise ValueError(f"two allocations, `0 < alpha, power < 1` and one or two sides must hold, but got {self}")


STANDARD: Final = Design()


def resolvable(noise: Components, *, num_seeds: int, num_rows: int, design: Design = STANDARD) -> float:
    """The smallest true difference that the test finds with the design's power, in the metric's unit.

    With one seed no test sees the seeds' noise; the answer then takes `noise` for the truth.
    """
    by_seed = 2 * (noise.allocation_seed + noise.residual / num_rows) / num_seeds
    by_row = 2 * noise.allocation_row / num_rows
    tail = 1 - design.alpha / design.sides
    spread, shift = _draws(num_allocations=design.num_allocations, num_seeds=num_seeds)
    z = student.normal_quantile(tail)
    t = student.quantile(tail, seed_df(num_allocations=design.num_allocations, num_seeds=num_seeds)) if num_seeds > 1 else z
    critical = np.sqrt(t**2 * by_seed * spread + z**2 * by_row)
    return max(0.0, float(np.quantile(critical + math.sqrt(by_seed + by_row) * shift, design.power)))


def rows_needed(noise: Components, difference: float, *, num_seeds: int, design: Design = STANDARD) -> int | None:
    """The fewest rows that resolve `difference` with `num_seeds`; None where the seeds' noise alone hides it."""

    def enough(num_rows: int) -> bool:
        return resolvable(noise, num_seeds=num_seeds, num_rows=num_rows, design=design) <= difference

    if not enough(_MAX_ROWS):
        return None
    low, high = 1, _MAX_ROWS
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle + 1, high)
    return low


def seeds_needed(noise: Components, difference: float, *, num_rows: int, max_seeds: int = 50, design: Design = STANDARD) -> int | None:
    """The fewest seeds, two or more, that resolve `difference` on `num_rows`; None where `max_seeds` do not."""
    for num_seeds in range(2, max_seeds + 1):
        if resolvable(noise, num_seeds=num_seeds, num_rows=num_rows, design=design) <= difference:
            return num_seeds
    return None


def seed_df(*, num_allocations: int, num_seeds: int) -> int:
    """Degrees of freedom for the seeds' noise of a pair: its own S − 1, and at most four that the other allocations lend."""
    return num_seeds - 1 + min(_LENT, (num_allocations - 2) * (num_seeds - 1))


def _draws(*, num_allocations: int, num_seeds: int) -> tuple[Array, Array]:
    """The estimate of the seeds' noise as a share of the truth, and a standard normal for the observed difference.

    The estimate is the larger one of the pair's own and the one pooled over all allocations.
    """
    rng = np.random.default_rng(0)
    shift = rng.standard_normal(_DRAWS)
    if num_seeds == 1:
        return np.ones(_DRAWS), shift
    own, others = num_seeds - 1, (num_allocations - 2) * (num_seeds - 1)
    drawn = rng.chisquare(own, _DRAWS)
    pooled = (drawn + (rng.chisquare(others, _DRAWS) if others else 0.0)) / (own + others)
    return np.maximum(drawn / own, pooled), shift
