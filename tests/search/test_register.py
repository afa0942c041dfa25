"""The register's counts, front and best are those that a look through all trials gives, in whatever order they end."""

from dataclasses import replace
from typing import get_args

from hypothesis import given
from hypothesis import strategies as st

from allocsearch.core.budget import Cost
from allocsearch.core.choices import Metric
from allocsearch.core.front import Candidate, GrowingFront, best, pareto_front
from allocsearch.core.trial import Failed, Infeasible, Measured, SeedScore, Stopped, Trial
from allocsearch.search import results
from allocsearch.search.register import Register
from tests.strategies import assignments

candidates = st.lists(st.tuples(st.sampled_from([0.1, 0.2, 0.5, 0.7]), st.integers(1, 6)), min_size=1, max_size=30)


@given(candidates, st.randoms(use_true_random=False))
def test_a_growing_front_is_the_front_of_all(values, rng):
    found = [Candidate(number, score, params, (0.0, 1.0)) for number, (score, params) in enumerate(values)]
    rng.shuffle(found)
    growing = GrowingFront()
    for i, candidate in enumerate(found):
        growing.add(candidate)
        assert list(growing) == pareto_front(found[: i + 1])
        assert growing.best == best(found[: i + 1])


def outcome(kind, right):
    scores = (SeedScore(0, (True,) * right + (False,) * (8 - right), (1.0 / (1 + right % 3),) * 8),)
    return {
        "measured": Measured(scores, 1.0),
        "stopped": Stopped((), 1.0),
        "infeasible": Infeasible("why"),
        "failed": Failed("why"),
        "running": None,
    }[kind]


kinds = st.sampled_from(["measured", "measured", "stopped", "infeasible", "failed", "running"])


@given(
    st.lists(st.tuples(assignments(), st.integers(1, 5), kinds, st.integers(0, 8)), max_size=12),
    st.sampled_from(get_args(Metric)),
    st.data(),
)
def test_a_register_answers_as_a_look_through_all_trials_would(drawn, metric, data):
    register = Register(metric)
    begun = [Trial(replace(a, number=n), Cost(params, params), "random") for n, (a, params, _, _) in enumerate(drawn)]
    for trial in begun:
        assert register.has(trial.assignment) == any(_work(trial) == _work(other) for other in begun[: trial.number])
        register.put(trial)
    ended = [replace(trial, outcome=outcome(kind, right)) for trial, (_, _, kind, right) in zip(begun, drawn, strict=True)]
    for trial in data.draw(st.permutations(ended)):
        register.put(replace(trial, outcome=None, attempt=2))
        register.put(trial)
    assert register.trials == ended
    assert register.num_finished == sum(isinstance(trial.outcome, Measured | Stopped | Infeasible) for trial in ended)
    assert register.failed == [trial for trial in ended if isinstance(trial.outcome, Failed)]
    assert register.infeasible == [trial for trial in ended if isinstance(trial.outcome, Infeasible)]
    assert register.num_infeasible == len(register.infeasible)
    assert register.num_failed == len(register.failed)
    assert register.front == [point.trial for point in results.pareto(ended, metric)]
    assert register.best == (results.picked(ended, "best", metric).trial if register.front else None)
    assert all(register.knows(trial.assignment.allocation) for trial in ended)
    assert len(register.recent) == min(3, sum(trial.outcome is not None for trial in ended))


def _work(trial):
    one = trial.assignment
    return one.allocation, one.routing, one.seeds, one.split
