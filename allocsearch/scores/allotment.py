"""From scores to an allocation that uses a budget up: the one rule that all scores share.

Amounts (numbers of experts, or ranks) are in proportion to the scores by largest remainders, at least 1 in every layer. The result is
inside the budget, and no layer could take one more.
"""

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import cache
from typing import Final

from allocsearch.core.allocation import Allocation, LayerPlan
from allocsearch.core.budget import Budget, Cost, plan_cost
from allocsearch.core.errors import InputError, shown
from allocsearch.core.geometry import ModelShape, Routing

MEAN_EXPERTS: Final = 5
"""MoLA's and AlphaLoRA's 160 experts on 32 layers."""

MAX_EXPERTS: Final = 64
MAX_RANK: Final = 256


def apportioned(scores: Sequence[float], total: int, *, least: int = 1) -> tuple[int, ...]:
    """Whole amounts in proportion to `scores` that sum to exactly `total`, each at least `least`.

    Shares below `least` are raised to it and the others share what is left. What remains after rounding down goes to the largest
    fractions, a lower layer first at a tie; so a layer with a higher score never gets less.

    Raises:
        InputError: where scores are not finite, negative or all zero, or `total` is too small.
    """
    if not scores or not all(math.isfinite(score) and score >= 0 for score in scores) or not any(scores):
        raise InputError(f"scores must be finite, not negative and not all zero, but got {shown(f'{score:.4g}' for score in scores)}")
    if least < 0 or total < least * len(scores):
        raise InputError(f"`total >= least * layers >= 0` must hold, but got {total} for {len(scores)} layers of at least {least}")
    weights = [Fraction(score) for score in scores]  # exactly: the sum must come out
    free = set(range(len(weights)))
    while True:
        rest, whole = total - least * (len(weights) - len(free)), sum(weights[i] for i in free)
        quotas = {i: weights[i] * rest / whole for i in free}
        under = {i for i in free if quotas[i] < least}
        if not under:
            break
        free -= under
    amounts = [math.floor(quotas[i]) if i in free else least for i in range(len(weights))]
    for i in sorted(free, key=lambda i: (math.floor(quotas[i]) - quotas[i], i))[: total - sum(amounts)]:
        amounts[i] += 1
    return tuple(amounts)


def experts(scores: Sequence[float], *, shape: ModelShape, routing: Routing, budget: Budget) -> Allocation | None:
    """Numbers of experts in proportion to `scores`, all of one rank; None where not even one of rank 1 fits everywhere.

    The rank is the largest at which `MEAN_EXPERTS` a layer fit; what is left of the budget then goes into further experts.
    """
    typical = apportioned(scores, MEAN_EXPERTS * shape.num_layers)

    def fits(rank: int) -> bool:
        costs = (plan_cost(LayerPlan.of(n, rank), shape, layer=i, routing=routing) for i, n in enumerate(typical))
        return not budget.excess(sum(costs, Cost(0, 0)))

    rank = max(1, _last(fits, MAX_RANK))
    return _filled(scores, lambda count: LayerPlan.of(count, rank), shape=shape, routing=routing, budget=budget, most=MAX_EXPERTS)


def ranks(scores: Sequence[float], *, shape: ModelShape, routing: Routing, budget: Budget) -> Allocation | None:
    """One expert in every layer, ranks in proportion to `scores`; None where not even rank 1 fits everywhere."""
    return _filled(scores, lambda rank: LayerPlan.of(1, rank), shape=shape, routing=routing, budget=budget, most=MAX_RANK)


def _filled(
    scores: Sequence[float], plan: Callable[[int], LayerPlan], *, shape: ModelShape, routing: Routing, budget: Budget, most: int
) -> Allocation | None:
    num_layers = shape.num_layers

    @cache
    def layer_cost(layer: int, amount: int) -> Cost:
        return plan_cost(plan(amount), shape, layer=layer, routing=routing)

    def fits(amounts: Sequence[int]) -> bool:
        return not budget.excess(sum((layer_cost(i, n) for i, n in enumerate(amounts)), Cost(0, 0)))

    def capped(total: int) -> list[int]:
        return [min(most, amount) for amount in apportioned(scores, total)]

    if not fits([1] * num_layers):
        return None
    amounts = capped(num_layers + _last(lambda more: fits(capped(num_layers + more)), (most - 1) * num_layers))
    while True:
        # In the order in which a growing total would reach them.
        order = sorted((i for i in range(num_layers) if amounts[i] < most), key=lambda i: (-scores[i] / (amounts[i] + 1), i))
        step = next((i for i in order if fits([n + (i == j) for j, n in enumerate(amounts)])), None)
        if step is None:
            return Allocation(tuple(plan(amount) for amount in amounts))
        amounts[step] += 1


def _last(holds: Callable[[int], bool], most: int) -> int:
    """A number up to `most` that holds and whose successor does not, by bisection from 0, which is taken to hold."""
    if holds(most):
        return most
    low, high = 0, most
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low
