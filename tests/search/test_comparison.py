"""The winner's evidence: calibrated under the null, powerful where there is something to find."""

import numpy as np
import pytest

from allocsearch.core.allocation import Allocation
from allocsearch.core.budget import Cost
from allocsearch.core.errors import InputError
from allocsearch.core.geometry import Routing
from allocsearch.core.trial import Assignment, Measured, SeedScore, Trial
from allocsearch.search.comparison import compare, holm, reality_check, sampled_means
from allocsearch.search.results import Point
from tests.search import simulation

ROWS, CANDIDATES = 256, 12


def point(number, tables):
    """A measured trial from `{seed: (correct, nll)}`."""
    scores = tuple(SeedScore(seed, tuple(bool(c) for c in correct), tuple(map(float, nll))) for seed, (correct, nll) in tables.items())
    measured = Measured(scores, 1.0)
    trial = Trial(Assignment(number, Allocation.parse("4x8"), Routing(), tuple(tables)), Cost(number + 1, 1), "x", outcome=measured)
    return Point(trial, measured, measured.accuracy, measured.nll, (0.0, 1.0))


def study(rng, leads, *, seeds=(0,)):
    """Trials whose rows share their difficulty, and whose true accuracies differ by `leads`."""
    difficulty = rng.normal(0.9, 1.0, ROWS)
    found = []
    for number, lead in enumerate(leads):
        tables = {}
        for seed in seeds:
            correct = difficulty + lead + rng.normal(0, 0.6, ROWS) > 0
            tables[seed] = (correct, np.where(correct, 0.3, 1.2))
        found.append(point(number, tables))
    return found


def best_of(points):
    return max(points, key=lambda p: p.measured.accuracy)


def p_values(values, **kwargs):
    """From N×T×S×R: of each study's best trial against its first; 1 where the first is best."""
    observed, resampled = sampled_means(values, seed=0, resamples=1000, **kwargs)
    leads, drawn = observed - observed[:, :1], resampled - resampled[:, :, :1]
    return np.array([reality_check(lead.max(), lead, drawn[:, n]) for n, lead in enumerate(leads)])


def equal(make, *, trials, seeds, rows=400, rounds=300):
    return make(np.random.default_rng(10 * seeds + trials), [0.0] * trials, studies=rounds, seeds=seeds, rows=rows)


@pytest.mark.parametrize("make", [simulation.accuracy, simulation.nll])
@pytest.mark.parametrize(("seeds", "trials"), [(2, 3), (2, 12), (3, 3), (3, 40)])
def test_noise_is_not_called_a_winner_more_often_than_promised(make, seeds, trials):
    found = p_values(equal(make, trials=trials, seeds=seeds))
    assert simulation.at_most((found < 0.05).sum(), len(found), 0.05)


def test_one_seed_holds_its_level_with_a_calibrations_noise_and_not_without():
    values = equal(simulation.nll, trials=12, seeds=1, rows=1000)
    told = p_values(values, seed_variance=simulation.NLL.allocation_seed)
    assert simulation.at_most((told < 0.05).sum(), len(told), 0.05)
    assert (p_values(values) < 0.05).mean() > 0.2, "one seed's luck must matter here, or this test proves nothing"


def test_the_selection_is_counted():
    observed, resampled = sampled_means(equal(simulation.accuracy, trials=12, seeds=2), seed=0, resamples=1000)
    best = observed.argmax(axis=1)
    leads = np.take_along_axis(resampled, best[None, :, None], axis=2)[..., 0] - resampled[..., 0]
    naive = np.quantile(leads, 0.025, axis=0) > 0
    assert naive.mean() > 0.08, "the selection has no effect here, so counting it would prove nothing"


def test_a_real_lead_is_found():
    rng = np.random.default_rng(1)
    found = 0
    for round_ in range(10):
        points = study(rng, [-0.9, *[0.0] * (CANDIDATES - 1)])
        (one,) = compare(best_of(points), points[:1], points, seed=round_)
        found += one.verdict == "better"
    assert found >= 9


def test_the_interval_covers_the_truth_for_a_winner_named_beforehand():
    _, resampled = sampled_means(equal(simulation.nll, trials=6, seeds=3), seed=0, resamples=1000)
    low, high = np.quantile(resampled[..., 1] - resampled[..., 0], [0.025, 0.975], axis=0)
    missed = (low > 0) | (high < 0)
    assert simulation.at_most(missed.sum(), len(missed), 0.05)


def test_seeds_that_disagree_widen_the_interval():
    rows = np.arange(ROWS)
    agree = {seed: (rows % 4 != 0, np.ones(ROWS)) for seed in (0, 1)}
    disagree = {0: (rows % 2 != 0, np.ones(ROWS)), 1: (rows >= 0, np.ones(ROWS))}
    base = {seed: (rows % 4 != 1, np.ones(ROWS)) for seed in (0, 1)}
    width = {}
    for name, tables in {"agree": agree, "disagree": disagree}.items():
        points = [point(0, base), point(1, tables)]
        (one,) = compare(points[1], points[:1], points)
        width[name] = one.interval[1] - one.interval[0]
    assert width["disagree"] > 2 * width["agree"]


def test_the_lead_in_nll_is_nats_saved():
    rows = np.ones(ROWS, dtype=bool)
    points = [point(0, {0: (rows, np.full(ROWS, 0.5))}), point(1, {0: (rows, np.full(ROWS, 0.3))})]
    (one,) = compare(points[1], points[:1], points, metric="nll")
    assert one.difference == pytest.approx(0.2)
    assert one.verdict == "better"
    assert not one.covers_seeds


def test_only_common_seeds_count():
    rows = np.arange(ROWS) % 2 == 0
    points = [point(0, {0: (rows, np.ones(ROWS))}), point(1, {0: (rows, np.ones(ROWS)), 1: (~rows, np.ones(ROWS))})]
    (one,) = compare(points[1], points[:1], points)
    assert one.seeds == (0,)
    assert one.difference == 0
    with pytest.raises(InputError, match="share a seed"):
        compare(points[1], [point(2, {5: (rows, np.ones(ROWS))})], points)


def test_holm_against_an_example_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []
    assert holm([0.9, 0.8]) == [1.0, 1.0]
