"""Samplers of our own: Optuna's public suite, what the budget adds to it, and what a sampler sees through the mirror."""

import random
from itertools import product

import numpy as np
import optuna
import pytest
from optuna.distributions import IntDistribution
from optuna.testing.pytest_samplers import BasicSamplerTestCase, MultiObjectiveSamplerTestCase, RelativeSamplerTestCase
from optuna.trial import TrialState

from allocsearch.backends.distributions import distribution
from allocsearch.backends.evolution_sampler import EvolutionSampler
from allocsearch.backends.optuna_sampling import proposer
from tests.conformance.toy import proposals_of, spec_of


class TestEvolution(BasicSamplerTestCase, RelativeSamplerTestCase, MultiObjectiveSamplerTestCase):
    @pytest.fixture
    def sampler(self):
        return lambda: EvolutionSampler(seed=1, num_startup_trials=1)


class TestEvolutionOnABudget(BasicSamplerTestCase, RelativeSamplerTestCase, MultiObjectiveSamplerTestCase):
    """The same, for a sampler that was made for a space that these studies do not have."""

    @pytest.fixture
    def sampler(self):
        return lambda: EvolutionSampler(proposals_of(spec_of()), seed=1, num_startup_trials=1)


FREE = {"experts": {"choices": [0, 1, 2, 3, 4], "share": {"tie": 1}}, "rank": {"choices": [1, 2, 3, 4, 6, 8], "share": {"tie": 1}}}


@pytest.fixture
def proposals():
    return proposals_of(spec_of(part=FREE))


def space_of(proposals):
    return {d.name: distribution(d) for d in proposals.space.dimensions}


def test_in_a_users_own_study_every_trial_is_inside_its_target(proposals):
    """`suggest_int` per dimension, beside a parameter that no budget binds."""

    def objective(trial):
        point = {name: trial.suggest_int(name, own.low, own.high, log=own.log) for name, own in space_of(proposals).items()}
        rate = trial.suggest_float("learning_rate", 1e-4, 1e-2, log=True)
        return -sum(point.values()) + rate, proposals.space.cost(point).trainable

    study = optuna.create_study(
        directions=["minimize", "minimize"], sampler=EvolutionSampler(proposals, num_startup_trials=5, population_size=8, seed=2)
    )
    study.optimize(objective, n_trials=30)
    for trial in study.trials:
        point = {name: trial.params[name] for name in space_of(proposals)}
        assert proposals.space.canonical(point) == point
        assert proposals.target(trial.number).excess(proposals.space.cost(point)) == {}
    rates = [trial.params["learning_rate"] for trial in study.trials]
    assert len(set(rates)) > 5
    assert len(set(rates)) < 30  # some are inherited


def test_plain_evolution_gets_nearer_than_chance():
    def distance(sampler):
        study = optuna.create_study(sampler=sampler)
        study.optimize(
            lambda trial: (
                sum(abs(trial.suggest_int(f"x{i}", 0, 20) - 7) for i in range(6)) + 9 * (trial.suggest_categorical("c", "abcd") != "b")
            ),
            n_trials=80,
        )
        return study.best_value

    seeds = range(5)
    bred = np.mean([distance(EvolutionSampler(seed=seed)) for seed in seeds])
    assert bred < 0.8 * np.mean([distance(optuna.samplers.RandomSampler(seed=seed)) for seed in seeds])


def test_a_trials_values_depend_on_its_number_and_not_on_the_order_of_asking(proposals):
    def asked(order):
        study = optuna.create_study(direction="maximize", sampler=EvolutionSampler(proposals, num_startup_trials=2, seed=4))
        for i in range(6):
            study.add_trial(optuna.create_trial(params=proposals.random(i), distributions=space_of(proposals), value=float(i)))
        trials = [study.ask() for _ in range(3)]
        found = {}
        for i in order:
            found[trials[i].number] = {
                name: trials[i].suggest_int(name, d.low, d.high, log=d.log) for name, d in space_of(proposals).items()
            }
        return found

    assert asked([0, 1, 2]) == asked([2, 0, 1])


def test_another_process_gets_another_seed():
    sampler = EvolutionSampler(seed=1)
    study = optuna.create_study(sampler=sampler)
    study.ask()
    trial = study.trials[0]

    def draw():
        return sampler.sample_independent(study, trial, "x", IntDistribution(0, 10**9))

    before = draw()
    assert draw() == before
    sampler.reseed_rng()
    assert draw() != before


