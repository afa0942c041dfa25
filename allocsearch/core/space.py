"""Search spaces: points of named integer dimensions, the allocations that they stand for, and projection onto a budget.

A space is declared by axes that layers share in some way; `bind` lays it over a model. Points are dictionaries of dimension
name to listed value. Every allocation of a space has exactly one canonical point, `encode(allocation)`, so samplers, the
database and duplicate checks all see the same thing.
"""

import random
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from math import prod

from allocsearch.core.allocation import BLOCK_KINDS, Allocation, LayerPlan, Sizes
from allocsearch.core.budget import Budget, Cost, cost, plan_cost
from allocsearch.core.errors import InfeasibleError, InputError, shown
from allocsearch.core.geometry import ModelShape, Routing
from allocsearch.core.layout import ALL, Dimension, Layout, PartSpace, Point
from allocsearch.core.targets import GROUPS


@dataclass(frozen=True, slots=True)
class SpaceTemplate:
    """A search space before it knows its model."""

    name: str
    parts: tuple[PartSpace, ...]
    about: str = ""

    def __post_init__(self) -> None:
        names = [part.selector for part in self.parts]
        if not names or len(set(names)) != len(names) or (ALL in names and set(names) & set(GROUPS)):
            raise InputError(f"a space must name each part once, and `all` excludes attn and ffn, but {self.name!r} has {shown(names)}")

    def bind(self, shape: ModelShape, routing: Routing) -> "SearchSpace":
        """This space on a model."""
        return SearchSpace(self, shape, routing)


