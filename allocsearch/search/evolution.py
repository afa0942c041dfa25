"""Evolution at a constant budget: children of what did well, each inside its trial's target and using it up.

Parents win tournaments among the youngest trials only, so that one lucky measurement does not breed for ever (Real et al. 2019,
arXiv 1802.01548, algorithm 1). With several objectives the tournament is decided by Pareto rank, then crowding. Unlike there, a mutation
raises one dimension and lowers others until the budget holds again: it moves capacity instead of adding any.
"""

import random
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from allocsearch.core.budget import Budget
from allocsearch.core.layout import Point
from allocsearch.core.space import SearchSpace
from allocsearch.search.ranking import best_first

_CROSSED_SHARE: Final = 0.5


@dataclass(frozen=True, slots=True)
class Individual:
    """A finished trial: its point, and its losses, smaller being better in each."""

    point: Mapping[str, Any]
    losses: tuple[float, ...]


def parents(trials: Sequence[Individual], rng: random.Random, *, population: int) -> tuple[Individual, Individual]:
    """Winners of two tournaments, each among a quarter of the `population` youngest trials (`trials` is in their order)."""
    youngest = trials[-population:]
    best = best_first([one.losses for one in youngest])
    size = max(2, -(-len(youngest) // 4))
    first, second = (min(rng.choices(range(len(best)), k=size)) for _ in range(2))
    return youngest[best[first]], youngest[best[second]]


def child(space: SearchSpace, pair: tuple[Point, Point], target: Budget, rng: random.Random) -> dict[str, int]:
    """The first parent, in half of the cases crossed with the second, after one move of capacity, on `target`."""
    first, second = pair
    return moved(space, crossed(space, first, second, rng) if rng.random() < _CROSSED_SHARE else first, target, rng)


def crossed(space: SearchSpace, first: Point, second: Point, rng: random.Random) -> dict[str, int]:
    """`first` with one stretch of the depth taken from `second`: the canonical point, before any projection."""
    depths = sorted(set(space.depths.values()))
    low, high = sorted(rng.choices(depths, k=2))
    return space.canonical({name: (second if low <= depth <= high else first)[name] for name, depth in space.depths.items()})


def moved(space: SearchSpace, point: Point, target: Budget, rng: random.Random) -> dict[str, int]:
    """`point` projected onto `target`, with capacity moved from some dimensions to another.

    The result uses `target` up, and differs from the projected point wherever raising one dimension by one listed value and
    lowering others can make it differ. Since neither point has room for a step more, some dimension of it is lower and some higher.
    """
    start = space.project_point(point, target)
    for longest in (len(space.dimensions), 1):  # a long raise may have no room where a single step has
        for d in rng.sample(space.dimensions, len(space.dimensions)):
            raised = _raised(space, start, d.name, min(longest, _steps(rng)))
            fitted = None if raised is None else _fitted(space, raised, d.name, target, rng)
            result = None if fitted is None else space.project_point(fitted, target)
            if result is not None and result != start:
                return result
    return start


def _raised(space: SearchSpace, point: Point, name: str, steps: int) -> dict[str, int] | None:
    """`point` with dimension `name` some listed values higher; None where that is no other allocation."""
    choices = next(d.choices for d in space.dimensions if d.name == name)
    level = min(len(choices) - 1, bisect_left(choices, point[name]) + steps)
    raised = space.canonical({**point, name: choices[level]})
    return None if raised == point else raised


def _fitted(space: SearchSpace, point: Point, kept: str, target: Budget, rng: random.Random) -> dict[str, int] | None:
    """`point` with other dimensions than `kept` lowered, step by step and in a random order, until it is inside `target`."""
    current = dict(point)
    for d in rng.sample(space.dimensions, len(space.dimensions)):
        for level in reversed(range(0 if d.name == kept else bisect_left(d.choices, current[d.name]))):
            if not target.excess(space.cost(current)):
                return current
            current = space.canonical({**current, d.name: d.choices[level]})
    return None if target.excess(space.cost(current)) else current


def _steps(rng: random.Random) -> int:
    """1 in half of the cases, 2 in a quarter, and so on: most moves are small, any is possible."""
    steps = 1
    while rng.random() < 0.5:  # noqa: PLR2004 - a fair coin
        steps += 1
    return steps
