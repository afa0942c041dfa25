"""The synthetic problem: its optimum is what trying everything finds, and its scale is what the page says."""

from itertools import product

import numpy as np
import pytest
from knapsack import NOISE, SPREAD, Knapsack, space_of
from sampling import interval, projected, unprojected

from allocsearch.core.budget import Budget
from allocsearch.search.proposals import Proposals


def tiny(seed, share=0.3):
    space = space_of(3, layers_per_group=2, experts=(0, 1, 3), ranks=(1, 4))
    return Knapsack(space, int(share * space.cost(space.largest).trainable), seed)


def everything(problem):
    """Every allocation's cost and value, straight from the space."""
    dimensions = problem.space.dimensions
    points = [dict(zip([d.name for d in dimensions], values, strict=True)) for values in product(*(d.choices for d in dimensions))]
    return [(problem.space.cost(point).trainable, problem.value(problem.space.canonical(point))) for point in points]


@pytest.mark.parametrize("seed", range(6))
def test_the_front_of_dynamic_programming_is_that_of_trying_everything(seed):
    problem = tiny(seed)
    tried = everything(problem)
    front = problem.best_values
    for spent, value in front:
        assert value == pytest.approx(max(v for c, v in tried if c <= spent))
        assert any(c == spent and v == pytest.approx(value) for c, v in tried)
    assert problem.optimum == pytest.approx(max(v for c, v in tried if c <= problem.budget))
    limits = sorted({c for c, _ in tried if c <= problem.budget})
    reached = [max(v for c, v in front if c <= limit) for limit in limits]
    assert reached == pytest.approx([max(v for c, v in tried if c <= limit) for limit in limits])


def test_random_allocations_lie_as_far_below_the_optimum_as_said():
    problem = tiny(1)
    proposals = Proposals(problem.space, Budget(problem.budget), (1.0,), 99)
    mean = np.mean([problem.accuracy(proposals.random(i)) for i in range(1000)])
    assert problem.scaled(problem.optimum) - mean == pytest.approx(SPREAD, rel=0.2)


def test_noise_has_the_scale_that_is_said_and_no_bias():
    problem = tiny(0)
    point = problem.space.largest
    errors = [problem.measured(point, i) - problem.accuracy(point) for i in range(2000)]
    assert np.std(errors) == pytest.approx(NOISE, rel=0.1)
    assert abs(np.mean(errors)) < 4 * NOISE / np.sqrt(2000)


@pytest.mark.parametrize("name", ["random", "quasi-random", "tpe", "nsga2", "evolution"])
def test_a_search_trains_each_point_once_and_inside_the_budget(name):
    problem = tiny(2)
    budget = Budget(problem.budget)

    def evaluate(point, number):
        return [problem.measured(point, number)]

    found = projected(name, Proposals(problem.space, budget, (1.0,), 0), evaluate, num_trials=8, seed=0)
    if name != "quasi-random":
        found += unprojected(name, problem.space, budget, evaluate, num_trials=8, seed=0)
    for part in (found[:8], found[8:]):
        assert len({tuple(point.items()) for point in part}) == len(part)
    assert all(budget.excess(problem.space.cost(point)) == {} for point in found)


def test_intervals_cover_a_known_mean_as_often_as_they_say():
    rng = np.random.default_rng(0)
    covered = [low <= 1.0 <= high for _ in range(300) for _, low, high in [interval(rng.exponential(size=40), num_resamples=400)]]
    assert 0.88 <= np.mean(covered) <= 0.98
