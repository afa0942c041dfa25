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
from itertools import accumulate
from math import prod
from typing import Final, Literal

from allocsearch.core.allocation import Allocation, LayerPlan, Sizes
from allocsearch.core.budget import Budget, Cost, cost, plan_cost
from allocsearch.core.errors import InfeasibleError, InputError, shown
from allocsearch.core.geometry import ModelShape, Routing
from allocsearch.core.targets import GROUPS

Point = Mapping[str, int]
Order = Literal["free", "ascending", "descending"]

ALL: Final = "all"
_Values = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Sharing:
    """Which layers share a value: `groups` equal stretches of the depth, or `tie` neighbours at a time; neither is one for all."""

    groups: int | None = None
    tie: int | None = None

    def __post_init__(self) -> None:
        given = [n for n in (self.groups, self.tie) if n is not None]
        if len(given) > 1 or any(n < 1 for n in given):
            raise InputError(f"`share` must be `model`, `groups: n` or `tie: n` with n >= 1, but got {self}")

    def group_of_layer(self, num_layers: int) -> tuple[int, ...]:
        """The group index of every layer, bottom to top."""
        if self.tie is not None:
            return tuple(layer // self.tie for layer in range(num_layers))
        num_groups = min(self.groups or 1, num_layers)
        return tuple(layer * num_groups // num_layers for layer in range(num_layers))


@dataclass(frozen=True, slots=True)
class Axis:
    """Listed values of one quantity, who shares them, and whether they must rise or fall with depth."""

    choices: tuple[int, ...]
    share: Sharing = Sharing()
    order: Order = "free"

    def __post_init__(self) -> None:
        if not self.choices or list(self.choices) != sorted(set(self.choices)) or self.choices[0] < 0:
            raise InputError(f"`choices` must be distinct whole numbers >= 0 in rising order, but got {list(self.choices)}")


@dataclass(frozen=True, slots=True)
class PartSpace:
    """The plans of one selector (`all`, a group, a target or a block kind).

    Without `experts` there is one expert, and size 0 means none. With `per_expert` each expert has a size of its own.
    """

    selector: str
    rank: Axis
    experts: Axis | None = None
    per_expert: bool = False

    def __post_init__(self) -> None:
        if self.experts is not None and self.rank.choices[0] < 1:
            raise InputError(f"`rank >= 1` must hold where `experts` is searched, but {self.selector!r} lists {list(self.rank.choices)}")
        if self.per_expert and (self.experts is None or self.rank.order != "free"):
            raise InputError(f"a rank per expert needs `experts` and `order: free`, but {self.selector!r} has not both")


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


@dataclass(frozen=True, slots=True)
class Dimension:
    """One coordinate of a point and its listed values, rising."""

    name: str
    choices: tuple[int, ...]


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
        cost(self.decode(self.largest), self.shape, self.routing)  # every kind and target that the space names must fit

    @cached_property
    def dimensions(self) -> tuple[Dimension, ...]:
        """The coordinates of a point, in a fixed order."""
        return tuple(dimension for lay in self._layouts for dimension in lay.dimensions)

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
            point |= lay.encode([_sizes_under(plan, lay.part.selector) for plan in allocation])
        if any(point.get(d.name) not in d.choices for d in self.dimensions) or self.decode(point) != allocation:
            raise InputError(f"space {self.template.name!r} cannot express the allocation {allocation}")
        return point

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
    def _layouts(self) -> tuple["_Layout", ...]:
        return tuple(_Layout(part, self.shape.num_layers) for part in self.template.parts)

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
        named = zip((lay.part.selector for lay in self._layouts), sizes, strict=True)
        return LayerPlan(tuple((name, own) for selector, own in named for name in (GROUPS if selector == ALL else (selector,))))


class _Layout:
    """One part of a space on a stack of layers: its dimensions, and the sizes that a point gives each layer."""

    def __init__(self, part: PartSpace, num_layers: int) -> None:
        self.part = part
        prefix = "" if part.selector == ALL else f"{part.selector}."
        self.rank_group = part.rank.share.group_of_layer(num_layers)
        self.count_group = part.experts.share.group_of_layer(num_layers) if part.experts else (0,) * num_layers
        self.counts = [] if part.experts is None else _names(f"{prefix}experts", part.experts.share, self.count_group)
        ranks = _names(f"{prefix}rank", part.rank.share, self.rank_group)
        self.num_ranks = part.experts.choices[-1] if part.per_expert and part.experts else 1
        self.ranks = [[f"{name}.e{i}" for i in range(self.num_ranks)] if part.per_expert else [name] for name in ranks]
        counted = [Dimension(name, part.experts.choices) for name in self.counts] if part.experts else []
        self.dimensions = (*counted, *(Dimension(name, part.rank.choices) for names in self.ranks for name in names))

    def sizes(self, point: Point) -> list[Sizes]:
        """The sizes of every layer, bottom to top, largest first."""
        counts = _ordered([point[name] for name in self.counts], self.part.experts.order) if self.part.experts else [1]
        if self.part.per_expert:
            own = [[point[name] for name in names] for names in self.ranks]
            return [tuple(sorted(own[r][: counts[c]], reverse=True)) for r, c in zip(self.rank_group, self.count_group, strict=True)]
        ranks = _ordered([point[names[0]] for names in self.ranks], self.part.rank.order)
        return [(ranks[r],) * (counts[c] if ranks[r] else 0) for r, c in zip(self.rank_group, self.count_group, strict=True)]

    def encode(self, layers: list[Sizes]) -> dict[str, int]:
        """Coordinates of per-layer sizes; what is not determined (the rank of a frozen stretch) takes its smallest listed value."""
        point: dict[str, int] = {}
        for i, name in enumerate(self.counts):
            point[name] = max(len(sizes) for sizes, group in zip(layers, self.count_group, strict=True) if group == i)
        known = [[sizes for sizes, group in zip(layers, self.rank_group, strict=True) if group == i] for i in range(len(self.ranks))]
        order = self.part.rank.order
        floor = self.part.rank.choices[0]
        for e in range(self.num_ranks):
            found = [max((sizes[e] for sizes in group if len(sizes) > e), default=floor) for group in known]
            for names, value in zip(self.ranks, _ordered(found, order), strict=True):
                point[names[e]] = value
        return point


def _names(prefix: str, share: Sharing, group_of_layer: tuple[int, ...]) -> list[str]:
    """`rank` for one value, `rank.g0` for groups, `rank.l00-01` for tied layers: what a user sees in the database."""
    num_groups = group_of_layer[-1] + 1
    if share.groups is None and share.tie is None:
        return [prefix]
    if share.tie is None:
        return [f"{prefix}.g{i}" for i in range(num_groups)]
    ends = [(group_of_layer.index(i), len(group_of_layer) - 1 - group_of_layer[::-1].index(i)) for i in range(num_groups)]
    return [f"{prefix}.l{a:02d}" if a == b else f"{prefix}.l{a:02d}-{b:02d}" for a, b in ends]


def _ordered(values: list[int], order: Order) -> list[int]:
    """The least values that are no smaller and keep the order; this makes every combination of coordinates a valid point."""
    if order == "ascending":
        return list(accumulate(values, max))
    if order == "descending":
        return list(accumulate(reversed(values), max))[::-1]
    return values


def _sizes_under(plan: LayerPlan, selector: str) -> Sizes:
    if selector != ALL:
        return dict(plan.parts).get(selector, ())
    shared = [dict(plan.parts).get(group, ()) for group in GROUPS]
    return shared[0]


def _factor(value: int, start: int) -> Fraction:
    """The factor at which `start` reaches `value`; a coordinate that starts at zero comes last."""
    return Fraction(value, start) if start else Fraction(10**9 + value)
