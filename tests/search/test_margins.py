"""The smallest allocation that is not worse by more than a margin: in sequence, and frank about what cannot be resolved."""

import numpy as np
import pytest

from allocsearch.core.errors import InputError
from allocsearch.search.margins import smallest_not_worse
from tests.search import simulation


def trained(leads, *, params, seeds=3, rows=800, seed=0):
    rng = np.random.default_rng(seed)
    right = simulation.accuracy(rng, leads, studies=1, seeds=seeds, rows=rows)[0]
    return simulation.replicates((right, simulation.nll(rng, leads, studies=1, seeds=seeds, rows=rows)[0]), params=params)


def test_the_smallest_of_those_that_pass_is_named():
    reference, *candidates = trained([0.0, 0.05, 0.04, -0.15, 0.05], params=[100, 80, 60, 40, 20])
    found = smallest_not_worse(reference, [*candidates[::-1], reference], 0.02)
    assert [one.params for one in found.sequence] == [80, 60, 40, 20]
    assert [one.passed for one in found.sequence] == [True, True, False, False]
    assert found.number == candidates[1].number
    assert found.sequence[3].p_value < 0.05, "the last would pass by itself, but a larger one failed"
    for one in found.sequence[:3]:
        assert one.passed == (one.lower > -0.02)


def test_where_none_passes_the_reference_stands():
    reference, bad = trained([0.0, -0.15], params=[100, 50])
    assert smallest_not_worse(reference, [bad], 0.01).number is None


def test_a_margin_that_the_splits_cannot_resolve_is_said_so():
    reference, *candidates = trained([0.0, 0.0, 0.0], params=[100, 80, 60], rows=200)
    found = smallest_not_worse(reference, candidates, 0.02, metric="nll", noise=simulation.NLL)
    assert not found.resolved
    assert found.rows_needed > 200
    assert f"it would take about {found.rows_needed} rows" in found.remark
    assert "a margin of 0.02 cannot be resolved with these splits (3 seeds, 200 rows resolve" in found.remark
    assert "\n" not in found.remark


def test_the_noise_is_that_of_the_tested_where_no_calibration_is_there():
    reference, *candidates = trained([0.0] * 8, params=[100 - k for k in range(8)], seeds=4)
    own = smallest_not_worse(reference, candidates, 0.02, metric="nll")
    told = smallest_not_worse(reference, candidates, 0.02, metric="nll", noise=simulation.NLL)
    assert own.resolvable == pytest.approx(told.resolvable, rel=0.3)
    assert own.sequence == told.sequence


def test_a_margin_that_they_can_is_not_remarked_on():
    reference, *candidates = trained([0.0, 0.0, 0.0], params=[100, 80, 60])
    found = smallest_not_worse(reference, candidates, 0.2)
    assert (found.resolved, found.remark, found.rows_needed, found.seeds_needed) == (True, None, None, None)
    assert found.number == 2


def test_one_seed_covers_no_seed_noise():
    reference, candidate = trained([0.0, 0.0], params=[100, 80], seeds=1)
    found = smallest_not_worse(reference, [candidate], 0.005)
    assert not found.covers_seeds
    assert found.rows_needed > 800
    assert found.seeds_needed is None


@pytest.mark.parametrize("margin", [0.0, -0.01, float("nan")])
def test_a_margin_must_be_above_zero(margin):
    reference, candidate = trained([0.0, 0.0], params=[100, 80], rows=20)
    with pytest.raises(InputError, match="a margin above zero"):
        smallest_not_worse(reference, [candidate], margin)
    with pytest.raises(InputError, match="and a candidate"):
        smallest_not_worse(reference, [reference], 0.01)
