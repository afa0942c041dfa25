"""Calibration: its numbers are those of the noise that was put in, its intervals cover, and it survives JSON."""

import json
from dataclasses import replace

import numpy as np
import pytest

from allocsearch.core.errors import InputError
from allocsearch.core.trial import RungScore
from allocsearch.search import rank_correlation
from allocsearch.search.calibration import Calibration, calibrate
from allocsearch.search.replicates import Replicated
from tests.search import simulation

LEADS = tuple(np.linspace(-0.03, 0.03, 12))


def trained(seed=0, *, seeds=3, rows=300, leads=LEADS, rung_noise=0.0):
    rng = np.random.default_rng(seed)
    right = simulation.accuracy(rng, leads, studies=1, seeds=seeds, rows=rows)[0]
    gain = simulation.nll(rng, [2 * lead for lead in leads], studies=1, seeds=seeds, rows=rows)[0]
    end = right.mean(axis=2)
    rungs = {10: rng.normal(size=end.shape), 20: end + rung_noise * rng.normal(size=end.shape), 30: end}
    return simulation.replicates((right, gain), rungs=rungs)


def test_standard_deviations_are_those_that_were_put_in():
    found = [calibrate(trained(seed, leads=(0.0,) * 12, rows=872), num_steps=30) for seed in range(6)]
    assert np.mean([c.nll.paired_seed_sd.value for c in found]) == pytest.approx(0.008, rel=0.1)
    assert np.mean([c.nll.seed_sd.value**2 for c in found]) ** 0.5 == pytest.approx(0.024, rel=0.5)
    assert np.mean([c.accuracy.paired_seed_sd.value for c in found]) == pytest.approx(0.0043, rel=0.12)
    for c in found:
        assert c.nll.seed_sd.low < c.nll.seed_sd.value < c.nll.seed_sd.high
        assert c.accuracy.row_sd.value == pytest.approx(0.37, rel=0.1)
        assert c.nll.paired_seed_sd.low < 0.0085
        assert c.nll.paired_seed_sd.high > 0.007


def test_a_few_seeds_leave_the_shared_noise_wide_open():
    found = calibrate(trained(seeds=2), num_steps=30).nll
    assert found.seed_sd.high > 4 * found.seed_sd.value
    assert found.paired_seed_sd.high < 3 * found.paired_seed_sd.value


def test_rungs_are_held_against_other_seeds():
    found = calibrate(trained(), num_steps=40).accuracy
    assert list(found.rungs) == [10, 20, 30]
    assert found.rungs[30] == found.noise_ceiling, "the end's own scores must not foretell better than another seed's"
    assert found.rungs[30].spearman.value < 1
    assert found.rungs[10].spearman.low < 0 < found.rungs[10].spearman.high


def test_luck_that_rung_and_end_share_is_no_merit():
    """All allocations are equal but for their seeds, so a rung that repeats its own seed's end foretells nothing."""
    rng, found = np.random.default_rng(0), []
    for _ in range(20):
        gain = simulation.nll(rng, (0.0,) * 12, studies=1, seeds=3, rows=50, noise=replace(simulation.NLL, allocation_row=0.0))[0]
        table = simulation.replicates((gain > -0.3, gain), rungs={30: -gain.mean(axis=2)})
        found.append(calibrate(table, num_steps=40).nll.rungs[30].spearman.value)
    assert abs(np.mean(found)) < 4 * np.std(found) / 20**0.5


def test_equal_means_are_ties_in_whatever_order_they_were_summed():
    accuracies = np.array([[1, 3, 3], [3, 3, 1], [2, 2, 2], [9, 9, 9], [5, 6, 7]]) / 10
    right = np.arange(10)[None, None, :] < 10 * accuracies[:, :, None]
    table = simulation.replicates((right, -np.ones(right.shape)))
    found = calibrate(table, num_steps=30, scores={"constant": [1.0] * 5}).accuracy
    assert found.scores["constant"].spearman.value == 0
    whole = calibrate(simulation.replicates((right, right - 1.0)), num_steps=30)
    assert whole.accuracy.noise_ceiling.kendall.value == pytest.approx(whole.nll.noise_ceiling.kendall.value)


def test_two_seeds_make_the_ceiling_the_correlation_between_them():
    table = trained(seeds=2)
    found = calibrate(table, num_steps=30).accuracy
    first, second = (np.array([one.scores[s].accuracy for one in table]) for s in (0, 1))
    ones = np.ones((1, len(table)))
    assert found.noise_ceiling == found.between_seeds
    assert found.between_seeds.spearman.value == pytest.approx(rank_correlation.spearman(first, second, ones)[0])
    assert found.between_seeds.kendall.value == pytest.approx(rank_correlation.kendall(first, second, ones)[0])


def test_parameters_and_scores_are_held_against_the_same_ends():
    table = trained()
    params = [one.params for one in table]
    found = calibrate(table, num_steps=30, scores={"same": params, "reversed": [-p for p in params]}).accuracy
    assert found.scores["same"] == found.parameters
    assert found.scores["reversed"].spearman.value == pytest.approx(-found.parameters.spearman.value)
    assert found.parameters.spearman.low > 0.5, "the allocations' true order is that of their parameters"


def test_the_interval_of_a_rank_correlation_covers():
    rng = np.random.default_rng(5)
    missed, rounds, size = 0, 200, 16
    population = rng.multivariate_normal([0, 0], [[1, 0.6], [0.6, 1]], 3000)
    truth = rank_correlation.spearman(*population.T, np.ones((1, 3000)))[0]
    weights = rng.multinomial(size, np.full(size, 1 / size), size=800).astype(float)
    for _ in range(rounds):
        x, y = rng.multivariate_normal([0, 0], [[1, 0.6], [0.6, 1]], size).T
        low, high = np.quantile(rank_correlation.spearman(x, y, weights), [0.025, 0.975])
        missed += not low <= truth <= high
    assert simulation.at_most(missed, rounds, 0.05)


def test_rungs_that_someone_lacks_are_left_out():
    table = trained()
    lacking = Replicated(99, 5, table[0].scores, tuple(rung for rung in table[0].rungs if (rung.step, rung.seed) != (20, 1)))
    late = [Replicated(one.number, one.params, one.scores, (*one.rungs, RungScore(0, 30, 0.5, 0.5))) for one in table]
    assert list(calibrate([lacking, *table[1:]], num_steps=40).accuracy.rungs) == [10, 30]
    assert list(calibrate(late, num_steps=30).accuracy.rungs) == [10, 20]


def test_json_round_trip():
    found = calibrate(trained(), num_steps=30, scores={"spectra": range(12)})
    assert Calibration.from_json(json.loads(json.dumps(found.to_json()))) == found


def test_the_same_table_gives_the_same_numbers():
    assert calibrate(trained(), num_steps=30) == calibrate(trained(), num_steps=30)


def test_too_small_a_table_is_refused():
    with pytest.raises(InputError, match="calibration needs 4 allocations and 2 common seeds, but has 3 and 3"):
        calibrate(trained()[:3], num_steps=30)
    with pytest.raises(InputError, match="has 12 and 1"):
        calibrate(trained(seeds=1), num_steps=30)
    with pytest.raises(InputError, match="calibration needs"):
        calibrate([], num_steps=30)
    with pytest.raises(InputError, match="score 'short' must have one value per allocation"):
        calibrate(trained(), num_steps=30, scores={"short": [1.0]})
