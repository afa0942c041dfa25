"""Allocations that were trained over several seeds and scored on the same rows: the table that all comparisons read.

Shapes: K allocations, S seeds, R rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from allocsearch.core.choices import Metric
from allocsearch.core.errors import InputError, shown
from allocsearch.core.trial import RungScore, SeedScore
from allocsearch.search.results import Point

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Replicated:
    """One allocation's results: `number` is its trial's, `params` its trainable parameters, `rungs` what it reported on the way."""

    number: int
    params: int
    scores: tuple[SeedScore, ...]
    rungs: tuple[RungScore, ...] = ()

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds that it was trained with."""
        return tuple(score.seed for score in self.scores)


def replicated(points: Sequence[Point]) -> list[Replicated]:
    """Points by allocation and routing, in order; trials of the same one are joined under the first one's number.

    Of a seed that occurs twice the first result counts, so that no allocation gets a second chance.
    """
    found: dict[object, Replicated] = {}
    for point in points:
        assignment = point.trial.assignment
        key = (assignment.allocation, assignment.routing)
        one = found.get(key) or Replicated(point.trial.number, point.trial.cost.trainable, ())
        fresh = [score for score in point.measured.scores if score.seed not in one.seeds]
        new = {score.seed for score in fresh}
        rungs = [rung for rung in point.measured.rungs if rung.seed in new]
        found[key] = Replicated(one.number, one.params, (*one.scores, *fresh), (*one.rungs, *rungs))
    return list(found.values())


def common_seeds(seeds: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """The seeds that all have, rising.

    Raises:
        InputError: where there is none.
    """
    shared = set.intersection(*map(set, seeds))
    if not shared:
        raise InputError("trials must share a seed to be compared in pairs, but no seed is common to all of them")
    return tuple(sorted(shared))


def table(scores: Sequence[Sequence[SeedScore]], seeds: Sequence[int], metric: Metric) -> Array:
    """K×S×R, larger is better: right or wrong as 1 and 0, or −NLL in nats.

    Raises:
        InputError: where a seed is missing, or the numbers of rows differ.
    """
    by_seed = [{score.seed: score for score in each} for each in scores]
    missing = sorted({seed for each in by_seed for seed in seeds if seed not in each})
    if missing:
        raise InputError(
            f"every allocation must have been trained with the seeds {shown(seeds)}, but {shown(missing)} are missing for some"
        )
    if len({len(each[seed].nll) for each in by_seed for seed in seeds}) > 1:
        raise InputError("trials must have been scored on the same rows to be compared, but their numbers of rows differ")
    sign = 1.0 if metric == "accuracy" else -1.0
    values = [[each[seed].correct if metric == "accuracy" else each[seed].nll for seed in seeds] for each in by_seed]
    return sign * np.asarray(values, dtype=np.float64)