def test_a_population_of_none_is_refused():
    with pytest.raises(ValueError, match=r"`population_size >= 1` and `num_startup_trials >= 0` must hold, but got 0 and 10"):
        EvolutionSampler(population_size=0)


def bottom_heavy(point):
    """A score that likes capacity in the bottom half, whatever the size."""
    layers = [point[f"experts.l{i:02d}"] * point[f"rank.l{i:02d}"] for i in range(4)]
    return (layers[0] + layers[1] + 1) / (sum(layers) + 1)


def searched(name, proposals, *, trials, seed, directions=("maximize",)):
    """A search through the mirror as the study does it: propose, project, start, finish. Duplicates are left standing."""
    mirror = proposer(name, proposals=proposals, directions=directions, num_trials=trials, seed=seed)
    points = []
    for number in range(trials):
        if mirror is None:
            points.append(proposals.random(number))
            continue
        values, notes = mirror.propose(number)
        points.append(proposals.projected(values, number))
        mirror.start(number, points[-1], notes)
        scores = [bottom_heavy(points[-1]), float(proposals.space.cost(points[-1]).trainable)]
        mirror.finish(number, TrialState.COMPLETE, scores[: len(directions)])
    return points


@pytest.mark.parametrize("name", ["evolution", "tpe"])
def test_through_the_mirror_a_sampler_learns_from_projected_points(name):
    """At one size and, in Pareto mode, at every size of the ladder: late proposals score higher than random ones at the same targets."""
    for ladder, directions in [([1.0], ("maximize",)), ([0.2, 0.4, 0.6, 0.8, 1.0], ("maximize", "minimize"))]:
        late = []
        for seed, other in product(range(3), [name, "random"]):
            proposals = proposals_of(spec_of(part=FREE, ladder=ladder, seed=seed, budget="4K-params"))
            points = searched(other, proposals, trials=60, seed=seed, directions=directions)
            late.append(np.mean([bottom_heavy(point) for point in points[40:]]))
        learned, chance = np.mean(late[::2]), np.mean(late[1::2])
        assert learned > chance + 0.1


def test_evolution_proposes_what_is_projected_already(proposals):
    mirror = proposer("evolution", proposals=proposals, directions=["maximize"], num_trials=20, seed=3)
    for number in range(20):
        values, notes = mirror.propose(number)
        assert proposals.projected(values, number) == values
        mirror.start(number, {name: int(value) for name, value in values.items()}, notes)
        mirror.finish(number, TrialState.COMPLETE, [bottom_heavy(values)])


def discrepancy(points_ND):
    """The squared centred L2 discrepancy (Hickernell 1998, A generalized discrepancy and quadrature error bound, equation 2.8)."""
    num, width = points_ND.shape
    away = np.abs(points_ND - 0.5)
    apart = np.abs(points_ND[:, None] - points_ND[None])
    pairs = np.prod(1 + away[:, None] / 2 + away[None] / 2 - apart / 2, axis=2)
    return (13 / 12) ** width - 2 / num * np.prod(1 + away / 2 - away**2 / 2, axis=1).sum() + pairs.sum() / num**2


def test_quasi_random_values_are_spread_better_than_random_ones():
    proposals = proposals_of(spec_of(part={"rank": {"choices": list(range(1, 65)), "share": {"tie": 1}}}))

    def spread(values):
        return discrepancy(np.array([[(point[d.name] - 0.5) / 64 for d in proposals.space.dimensions] for point in values]))

    quasi, chance = [], []
    for seed in range(8):
        mirror = proposer("quasi-random", proposals=proposals, directions=["maximize"], num_trials=48, seed=seed)
        raw = []
        for number in range(48):
            values, notes = mirror.propose(number)
            raw.append(values)
            mirror.start(number, proposals.projected(values, number), notes)
            mirror.finish(number, TrialState.COMPLETE, [0.0])
        assert len({tuple(values.items()) for values in raw}) == 48
        quasi.append(spread(raw))
        rng = random.Random(seed)
        chance.append(spread([proposals.space.sample(rng) for _ in range(48)]))
    assert np.mean(quasi) < 0.5 * np.mean(chance)


def test_quasi_random_values_are_listed_ones_and_all_of_them_come(proposals):
    mirror = proposer("quasi-random", proposals=proposals, directions=["maximize"], num_trials=64, seed=0)
    drawn = [mirror.propose(number)[0] for number in range(64)]
    for d in proposals.space.dimensions:
        assert {values[d.name] for values in drawn} == set(d.choices)
