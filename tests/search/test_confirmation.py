"""Confirmed pairs: verdicts and counting."""

import numpy as np
import pytest

from allocsearch.core.errors import InputError
from allocsearch.search.comparison import holm
from allocsearch.search.confirmation import confirm
from tests.search import simulation


def trained(leads, *, seed=0, seeds=3, rows=400):
    rng = np.random.default_rng(seed)
    right = simulation.accuracy(rng, leads, studies=1, seeds=seeds, rows=rows)[0]
    return simulation.replicates((right, simulation.nll(rng, leads, studies=1, seeds=seeds, rows=rows)[0]))


def test_verdicts_go_both_ways():
    good, plain, same, bad = trained([0.12, 0.0, 0.0, -0.15])
    found = {(c.candidate, c.baseline): c for c in confirm([good, same], [plain, bad])}
    assert found[0, 1].verdict == "better"
    assert found[2, 1].verdict == "not distinguishable"
    assert found[2, 3].verdict == "better"
    (worse,) = confirm([bad], [good])
    assert (worse.verdict, worse.difference < 0, worse.interval[1] < 0) == ("worse", True, True)
    assert worse.difference == pytest.approx(-confirm([good], [bad])[0].difference)


def test_differences_are_those_of_the_means_in_either_metric():
    a, b = trained([0.02, 0.0])
    for metric, lead in (("accuracy", np.mean([s.accuracy for s in a.scores]) - np.mean([s.accuracy for s in b.scores])),
                         ("nll", np.mean([s.mean_nll for s in b.scores]) - np.mean([s.mean_nll for s in a.scores]))):  # fmt: skip
        (found,) = confirm([a], [b], metric=metric)
        assert found.difference == pytest.approx(lead, abs=1e-9)
        assert found.interval[0] < found.difference < found.interval[1]


def test_every_pair_is_counted():
    everyone = trained([0.03, 0.02, 0.0, 0.0])
    found = confirm(everyone[:2], everyone[1:])
    assert [(c.candidate, c.baseline) for c in found] == [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3)]
    assert [c.p_adjusted for c in found] == pytest.approx(holm([c.p_value for c in found]))
    assert confirm(everyone[:1], everyone[:1]) == []


def test_only_common_seeds_count_and_one_seed_is_said_to_cover_none():
    a, b = trained([0.0, 0.0])
    (found,) = confirm([a], [simulation.replicates((np.ones((1, 1, 400)), -np.ones((1, 1, 400))), seeds=[1])[0]])[:1] or [None]
    assert found is None, "the same number is the same trial"
    other = simulation.replicates((np.ones((2, 1, 400)), -np.ones((2, 1, 400))), seeds=[1])[1]
    (found,) = confirm([a], [other])
    assert (found.seeds, found.covers_seeds, found.num_rows) == ((1,), False, 400)
    assert confirm([a], [b])[0].covers_seeds
    with pytest.raises(InputError, match="share a seed"):
        confirm([a], [simulation.replicates((np.ones((2, 1, 400)), -np.ones((2, 1, 400))), seeds=[9])[1]])
    with pytest.raises(InputError, match="same rows"):
        confirm([a], [simulation.replicates((np.ones((2, 3, 100)), -np.ones((2, 3, 100))))[1]])


def test_the_same_results_give_the_same_numbers():
    a, b = trained([0.01, 0.0])
    assert confirm([a], [b]) == confirm([a], [b])