@dataclass(frozen=True)
class SearchSpace:
    """A space on a model. All methods are deterministic.

    Raises:
        InputError: where the space names what the model or the router does not have.
    """

    template: SpaceTemplate
    shape: ModelShape
    routing: Routing

    def __post_init__(self) -> None:
        admitted = {name for sites in self.shape.layers for site in sites if self.routing.admits(site) for name in (site.name, site.group)}
        for lay in self._layouts:
            if not admitted.intersection(lay.selectors) and not set(BLOCK_KINDS).intersection(lay.selectors):
                raise InputError(
                    f"each part of a space must fit a linear that may carry experts, but part {lay.part.selector!r} of "
                    f"{self.template.name!r} fits none: {self.shape.architecture} has {shown(self.shape.targets)}, of which targets "
                    f"{shown(self.routing.targets)} may carry them"
                )
        cost(self.decode(self.largest), self.shape, self.routing)  # every kind and target that the space names must fit

    @cached_property
    def dimensions(self) -> tuple[Dimension, ...]:
        """The coordinates of a point, in a fixed order."""
        return tuple(dimension for lay in self._layouts for dimension in lay.dimensions)

    @cached_property
    def depths(self) -> Mapping[str, float]:
        """For each dimension the mean relative depth of the layers that share it: 0 is the bottom, 1 the top."""
        return {name: depth for lay in self._layouts for name, depth in lay.depths.items()}

    @property
    def smallest(self) -> Point:
        """Every dimension at its first listed value."""
        return {d.name: d.choices[0] for d in self.dimensions}

    @property
    def largest(self) -> Point:
        """Every dimension at its last listed value."""
        return {d.name: d.choices[-1] for d in self.dimensions}

    @property
    def num_points(self) -> int:
        """Combinations of listed values: an upper bound of the number of allocations, since some combinations mean the same."""
        return prod(len(d.choices) for d in self.dimensions)

    def decode(self, point: Point) -> Allocation:
        """The allocation that `point` stands for; values must be listed ones."""
        for d in self.dimensions:
            if point.get(d.name) not in d.choices:
                raise InputError(f"`{d.name}` must be one of {list(d.choices)}, but got {point.get(d.name)}")
        layers = zip(*(lay.sizes(point) for lay in self._layouts), strict=True)
        return Allocation(tuple(self._plan(sizes) for sizes in layers))

    def encode(self, allocation: Allocation) -> dict[str, int]:
        """The canonical point of `allocation`.

        Raises:
            InputError: where no point of this space stands for it.
        """
        if len(allocation) != self.shape.num_layers:
            raise InputError(f"an allocation must have {self.shape.num_layers} layers here, but got {len(allocation)}")
        point: dict[str, int] = {}
        for lay in self._layouts:
            point |= lay.encode([plan.sizes(lay.selectors[0]) for plan in allocation])
        if any(point.get(d.name) not in d.choices for d in self.dimensions) or self.decode(point) != allocation:
            raise InputError(f"space {self.template.name!r} cannot express the allocation {allocation}")
        return point

    def nearest(self, allocation: Allocation) -> dict[str, int]:
        """A canonical point close to `allocation`: its own, where the space expresses it, else what its groups have at most, snapped.

        Raises:
            InputError: where the allocation has another depth.
        """
        if len(allocation) != self.shape.num_layers:
            raise InputError(f"an allocation must have {self.shape.num_layers} layers here, but got {len(allocation)}")
        point: dict[str, int] = {}
        for lay in self._layouts:
            point |= lay.encode([max((plan.sizes(name) for name in lay.selectors), default=(), key=sum) for plan in allocation])
        return self.snap({name: float(value) for name, value in point.items()})

    def expresses(self, allocation: Allocation) -> bool:
        """Whether some point stands for `allocation`."""
        try:
            self.encode(allocation)
        except InputError:
            return False
        return True

    def canonical(self, point: Point) -> dict[str, int]:
        """The canonical point that means the same as `point`."""
        return self.encode(self.decode(point))

    def snap(self, values: Mapping[str, float]) -> dict[str, int]:
        """The canonical point at the nearest listed values, the smaller one at a tie."""
        nearest = {d.name: min(d.choices, key=lambda c, d=d: (abs(c - values[d.name]), c)) for d in self.dimensions}  # type: ignore[misc]
        return self.canonical(nearest)

    def sample(self, rng: random.Random) -> dict[str, int]:
        """A point whose coordinates are drawn uniformly from the listed values."""
        return self.canonical({d.name: rng.choice(d.choices) for d in self.dimensions})

    def samples(self, target: Budget, count: int, *, key: str) -> list[dict[str, int]]:
        """Up to `count` different random points projected onto `target`; `key` decides which.

        Raises:
            InfeasibleError: where even the smallest point of the space is over `target`.
        """
        found: list[dict[str, int]] = []
        for attempt in range(count * 20):
            point = self.project_point(self.sample(random.Random(f"{key}/{attempt}")), target)  # noqa: S311 - not a secret
            if point not in found:
                found.append(point)
            if len(found) == count:
                break
        return found

    def cost(self, point: Point) -> Cost:
        """The cost of `decode(point)`."""
        total = Cost(0, 0)
        for layer, sizes in enumerate(zip(*(lay.sizes(point) for lay in self._layouts), strict=True)):
            total = total + self._layer_cost(layer, sizes)
        return total

    def project(self, allocation: Allocation, target: Budget | int) -> Allocation:
        """The allocation of this space with the shape of `allocation` that uses `target` up.

        Exact, deterministic and idempotent: the result is within `target` (trainable parameters, where it is a number), and no
        single step of one dimension to its next listed value still fits.

        Raises:
            InfeasibleError: where even the smallest point of the space is over `target`.
        """
        return self.decode(self.project_point(self.encode(allocation), target))

    def project_point(self, point: Point, target: Budget | int) -> dict[str, int]:
        """`project`, from a point to its canonical projected point.

        All values are multiplied by the largest common factor that fits, rounded down to listed values; then single steps are
        taken in the order in which a growing factor would take them, as long as any fits.
        """
        budget = Budget(max_trainable=target) if isinstance(target, int) else target
        start = self.canonical(point)
        if not budget.excess(self.cost(start)) and self._next_step(start, start, budget) is None:
            return start
        current = self._scaled_inside(start, budget)
        while (step := self._next_step(current, start, budget)) is not None:
            current = step
        return current

    def _next_step(self, point: Point, start: Point, budget: Budget) -> dict[str, int] | None:
        """The canonical point after the first single step that fits, in the order in which a growing factor of `start` takes them."""
        steps: list[tuple[Fraction, str, int]] = []
        for d in self.dimensions:
            i = bisect_right(d.choices, point[d.name])
            if i < len(d.choices):
                steps.append((_factor(d.choices[i], start[d.name]), d.name, d.choices[i]))
        for _, name, value in sorted(steps, key=lambda step: step[0]):  # stable: equal factors keep the dimensions' order
            raised = {**point, name: value}
            if not budget.excess(self.cost(raised)):
                step = self.canonical(raised)
                if step != point:  # the rank of a frozen stretch, say, changes nothing
                    return step
        return None

    def _scaled_inside(self, point: Point, budget: Budget) -> dict[str, int]:
        """`point` times the largest common factor that fits, rounded down to listed values."""
        over = budget.excess(self.cost(self.smallest))
        if over:
            raise InfeasibleError(
                f"the smallest allocation of space {self.template.name!r} must be inside the budget, but {self.decode(self.smallest)} has "
                f"{self.cost(self.smallest).trainable:,} trainable parameters for {budget}: raise the budget, or list smaller values"
            )
        factors = sorted({_factor(c, point[d.name]) for d in self.dimensions for c in d.choices if point[d.name]})
        low, high = -1, len(factors) - 1  # factors[low] fits (or low is -1), factors[high + 1] does not
        while low < high:
            middle = (low + high + 1) // 2
            if budget.excess(self.cost(self._scaled(point, factors[middle]))):
                high = middle - 1
            else:
                low = middle
        return self.canonical(self._scaled(point, factors[low]) if low >= 0 else self.smallest)

    def _scaled(self, point: Point, factor: Fraction) -> dict[str, int]:
        return {d.name: d.choices[max(0, bisect_right(d.choices, point[d.name] * factor) - 1)] for d in self.dimensions}

    @cached_property
    def _layouts(self) -> tuple[Layout, ...]:
        return tuple(Layout(part, self.shape.num_layers) for part in self.template.parts)

    @cached_property
    def _memo(self) -> dict[tuple[int, tuple[Sizes, ...]], Cost]:
        return {}

    @cached_property
    def _first_alike(self) -> tuple[int, ...]:
        """For each layer the lowest layer that costs the same under any plan."""
        kinds = [(self.routing.top_k_of(i), sites) for i, sites in enumerate(self.shape.layers)]
        return tuple(kinds.index(kind) for kind in kinds)

    def _layer_cost(self, layer: int, sizes: tuple[Sizes, ...]) -> Cost:
        key = (self._first_alike[layer], sizes)
        if key not in self._memo:
            self._memo[key] = plan_cost(self._plan(sizes), self.shape, layer=layer, routing=self.routing)
        return self._memo[key]

    def _plan(self, sizes: tuple[Sizes, ...]) -> LayerPlan:
        return LayerPlan(tuple((name, own) for lay, own in zip(self._layouts, sizes, strict=True) for name in lay.selectors))


def _factor(value: int, start: int) -> Fraction:
    """The factor at which `start` reaches `value`; a coordinate that starts at zero comes last."""
    return Fraction(value, start) if start else Fraction(10**9 + value)
