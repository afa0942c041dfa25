"""From a sampler's raw values to a trial that is inside the budget by construction."""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from allocsearch.core.allocation import Allocation
from allocsearch.core.budget import Budget, Cost
from allocsearch.core.errors import InfeasibleError, quoted
from allocsearch.core.space import SearchSpace


@dataclass(frozen=True)
class Proposals:
    """Projection of proposals onto each trial's own target size.

    Attributes:
        space: the space on its model.
        budget: the study's limits, resolved against the model.
        ladder: shares of the budget that trials aim at. `(1.0,)` in scalar mode.
        seed: the study's seed; with a trial's number it decides that trial's target and random proposals.

    Raises:
        InfeasibleError: where not even the whole budget holds the smallest point of the space.
    """

    space: SearchSpace
    budget: Budget
    ladder: tuple[float, ...]
    seed: int

    def __post_init__(self) -> None:
        if not self._trains(1.0):
            raise InfeasibleError(
                f"an allocation must have at least one expert, but no expert of space {self.space.template.name!r} fits {self.budget}: "
                f"raise the budget, or list smaller ranks"
            )

    @cached_property
    def shares(self) -> tuple[float, ...]:
        """The rungs of the ladder that hold an allocation with something to train; the whole budget where none does."""
        return tuple(share for share in sorted(set(self.ladder)) if self._trains(share)) or (1.0,)

    def _trains(self, share: float) -> bool:
        """Whether the smallest point, or it with one dimension a step higher, has experts inside that share: none smaller could."""
        smallest, target = self.space.smallest, self.budget.scaled(share)
        steps = [{**smallest, d.name: d.choices[1]} for d in self.space.dimensions if len(d.choices) > 1]
        costs = map(self.space.cost, [smallest, *steps])
        return any(cost.trainable > 0 and not target.excess(cost) for cost in costs)

    def share(self, number: int) -> float:
        """The share of the budget that trial `number` aims at: every rung once per round, in an order shuffled by the seed."""
        round_, position = divmod(number, len(self.shares))
        order = random.Random(f"{self.seed}/ladder/{round_}").sample(self.shares, len(self.shares))  # noqa: S311 - not a secret
        return order[position]

    def target(self, number: int) -> Budget:
        """The limits that trial `number` uses up."""
        return self.budget.scaled(self.share(number))

    def admit(self, allocation: Allocation, total: Cost) -> None:
        """Let `allocation`, which costs `total`, into the study: whatever is trained comes through here.

        Raises:
            InfeasibleError: where it is over the budget.
        """
        over = self.budget.excess(total)
        if over:
            by = " and ".join(f"{excess:,} {what}" for what, excess in over.items())
            raise InfeasibleError(
                f"an allocation must be inside the budget of {self.budget}, but {quoted(str(allocation))} is over by {by} parameters: "
                "scale it to the budget, or raise the budget"
            )

    def projected(self, values: Mapping[str, float], number: int) -> dict[str, int]:
        """The canonical point with the shape of `values` that uses up trial `number`'s target."""
        return self.space.project_point(self.space.snap(values), self.target(number))

    def random(self, number: int, attempt: int = 0) -> dict[str, int]:
        """A random point projected onto trial `number`'s target; `attempt` gives further ones."""
        rng = random.Random(f"{self.seed}/{number}/{attempt}")  # noqa: S311 - not a secret
        return self.space.project_point(self.space.sample(rng), self.target(number))

    def examples(self, count: int) -> list[dict[str, int]]:
        """Up to `count` different random points projected onto the whole budget: what a plan shows."""
        return self.space.samples(self.budget, count, key=f"{self.seed}/example")
