"""Which allocations are trained anew after a search, and with which seeds."""

from collections.abc import Sequence
from typing import Final, get_args

from allocsearch.core.trial import Trial
from allocsearch.search import results
from allocsearch.search.results import Pick, Point

CONFIRMATION_SEEDS: Final = 10_000
CALIBRATION_SEEDS: Final = 20_000
"""Where the seeds of each count from: far from any that a study lists, and from each other."""


def finalists(trials: Sequence[Trial], count: int) -> list[Point]:
    """At most `count` measured trials that a search puts forward, best first.

    First those that `export` would pick (the best, the knee, the smallest within the best one's interval), so that what a user takes
    away is what was confirmed; then the most accurate of the front, and of the others.
    """
    found = results.points(trials)
    if not found:
        return []
    ranked = [results.picked(trials, pick) for pick in get_args(Pick)]
    ranked += sorted(results.pareto(trials), key=_by_accuracy) + sorted(found, key=_by_accuracy)
    return list({point.trial.number: point for point in ranked}.values())[:count]


def fresh_seeds(used: Sequence[int], count: int, *, start: int = CONFIRMATION_SEEDS) -> tuple[int, ...]:
    """`count` seeds that no trial of the search has had, the same for every allocation: comparisons stay paired."""
    return tuple(seed for seed in range(start, start + count + len(used)) if seed not in used)[:count]


def merged(trials: Sequence[Trial]) -> list[Point]:
    """Measured trials of one allocation and one routing each, put together: all of their seeds, in rising order.

    Seconds are those of all seeds. The first trial stands for them.
    """
    groups: dict[tuple[object, object], list[Point]] = {}
    for point in results.points(trials):
        groups.setdefault((point.trial.assignment.allocation, point.trial.assignment.routing), []).append(point)
    return [results.together(points) for points in groups.values()]


def _by_accuracy(point: Point) -> tuple[float, int, int]:
    return -point.measured.accuracy, point.trial.cost.trainable, point.trial.number
