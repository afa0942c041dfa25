"""Which allocations are trained anew after a search, and with which seeds."""

import math
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Final, get_args

from allocsearch.core.choices import Metric
from allocsearch.core.origins import is_proposal
from allocsearch.core.trial import Measured, SeedScore, Stopped, Trial
from allocsearch.search import results
from allocsearch.search.results import Pick, Point

CONFIRMATION_SEEDS: Final = 10_000
CALIBRATION_SEEDS: Final = 20_000
REPLICATION_SEEDS: Final = 30_000
"""Where the seeds of each count from: far from any that a study lists, and from each other."""


def finalists(trials: Sequence[Trial], count: int, metric: Metric = "accuracy") -> list[Point]:
    """At most `count` measured trials that a search puts forward, best first.

    First those that `export` would pick (the best, the knee, the smallest within the best one's interval), so that what a user takes
    away is what was confirmed; then the best by `metric` of the front, and of the others.
    """
    found = results.points(trials)
    if not found:
        return []
    ranked = [results.picked(trials, pick, metric) for pick in get_args(Pick)]
    for group in (results.pareto(trials, metric), found):
        ranked += sorted(group, key=lambda point: _merit(point, metric))
    return list({point.trial.number: point for point in ranked}.values())[:count]


def fresh_seeds(used: Sequence[int], count: int, *, start: int = CONFIRMATION_SEEDS) -> tuple[int, ...]:
    """`count` seeds that no trial of the search has had, the same for every allocation: comparisons stay paired."""
    return tuple(seed for seed in range(start, start + count + len(used)) if seed not in used)[:count]


def num_trainings(trials: Sequence[Trial], num_steps: int) -> int:
    """Whole trainings that the sampler's own proposals took: one that was stopped at a rung of its first seed counts up to that rung."""
    proposed = [trial for trial in trials if is_proposal(trial.origin)]
    return math.ceil(sum(_share_trained(trial, num_steps) for trial in proposed))


def _share_trained(trial: Trial, num_steps: int) -> Fraction:
    if not isinstance(trial.outcome, Stopped):
        return Fraction(1)
    return Fraction(max((rung.step for rung in trial.outcome.rungs), default=0), num_steps * len(trial.assignment.seeds))


def with_replicas(trials: Sequence[Trial], replicas: Sequence[Trial]) -> tuple[Trial, ...]:
    """The trials of a search, each measured one with the scores of its replicas, too: every later view reads means over all seeds."""
    further: dict[object, list[SeedScore]] = {}
    for replica in replicas:
        if isinstance(replica.outcome, Measured):
            further.setdefault(replica.assignment.allocation, []).extend(replica.outcome.scores)
    return tuple(_with(trial, further.get(trial.assignment.allocation, [])) for trial in trials)


def _with(trial: Trial, further: Sequence[SeedScore]) -> Trial:
    if not isinstance(trial.outcome, Measured) or not further:
        return trial
    known = {score.seed for score in trial.outcome.scores}
    fresh = sorted((score for score in further if score.seed not in known), key=lambda score: score.seed)
    return replace(trial, outcome=replace(trial.outcome, scores=(*trial.outcome.scores, *fresh)))


def _merit(point: Point, metric: Metric) -> tuple[float, int, int]:
    return -point.accuracy if metric == "accuracy" else point.nll, point.trial.cost.trainable, point.trial.number
