"""How far seeds move a score, and how well ranks before the end agree with ranks at the end: noise and signal of one metric.

A trial's early rung shares its seed's luck with its own end, so every predictor is held against the mean end of the *other* seeds;
what it owes to that seed does not count. The luck of the rows, which all seeds share, does: `Components.reliability` says what would
be left of the agreement on other rows. Intervals cover 95 %: those of rank correlations resample allocations (which carry
their seeds' noise along), those of standard deviations come from `MeanSquares.drawn`.

Shapes: K allocations, S seeds, R rows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from allocsearch.core.choices import Metric
from allocsearch.search import rank_correlation
from allocsearch.search.replicates import Array, Replicated
from allocsearch.search.variance_components import Components, MeanSquares, components, mean_squares

_RESAMPLES: Final = 2000
_TAILS: Final = (0.025, 0.975)
_DIGITS: Final = 12


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class RankAgreement:
    """Rank correlations with the end of training, 1 for the same order: Spearman's ρ and Kendall's τ-b."""

    spearman: Estimate
    kendall: Estimate


@dataclass(frozen=True, slots=True)
class Signal:
    """Noise and rank agreement of one metric, in shares of accuracy or in nats.

    Attributes:
        seed_sd: standard deviation between seeds of one allocation's score on these rows.
        paired_seed_sd: what pairing over common seeds leaves of it: allocation × seed, and these rows' flips.
        allocation_sd: between allocations' true scores, all noise taken off.
        row_sd: of one row's value; a score over M rows has a standard error of `row_sd / √M`.
        variances: all seven components.
        between_seeds: mean over pairs of seeds, end against end.
        noise_ceiling: the end on one seed against the mean end of the others; with two seeds, `between_seeds`.
        parameters: of the number of trainable parameters.
        rungs: by training step, of what trials reported before the end.
        scores: by name, of training-free scores.
    """

    seed_sd: Estimate
    paired_seed_sd: Estimate
    allocation_sd: Estimate
    row_sd: Estimate
    variances: Components
    between_seeds: RankAgreement
    noise_ceiling: RankAgreement
    parameters: RankAgreement
    rungs: Mapping[int, RankAgreement]
    scores: Mapping[str, RankAgreement]


def measure(
    allocations: Sequence[Replicated],
    seeds: Sequence[int],
    values: Array,
    *,
    metric: Metric,
    num_steps: int,
    scores: Mapping[str, Sequence[float]],
    seed: int,
) -> Signal:
    """Of K×S×R `values`, larger is better; rungs that some allocation lacks on some seed are left out."""
    num_allocations = len(allocations)
    drawn = np.random.default_rng(seed).multinomial(num_allocations, np.full(num_allocations, 1 / num_allocations), size=_RESAMPLES)
    weights = np.vstack([np.ones(num_allocations), drawn])
    end = values.mean(axis=2)
    params = np.array([one.params for one in allocations], dtype=np.float64)
    curves = _rungs(allocations, seeds, metric=metric, num_steps=num_steps)
    return Signal(
        **_deviations(mean_squares(values), seed=seed),
        between_seeds=_between(end, weights),
        noise_ceiling=_foretold(end, end, weights),
        parameters=_foretold(_same(params, seeds), end, weights),
        rungs={step: _foretold(curve, end, weights) for step, curve in curves.items()},
        scores={name: _foretold(_same(np.asarray(x, dtype=np.float64), seeds), end, weights) for name, x in scores.items()},
    )


def _deviations(squares: MeanSquares, *, seed: int) -> dict[str, Any]:
    """The standard deviations as estimates, and the components that they come from."""
    k, _, r = squares.shape

    def deviations(found: MeanSquares) -> Array:
        allocation, _, row, _, allocation_row, seed_row, residual = np.moveaxis(found.components, -1, 0)
        paired = found.values[..., 3] / r
        total = (found.values[..., 1] / r + (k - 1) * paired) / k
        variances = np.stack([total, paired, allocation, row + allocation_row + seed_row + residual])
        return np.asarray(np.sqrt(np.maximum(0.0, variances)), dtype=np.float64)

    low, high = np.quantile(deviations(squares.drawn(_RESAMPLES, seed=seed)), _TAILS, axis=1)
    names = ("seed_sd", "paired_seed_sd", "allocation_sd", "row_sd")
    estimates = zip(names, deviations(squares), low, high, strict=True)
    return {name: Estimate(float(v), float(a), float(b)) for name, v, a, b in estimates} | {"variances": components(squares)}


def _rungs(allocations: Sequence[Replicated], seeds: Sequence[int], *, metric: Metric, num_steps: int) -> dict[int, Array]:
    """K×S by step, larger is better: the rungs before the end that every allocation reported on every seed."""
    reports = [{(rung.seed, rung.step): rung.accuracy if metric == "accuracy" else -rung.nll for rung in one.rungs} for one in allocations]
    steps = sorted({step for report in reports for _, step in report if step < num_steps})
    whole = [step for step in steps if all((seed, step) in report for report in reports for seed in seeds)]
    return {step: np.array([[report[seed, step] for seed in seeds] for report in reports]) for step in whole}


def _same(values: Array, seeds: Sequence[int]) -> Array:
    """A predictor that no seed changes, K×S."""
    return np.repeat(values[:, None], len(seeds), axis=1)


def _foretold(predictor: Array, end: Array, weights: Array) -> RankAgreement:
    """Mean over seeds of the predictor on that seed against the mean end of the others (all K×S)."""
    # Rounded, so that equal means stay ties whatever the order of their sums.
    others = [np.delete(end, s, axis=1).mean(axis=1).round(_DIGITS) for s in range(end.shape[1])]
    return _agreement([(predictor[:, s], other) for s, other in enumerate(others)], weights)


def _between(end: Array, weights: Array) -> RankAgreement:
    end = end.round(_DIGITS)
    return _agreement([(end[:, s], end[:, t]) for t in range(end.shape[1]) for s in range(t)], weights)


def _agreement(pairs: Sequence[tuple[Array, Array]], weights: Array) -> RankAgreement:
    """Mean over the pairs; the first of the weights is the sample itself."""
    found = []
    for correlation in (rank_correlation.spearman, rank_correlation.kendall):
        values = np.mean([correlation(x, y, weights) for x, y in pairs], axis=0)
        low, high = np.quantile(values[1:], _TAILS)
        found.append(Estimate(float(values[0]), float(low), float(high)))
    return RankAgreement(*found)


def signal_from_json(data: Mapping[str, Any]) -> Signal:
    """Read a `Signal` that `dataclasses.asdict` wrote; JSON made its rungs' steps text."""
    return Signal(
        seed_sd=Estimate(**data["seed_sd"]),
        paired_seed_sd=Estimate(**data["paired_seed_sd"]),
        allocation_sd=Estimate(**data["allocation_sd"]),
        row_sd=Estimate(**data["row_sd"]),
        variances=Components(**data["variances"]),
        between_seeds=_agreement_from_json(data["between_seeds"]),
        noise_ceiling=_agreement_from_json(data["noise_ceiling"]),
        parameters=_agreement_from_json(data["parameters"]),
        rungs={int(step): _agreement_from_json(found) for step, found in data["rungs"].items()},
        scores={name: _agreement_from_json(found) for name, found in data["scores"].items()},
    )


def _agreement_from_json(data: Mapping[str, Any]) -> RankAgreement:
    return RankAgreement(Estimate(**data["spearman"]), Estimate(**data["kendall"]))
