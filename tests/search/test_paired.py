"""Paired differences from few seeds: they hold their level where a bootstrap over seeds does not, and find what was promised."""

import numpy as np
import pytest

from allocsearch.search.paired import differences
from allocsearch.search.resolution import Design, resolvable
from allocsearch.search.variance_components import Components, mean_squares
from tests.search import simulation

ROUNDS = 400
MARGIN = 0.01


def held_against(tables, *, seed=0):
    """The first allocation against the second in each study, all of a study's allocations lending their seeds' noise."""
    pooled = mean_squares(tables).values[:, 3]
    return differences(tables[:, 0] - tables[:, 1], pooled=pooled, num_allocations=tables.shape[1], seed=seed, resamples=2000)


def studies(make, *, seed, lead=0.0, allocations=6, seeds=3, rows=200, rounds=ROUNDS, **kwargs):
    leads = [lead, *[0.0] * (allocations - 1)]
    return make(np.random.default_rng(seed), leads, studies=rounds, seeds=seeds, rows=rows, **kwargs)


@pytest.mark.parametrize("make", [simulation.accuracy, simulation.nll])
@pytest.mark.parametrize(("seeds", "rows", "allocations"), [(2, 200, 6), (2, 1000, 2), (3, 200, 2), (3, 1000, 6), (5, 200, 6), (5, 500, 6)])
def test_equal_allocations_are_told_apart_no_more_often_than_promised(make, seeds, rows, allocations):
    found = held_against(studies(make, seed=seeds + rows, seeds=seeds, rows=rows, allocations=allocations))
    assert simulation.at_most((found.p_values() < 0.05).sum(), ROUNDS, 0.05)
    low, high = found.intervals(0.05).T
    assert simulation.at_most(((low > 0) | (high < 0)).sum(), ROUNDS, 0.05)


@pytest.mark.parametrize("make", [simulation.accuracy, simulation.nll])
@pytest.mark.parametrize("seeds", [2, 3])
def test_an_allocation_with_twice_the_seed_noise_of_the_others_gains_nothing_from_them(make, seeds):
    tables = studies(make, seed=seeds, seeds=seeds, rows=500, scales=[2, 1, 1, 1, 1, 1])
    assert simulation.at_most((held_against(tables).p_values() < 0.05).sum(), ROUNDS, 0.05)


def test_a_bootstrap_over_two_seeds_would_not_hold_its_level():
    tables = studies(simulation.nll, seed=4, seeds=2, rows=500)
    rng, pairs = np.random.default_rng(0), tables[:, 0] - tables[:, 1]
    seeds = rng.multinomial(2, [0.5] * 2, size=(ROUNDS, 300)) / 2
    rows = rng.multinomial(500, [1 / 500] * 500, size=300) / 500
    drawn = np.einsum("nbs,nsr,br->nb", seeds, pairs, rows, optimize=True)
    low, high = np.quantile(drawn, [0.025, 0.975], axis=1)
    assert ((low > 0) | (high < 0)).mean() > 0.09


@pytest.mark.parametrize("make", [simulation.accuracy, simulation.nll])
@pytest.mark.parametrize(("seeds", "rows"), [(2, 1000), (3, 500), (5, 200)])
def test_what_is_resolvable_is_found_at_the_promised_rate(make, seeds, rows):
    pilot = mean_squares(make(np.random.default_rng(0), [0.0] * 8, studies=20, seeds=5, rows=400)).components.mean(axis=0)
    lead = resolvable(Components(*np.maximum(pilot, 0)), num_seeds=seeds, num_rows=rows, design=Design(num_allocations=6))
    found = (held_against(studies(make, seed=rows, lead=lead, seeds=seeds, rows=rows)).p_values() < 0.05).sum()
    assert simulation.at_most(ROUNDS - found, ROUNDS, 0.2)
    assert found / ROUNDS < 0.92, "much more power than promised: then smaller differences were resolvable"


@pytest.mark.parametrize("make", [simulation.accuracy, simulation.nll])
@pytest.mark.parametrize("seeds", [2, 5])
def test_what_is_worse_by_the_margin_passes_no_more_often_than_promised(make, seeds):
    found = held_against(studies(make, seed=seeds, lead=-MARGIN, seeds=seeds, rows=500))
    assert simulation.at_most((found.p_greater(-MARGIN) < 0.05).sum(), ROUNDS, 0.05)


def test_an_equal_one_passes_a_resolvable_margin_at_the_promised_rate():
    design = Design(num_allocations=6, sides=1)
    margin = resolvable(simulation.NLL, num_seeds=3, num_rows=500, design=design)
    passed = (held_against(studies(simulation.nll, seed=6, rows=500)).p_greater(-margin) < 0.05).sum()
    assert simulation.within(passed, ROUNDS, 0.8)


def test_one_seed_speaks_for_the_rows_alone():
    """A difference of one seed is the rows' sampling around that seed's own difference."""
    tables = studies(simulation.nll, seed=7, seeds=1, rows=500)
    pairs = tables[:, 0] - tables[:, 1]
    found = differences(pairs, pooled=0.0, num_allocations=6, seed=0, resamples=2000)
    assert found.deviations.std(axis=0) == pytest.approx(pairs[:, 0].std(axis=1) / 500**0.5, rel=0.12)
    assert (found.p_values() < 0.05).mean() > 0.1, "the seed's luck is in the difference and not in the test"


def test_no_difference_at_all_is_no_finding():
    found = differences(np.zeros((2, 3, 50)), pooled=0.0, num_allocations=4, seed=0)
    assert list(found.p_values()) == [1.0, 1.0]
    assert np.all(found.intervals(0.05) == 0)


def test_p_values_and_intervals_agree():
    found = held_against(studies(simulation.nll, seed=8, lead=0.02))
    low, high = found.intervals(0.05).T
    apart = (low > 0) | (high < 0)
    assert np.mean(apart == (found.p_values() < 0.05)) > 0.99
    assert np.mean((low > -0.02) == (found.p_greater(-0.02) < 0.025)) > 0.99
