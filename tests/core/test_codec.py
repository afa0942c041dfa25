"""What travels to workers and into the database comes back the same."""

import json
import math

import pytest
from hypothesis import given

from allocsearch.core import codec
from allocsearch.core.trial import Measured, SeedScore
from tests.strategies import assignments, outcomes, routings, rung_scores, seed_scores


def through_json(value):
    return json.loads(json.dumps(value))


@given(assignments())
def test_assignments(assignment):
    assert codec.assignment_from_json(through_json(codec.assignment_to_json(assignment))) == assignment


@given(outcomes())
def test_outcomes(outcome):
    assert codec.outcome_from_json(through_json(codec.outcome_to_json(outcome))) == outcome


@given(routings(num_layers=2))
def test_routings(routing):
    assert codec.routing_from_json(through_json(codec.routing_to_json(routing))) == routing


@given(seed_scores())
def test_scores(score):
    again = codec.score_from_json(through_json(codec.score_to_json(score)))
    assert again == score
    assert (again.accuracy, again.mean_nll) == (score.accuracy, score.mean_nll)


@given(rung_scores())
def test_rungs(rung):
    assert codec.rungs_from_json(through_json(codec.rungs_to_json((rung,)))) == (rung,)


def test_scores_keep_five_digits_of_the_nll():
    score = SeedScore(0, (True, False), (0.123456789, 2 / 3))
    assert codec.score_to_json(score) == {"seed": 0, "correct": "10", "nll": [0.12346, 0.66667]}


def test_a_diverged_score_survives_the_way_from_a_worker():
    outcome = Measured((SeedScore(0, (True,), (math.nan,)),), 1.0)
    again = codec.outcome_from_json(through_json(codec.outcome_to_json(outcome)))
    assert not again.finite
    assert outcome.finite is False


def test_an_unknown_kind_of_outcome_is_named():
    with pytest.raises(ValueError, match="measured, stopped, infeasible, failed or lost, but got 'maybe'"):
        codec.outcome_from_json({"kind": "maybe"})


@pytest.mark.parametrize(("correct", "nll"), [((), ()), ((True,), ()), ((True,), (0.1, 0.2))])
def test_a_score_has_one_nll_per_row(correct, nll):
    with pytest.raises(ValueError, match="one `nll` per row and at least one row must hold"):
        SeedScore(0, correct, nll)


def test_means_are_over_seeds():
    scores = (SeedScore(0, (True, False), (1.0, 2.0)), SeedScore(1, (True, True), (0.0, 1.0)))
    measured = Measured(scores, 2.0)
    assert (measured.accuracy, measured.nll, measured.finite) == (0.75, 1.0, True)
