"""Whether the winner of a search is better than a baseline, with the winner's selection counted.

All trials of a study are scored on the same rows and train on common seeds, so comparisons are paired: what is hard for one
allocation is hard for all, and most of that cancels. The winner was picked because it looked best on these very rows; testing it
as if it had been named beforehand would call noise a winner. So the p-value is that of the *best of all candidates* against the
baseline: the bootstrap reality check (White, Econometrica 2000), which resamples rows (and seeds, where there are several) for all
candidates at once and asks how often their largest deviation reaches the winner's lead.

Shapes: T trials, S seeds, R rows, B resamples.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from allocsearch.core.errors import InputError
from allocsearch.core.trial import Measured, SeedScore
from allocsearch.search.results import Point

Metric = Literal["accuracy", "nll"]
Verdict = Literal["better", "not distinguishable"]
_Array = npt.NDArray[np.float64]

ALPHA: Final = 0.05
_RESAMPLES: Final = 4000
_CHUNK: Final = 500
_ROUNDING: Final = 1e-12


@dataclass(frozen=True, slots=True)
class Comparison:
    """The winner against one baseline.

    Attributes:
        baseline: the baseline's trial.
        difference: mean lead of the winner, in accuracy, or in nats of NLL saved; positive is better.
        interval: 95 % bootstrap interval of the difference as if the winner had been named beforehand.
        p_value: of a lead this large by the best of all candidates where none is better than the baseline.
        p_adjusted: Holm's, over the baselines.
        verdict: `better` where `p_adjusted` is below 0.05.
    """

    baseline: Point
    difference: float
    interval: tuple[float, float]
    p_value: float
    p_adjusted: float
    verdict: Verdict
    seeds: tuple[int, ...]
    num_rows: int


def compare(
    winner: Point, baselines: Sequence[Point], candidates: Sequence[Point], *, metric: Metric = "accuracy", seed: int = 0
) -> list[Comparison]:
    """The winner against each baseline, in the baselines' order.

    Args:
        winner: one of the candidates.
        baselines: what it is compared with.
        candidates: every trial that could have won, baselines included.
        metric: what leads are measured in.
        seed: of the resampling.

    Raises:
        InputError: where trials share no seed, or were scored on other rows.
    """
    everyone = {point.trial.number: point for point in [winner, *baselines, *candidates]}
    seeds = _common_seeds(list(everyone.values()))
    tables = {number: _table(point.measured, seeds, metric) for number, point in everyone.items()}
    if len({table.shape for table in tables.values()}) != 1:
        raise InputError("trials must have been scored on the same rows to be compared, but their numbers of rows differ")
    place = {number: i for i, number in enumerate(tables)}
    observed, resampled = _means(np.stack(list(tables.values())), seed=seed)
    rivals = [place[point.trial.number] for point in candidates]
    won = place[winner.trial.number]
    found = []
    for baseline in baselines:
        at = place[baseline.trial.number]
        lead = float(observed[won] - observed[at])
        low, high = np.quantile(resampled[:, won] - resampled[:, at], [ALPHA / 2, 1 - ALPHA / 2])
        deviations = resampled[:, rivals] - resampled[:, [at]] - (observed[rivals] - observed[at])
        reached = int((deviations.max(axis=1) >= lead - _ROUNDING).sum())
        found.append((lead, (float(low), float(high)), (1 + reached) / (1 + len(resampled))))
    adjusted = holm([p for _, _, p in found])
    return [
        Comparison(b, d, interval, p, q, "better" if q < ALPHA else "not distinguishable", seeds, len(b.measured.scores[0].nll))
        for b, (d, interval, p), q in zip(baselines, found, adjusted, strict=True)
    ]


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment (Scandinavian Journal of Statistics, 1979), in the given order."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted, floor = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        floor = max(floor, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = floor
    return adjusted


def _means(tables: _Array, *, seed: int) -> tuple[_Array, _Array]:
    """From T×S×R: the T observed means, and B×T means with seeds and rows drawn anew, the same draws for every trial."""
    num_trials, num_seeds, num_rows = tables.shape
    rng = np.random.default_rng(seed)
    flat = tables.reshape(num_trials, num_seeds * num_rows)
    drawn = []
    for _ in range(0, _RESAMPLES, _CHUNK):
        rows = rng.multinomial(num_rows, np.full(num_rows, 1 / num_rows), size=_CHUNK) / num_rows
        seeds = rng.multinomial(num_seeds, np.full(num_seeds, 1 / num_seeds), size=_CHUNK) / num_seeds
        drawn.append((seeds[:, :, None] * rows[:, None, :]).reshape(_CHUNK, -1) @ flat.T)
    return flat.mean(axis=1), np.concatenate(drawn)


def _common_seeds(points: Sequence[Point]) -> tuple[int, ...]:
    shared = set.intersection(*({score.seed for score in point.measured.scores} for point in points))
    if not shared:
        raise InputError("trials must share a seed to be compared in pairs, but no seed is common to all of them")
    return tuple(sorted(shared))


def _table(measured: Measured, seeds: tuple[int, ...], metric: Metric) -> _Array:
    """S×R, larger is better."""
    by_seed: dict[int, SeedScore] = {score.seed: score for score in measured.scores}
    rows = [by_seed[seed].correct if metric == "accuracy" else [-value for value in by_seed[seed].nll] for seed in seeds]
    return np.asarray(rows, dtype=np.float64)
