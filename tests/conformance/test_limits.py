"""Limits on spending hold over all drivers of a study, on every database: no trial begins beyond them, and none is left in between."""

from collections import Counter
from dataclasses import replace

import pytest
from optuna.trial import TrialState

from allocsearch.backends.catalog import Catalog
from allocsearch.backends.inline_executor import InlineExecutor
from allocsearch.backends.study_record import LIMITS
from allocsearch.core.trial import Failed, Lost
from tests.conformance.toy import finish, measured, proposals_of, spec_of


@pytest.fixture(params=["sqlite", "postgres"])
def url(request):
    return request.getfixturevalue(f"{request.param}_url")


def opened(desk):
    """As a driver opens it."""
    catalog = Catalog(desk.url)
    return catalog.open(desk.name, desk.spec, proposals_of(desk.spec), catalog.record(desk.name).ledger)


def evaluate(assignment, report):
    return measured(assignment, seconds=1800.0, tokens=1000)


def run(study, most):
    """One driver, which dies after `most` trials."""
    for _ in range(most):
        assignment = study.ask()
        if assignment is None:
            return
        study.tell(assignment.number, replace(evaluate(assignment, None), gpus=0.5))


@pytest.mark.parametrize(("limit", "num_trials"), [({"max_gpu_hours": 1.0}, 4), ({"max_tokens": 4500}, 5)])
def test_what_one_driver_spent_the_next_one_has_not(desk, limit, num_trials):
    desk.create(trials=8, limits=limit)
    for _ in range(3):
        run(opened(desk), 2)
    study = opened(desk)
    assert study.ask() is None
    assert study.is_over()
    assert study.num_finished == num_trials
    assert Counter(trial.state for trial in desk.stored().trials) == {TrialState.COMPLETE: num_trials}
    assert not study.exhausted
    assert study.failure_report is None


def test_a_raised_limit_lets_the_search_go_on_to_its_target(desk):
    desk.create(trials=6, limits={"max_tokens": 2000})
    run(opened(desk), 9)
    assert opened(desk).num_finished == 2
    Catalog(desk.url).note(desk.name, LIMITS, {"max_tokens": 1_000_000})
    assert desk.record().limits.max_tokens == 1_000_000
    study = opened(desk)
    assert finish(study) == [2, 3, 4, 5]
    assert study.ledger.spent.tokens == 2000  # the toy trains on none


def test_trials_under_way_when_a_limit_is_reached_come_to_their_end(desk):
    desk.create(trials=8, limits={"max_tokens": 1000})
    study = opened(desk)
    first, second, third = study.ask(), study.ask(), study.ask()
    study.tell(first.number, evaluate(first, None))
    assert study.tell(second.number, Lost("gone")).outcome is None
    assert not study.is_over(), "a trial that was lost runs again"
    study = opened(desk)  # and so do those that a dead driver left
    again = [study.ask(), study.ask()]
    assert {assignment.number for assignment in again} == {second.number, third.number}
    assert study.ask() is None
    study.tell(second.number, evaluate(second, None))
    study.tell(third.number, Failed("a bad loss"))
    assert {trial.state for trial in desk.stored().trials} == {TrialState.COMPLETE, TrialState.FAIL}


def test_whoever_runs_the_trials_stops_at_the_limit(desk):
    desk.create(trials=8, limits={"max_tokens": 3000})
    assert len(list(InlineExecutor().run(opened(desk), evaluate))) == 3


def test_what_follows_the_search_counts_and_a_calibration_does_not(desk):
    desk.create(trials=2)
    catalog = Catalog(desk.url)
    for kind in ("calibration", "random", "replicas", "confirmation"):
        companion = catalog.open_companion(desk.name, kind, desk.spec, proposals_of(desk.spec), {})
        companion.enqueue(proposals_of(desk.spec).space.decode(proposals_of(desk.spec).random(0)), "random")
        list(InlineExecutor().run(companion, evaluate))
    run(opened(desk), 2)
    assert desk.record().ledger.spent.tokens == 2000 + 3000


def test_limits_on_spending_are_no_part_of_what_a_study_finds():
    one, other = spec_of(limits={"max_hours": 1.0}), spec_of(limits={"max_hours": 2.0, "max_gpu_hours": 3.0, "max_tokens": 4})
    assert one.digest == other.digest == spec_of().digest
    assert spec_of(limits={"max_attempts": 7}).digest != one.digest
