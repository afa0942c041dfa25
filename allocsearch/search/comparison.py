"""Whether the winner of a search is better than a baseline, with the winner's selection counted.

All trials of a study are scored on the same rows and train on common seeds, so comparisons are paired: what is hard for one
allocation is hard for all, and most of that cancels. The winner was picked because it looked best on these very rows; testing it
as if it had been named beforehand would call noise a winner. So the p-value is that of the *best of all candidates* against the
baseline: the bootstrap reality check (White, Econometrica 2000), which resamples rows (and seeds, where there are several) for all
candidates at once and asks how often their largest deviation reaches the winner's lead.

Rows are resampled. Seeds are too few for that: a bootstrap of two seeds sees half of their variance, and one of one seed none. Their
noise is estimated from all trials together (allocation × seed, `variance_components`) and drawn from a multivariate t instead.

Shapes: T trials, S seeds, R rows, B resamples.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from allocsearch.core.choices import Metric
from allocsearch.search.replicates import Array, common_seeds, table
from allocsearch.search.resampling import resampled_means
from allocsearch.search.results import Point
from allocsearch.search.variance_components import mean_squares

Verdict = Literal["better", "not distinguishable"]

ALPHA: Final = 0.05
_RESAMPLES: Final = 4000
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
        seeds: common to all trials.
        num_rows: that scored all of them.
        covers_seeds: whether the seeds' noise is in interval and p-value. One seed cannot show it: then they speak for this seed only.
    """

    baseline: Point
    difference: float
    interval: tuple[float, float]
    p_value: float
    p_adjusted: float
    verdict: Verdict
    seeds: tuple[int, ...]
    num_rows: int
    covers_seeds: bool


def compare(
    winner: Point,
    baselines: Sequence[Point],
    candidates: Sequence[Point],
    *,
    metric: Metric = "accuracy",
    seed: int = 0,
    seed_variance: float | None = None,
) -> list[Comparison]:
    """The winner against each baseline, in the baselines' order.

    Args:
        winner: one of the candidates.
        baselines: what it is compared with.
        candidates: every trial that could have won, baselines included.
        metric: what leads are measured in.
        seed: of the resampling.
        seed_variance: of allocation × seed, from a calibration on the same proxy; used where there is only one common seed.

    Raises:
        InputError: where trials share no seed, or were scored on other rows.
    """
    everyone = {point.trial.number: point for point in [winner, *baselines, *candidates]}
    seeds = common_seeds([[score.seed for score in point.measured.scores] for point in everyone.values()])
    values = table([point.measured.scores for point in everyone.values()], seeds, metric)
    covers_seeds = seed_variance is not None or len(seeds) > 1
    place = {number: i for i, number in enumerate(everyone)}
    observed, resampled = sampled_means(values, seed=seed, seed_variance=seed_variance)
    rivals = [place[point.trial.number] for point in candidates]
    won = place[winner.trial.number]
    found = []
    for baseline in baselines:
        at = place[baseline.trial.number]
        lead = float(observed[won] - observed[at])
        low, high = np.quantile(resampled[:, won] - resampled[:, at], [ALPHA / 2, 1 - ALPHA / 2])
        p = reality_check(lead, observed[rivals] - observed[at], resampled[:, rivals] - resampled[:, [at]])
        found.append((lead, (float(low), float(high)), p))
    adjusted = holm([p for _, _, p in found])
    return [
        Comparison(b, d, interval, p, q, "better" if q < ALPHA else "not distinguishable", seeds, values.shape[2], covers_seeds)
        for b, (d, interval, p), q in zip(baselines, found, adjusted, strict=True)
    ]


def reality_check(lead: float, observed: Array, resampled: Array) -> float:
    """White's p-value: how often the largest of all candidates' deviations (B×T around T) reaches the lead of the best one."""
    reached = int(((resampled - observed).max(axis=1) >= lead - _ROUNDING).sum())
    return (1 + reached) / (1 + len(resampled))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment (Scandinavian Journal of Statistics, 1979), in the given order."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted, floor = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        floor = max(floor, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = floor
    return adjusted


def sampled_means(values: Array, *, seed: int, seed_variance: float | None = None, resamples: int = _RESAMPLES) -> tuple[Array, Array]:
    """From …×T×S×R: the …×T observed means, and B×…×T means on other rows and seeds, the same rows for every trial."""
    num_trials, num_seeds, num_rows = values.shape[-3:]
    rng = np.random.default_rng(seed)
    by_row = values.mean(axis=-2)
    drawn = resampled_means(rng, by_row.reshape(-1, num_rows), resamples=resamples)
    drawn = drawn.reshape(-1, *by_row.shape[:-1])
    variance, df = _seed_noise(values) if num_trials > 1 and num_seeds > 1 else (np.asarray(seed_variance or 0.0), None)
    spread = 1.0 if df is None else rng.chisquare(df, size=(*drawn.shape[:-1], 1)) / df
    return by_row.mean(axis=-1), drawn + np.sqrt(variance[..., None] / num_seeds / spread) * rng.standard_normal(drawn.shape)


def _seed_noise(values: Array) -> tuple[Array, int]:
    """The variance of allocation × seed, what the rows' resampling already holds taken off; and its degrees of freedom."""
    squares = mean_squares(values)
    num_trials, num_seeds, num_rows = squares.shape
    variance = np.maximum(0.0, squares.values[..., 3] - squares.values[..., 6]) / num_rows
    return np.asarray(variance), (num_trials - 1) * (num_seeds - 1)
