"""A search problem with a known optimum: a knapsack over stretches of layers, with interactions between neighbours.

A stretch that gets experts of a rank is worth a saturating amount of them; neighbours help or repeat one another. The space, its costs
and the budget are allocsearch's own, so projection works as in a real study. Since only neighbours interact, the exact optimum at
every budget comes from dynamic programming over the stretches.
"""

import math
import random
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from allocsearch.core.budget import Budget
from allocsearch.core.geometry import ModelShape, Routing, Site
from allocsearch.core.layout import Axis, PartSpace, Point, Sharing
from allocsearch.core.space import SearchSpace, SpaceTemplate
from allocsearch.search.proposals import Proposals

LAYER = (Site("q", "attn", 64, 64), Site("down", "ffn", 256, 64))
EXPERTS = (0, 1, 2, 4, 8)
RANKS = (1, 2, 4, 8, 16)
SPREAD = 0.03
NOISE = 0.006
_NUM_SAMPLES = 200


def space_of(num_groups: int, *, layers_per_group: int = 3, experts=EXPERTS, ranks=RANKS) -> SearchSpace:
    """Counts and ranks of their own for every stretch."""
    share = Sharing(tie=layers_per_group)
    part = PartSpace("all", Axis(ranks, share), Axis(experts, share))
    num_layers = num_groups * layers_per_group
    shape = ModelShape("knapsack", (LAYER,) * num_layers, hidden_size=64, num_heads=4, num_parameters=10**7)
    return SpaceTemplate("knapsack", (part,)).bind(shape, Routing())


@dataclass(frozen=True)
class Knapsack:
    """One instance, decided by its seed.

    `accuracy` is scaled so that the optimum at the budget scores 0.85 and random allocations that use the budget up lie `SPREAD` below
    it on average; one training adds normal noise of `NOISE`. Both are what a small language model showed.
    """

    space: SearchSpace
    budget: int
    seed: int

    @cached_property
    def _groups(self) -> list[tuple[str, str]]:
        names = [d.name for d in self.space.dimensions]
        half = len(names) // 2
        return list(zip(names[:half], names[half:], strict=True))

    @cached_property
    def _terms(self) -> tuple[list[tuple[float, float, float]], list[float]]:
        """For each stretch its worth, saturation and taste for experts over ranks; for each pair of neighbours their bond."""
        rng = random.Random(f"knapsack/{self.seed}")
        stretches = [(rng.lognormvariate(0, 0.8), rng.uniform(0.05, 0.4), rng.uniform(0.3, 1.0)) for _ in self._groups]
        return stretches, [rng.uniform(-0.6, 0.6) for _ in self._groups[1:]]

    def _worth(self, group: int, experts: int, rank: int) -> float:
        worth, saturation, taste = self._terms[0][group]
        return worth * -math.expm1(-saturation * experts**taste * rank ** (1.3 - taste)) if experts else 0.0

    def _bond(self, group: int, below: float, above: float) -> float:
        return self._terms[1][group] * math.sqrt(below * above)

    def value(self, point: Point) -> float:
        """Unscaled worth of a canonical point."""
        worths = [self._worth(i, point[e], point[r]) for i, (e, r) in enumerate(self._groups)]
        return sum(worths) + sum(self._bond(i, below, above) for i, (below, above) in enumerate(pairwise(worths)))

    @cached_property
    def best_values(self) -> list[tuple[int, float]]:
        """The exact front: (cost, largest value at that cost or less), both rising, up to the budget."""
        plans = [(e, r) for e in self.space.dimensions[0].choices for r in (self.space.dimensions[-1].choices if e else (0,))]
        frozen = self.space.smallest
        count, rank = self._groups[0]
        price = {(e, r): self.space.cost({**frozen, count: e, rank: r or frozen[rank]}).trainable if e else 0 for e, r in plans}
        ends = {plan: [(price[plan], self._worth(0, *plan))] for plan in plans if price[plan] <= self.budget}
        for group in range(1, len(self._groups)):
            ends = {plan: front for plan in plans if (front := self._extended(ends, group, plan, price[plan]))}
        return _front([pair for front in ends.values() for pair in front])

    def _extended(self, ends, group, plan, price):
        own = self._worth(group, *plan)
        reached = []
        for below, front in ends.items():
            gain = own + self._bond(group - 1, self._worth(group - 1, *below), own)
            reached += [(spent + price, value + gain) for spent, value in front if spent + price <= self.budget]
        return _front(reached)

    @cached_property
    def optimum(self) -> float:
        """The largest value inside the budget."""
        return self.best_values[-1][1]

    @cached_property
    def _unit(self) -> float:
        """Accuracy per unit of value."""
        proposals = Proposals(self.space, Budget(self.budget), (1.0,), self.seed)
        mean = sum(self.value(proposals.random(number)) for number in range(_NUM_SAMPLES)) / _NUM_SAMPLES
        return SPREAD / (self.optimum - mean)

    def accuracy(self, point: Point) -> float:
        """The true mean accuracy of a canonical point."""
        return self.scaled(self.value(point))

    def scaled(self, value: float) -> float:
        """Accuracy of a value."""
        return 0.85 - self._unit * (self.optimum - value)

    def measured(self, point: Point, number: int) -> float:
        """One training's accuracy: noise is decided by the instance and the trial's number, so strategies share it."""
        return self.accuracy(point) + random.Random(f"noise/{self.seed}/{number}").gauss(0, NOISE)


def _front(pairs):
    """The (cost, value) pairs that no cheaper one reaches."""
    found = []
    for spent, value in sorted(pairs, key=lambda pair: (pair[0], -pair[1])):
        if not found or value > found[-1][1]:
            found.append((spent, value))
    return found
