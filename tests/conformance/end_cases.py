"""How trials may end, on every database: lost, failed, stopped, infeasible. Subclasses give the fixture `url`."""

import math
from collections import Counter
from typing import get_args

import pytest
from optuna.trial import TrialState

from allocsearch.core.trial import Failed, Infeasible, Lost, Measured, RungScore, SeedScore, Stopped
from allocsearch.spec import Sampler
from allocsearch.views import status_json
from tests.conformance.toy import ROWS, finish, measured

SAMPLERS = get_args(Sampler)
RUNGS = (RungScore(0, 10, 0.5, 0.7), RungScore(0, 20, 0.625, 0.65))


def states(desk):
    """Trial states as Optuna itself reads them."""
    return Counter(trial.state for trial in desk.stored().trials)


class EndCases:
    def test_a_lost_trial_runs_again_under_its_own_number(self, desk):
        study = desk.create(trials=3, limits={"max_attempts": 3})
        first = study.ask()
        lost = study.tell(first.number, Lost("its node went away"))
        assert lost.outcome is None
        again = study.ask()
        assert (again.number, again.allocation) == (first.number, first.allocation)
        assert study.trials()[0].attempt == 2
        study.tell(again.number, measured(again))
        assert finish(study) == [1, 2]
        assert states(desk) == {TrialState.COMPLETE: 3}
        assert desk.record().trials[0].attempt == 2
        assert status_json(desk.record())["retried"] == [{"trial": 0, "attempt": 2}]

    def test_a_trial_that_is_lost_too_often_fails(self, desk):
        study = desk.create(trials=2, limits={"max_attempts": 3})
        for attempt in (1, 2, 3):
            assignment = study.ask()
            assert (assignment.number, study.trials()[0].attempt) == (0, attempt)
            ended = study.tell(0, Lost("out of memory"))
        assert ended.outcome.reason == "its worker died 3 times, last: out of memory"
        assert finish(study) == [1, 2]
        assert states(desk) == {TrialState.COMPLETE: 2, TrialState.FAIL: 1}

    def test_losses_are_counted_across_drivers(self, desk):
        study = desk.create(trials=1, limits={"max_attempts": 2})
        study.tell(study.ask().number, Lost("first"))
        again = desk.open()
        assert isinstance(again.tell(again.ask().number, Lost("second")).outcome, Failed)

    def test_a_loss_that_is_told_twice_counts_once(self, desk):
        study = desk.create(trials=2, limits={"max_attempts": 2})
        number = study.ask().number
        study.tell(number, Lost("once"))
        assert study.tell(number, Lost("once, told again")).outcome is None
        assert finish(study) == [0, 1]
        assert states(desk) == {TrialState.COMPLETE: 2}

    def test_a_result_that_arrives_after_its_loss_is_taken(self, desk):
        study = desk.create(trials=2)
        assignment = study.ask()
        study.tell(assignment.number, Lost("no word from its worker"))
        assert isinstance(study.tell(assignment.number, measured(assignment)).outcome, Measured)
        assert finish(study) == [1]
        assert states(desk) == {TrialState.COMPLETE: 2}

    @pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
    @pytest.mark.parametrize("objective", ["pareto", "nll"])
    def test_a_score_that_is_no_number_is_a_failure_with_a_reason(self, desk, objective, bad):
        study = desk.create(trials=2, objective=objective)
        assignment = study.ask()
        diverged = SeedScore(0, (True,) * ROWS, (bad,) + (0.5,) * (ROWS - 1))
        ended = study.tell(assignment.number, measured(assignment, scores=(diverged,)))
        assert ended.outcome.reason == "the NLL must be finite on every row, but it is not"
        assert finish(study) == [1, 2]
        assert states(desk) == {TrialState.COMPLETE: 2, TrialState.FAIL: 1}
        assert desk.record().trials[0].outcome == ended.outcome

    @pytest.mark.parametrize("sampler", SAMPLERS)
    def test_samplers_go_on_after_stopped_trials(self, desk, sampler):
        """A stopped trial of a study with two objectives must carry neither values nor intermediate values, or TPE raises."""
        study = desk.create(sampler=sampler, trials=12)
        for i in range(12):
            assignment = study.ask()
            study.tell(assignment.number, Stopped(RUNGS, 0.5, "here") if i % 3 == 1 else measured(assignment))
        assert study.ask() is None
        stored = desk.stored()
        assert Counter(trial.state for trial in stored.trials) == {TrialState.COMPLETE: 8, TrialState.PRUNED: 4}
        pruned = stored.trials[1]
        assert pruned.values is None
        assert pruned.intermediate_values == {}
        assert pruned.user_attrs["rungs"] == [[0, 10, 0.5, 0.7], [0, 20, 0.625, 0.65]]
        assert desk.record().trials[1].outcome == Stopped(RUNGS, 0.5, "here")
        again = desk.open()
        again.num_trials = 13
        assert again.ask().number == 12

    def test_an_infeasible_trial_is_neither_measured_nor_failed(self, desk):
        study = desk.create(trials=3, sampler="tpe")
        for i in range(3):
            assignment = study.ask()
            study.tell(assignment.number, Infeasible("out of memory", 0.5, "here") if i == 1 else measured(assignment))
        assert study.ask() is None
        assert states(desk) == {TrialState.COMPLETE: 2, TrialState.PRUNED: 1}
        assert desk.record().trials[1].outcome == Infeasible("out of memory", 0.5, "here")
        assert [bool(trial.constraints) for trial in desk.stored().trials] == [False, True, False]

    def test_too_many_failures_pause_the_study(self, desk):
        study = desk.create(trials=6, limits={"max_failed_share": 0.5})
        for _ in range(3):
            assignment = study.ask()
            study.tell(assignment.number, Failed("out of memory" if assignment.number else "a bad loss"))
        assert study.ask() is None
        assert study.failure_report == "2 × out of memory; 1 × a bad loss"

    def test_a_paused_study_goes_on_once_the_cause_is_mended(self, desk):
        """What paused it counts no more; as many new failures pause it again."""
        study = desk.create(trials=6, limits={"max_failed_share": 0.5})
        for _ in range(3):
            study.tell(study.ask().number, Failed("no access"))
        assert study.ask() is None
        again = desk.open()
        again.tell(again.ask().number, measured(again.trials()[3].assignment))
        for _ in range(3):
            again.tell(again.ask().number, Failed("no access, still"))
        assert again.ask() is None
        assert again.failure_report == "3 × no access; 3 × no access, still"
        assert len(finish(desk.open())) == 5
        assert states(desk) == {TrialState.COMPLETE: 6, TrialState.FAIL: 6}

    def test_failures_add_up_over_drivers_that_died(self, desk):
        for reason in ("one", "two", "three"):
            study = desk.create(trials=6) if reason == "one" else desk.open()
            study.tell(study.ask().number, Failed(reason))
        assert study.ask() is None

    def test_what_machines_cannot_run_pauses_the_study_and_costs_no_attempt(self, desk):
        study = desk.create(trials=3, limits={"max_attempts": 2})
        for number in (0, 0):
            assert study.ask().number == number
            assert study.tell(number, Lost("the disk of node-1 is full", by_machine=True)).outcome is None
        assert study.ask() is None
        assert study.failure_report == "2 × the disk of node-1 is full"
        again = desk.open()
        again.tell(again.ask().number, Lost("the disk of node-1 is full", by_machine=True))
        assert finish(again) == [0, 1, 2], "a machine that is mended in time stops nothing"
        assert states(desk) == {TrialState.COMPLETE: 3}

    def test_machines_that_fail_now_and_then_pause_nothing(self, desk):
        study = desk.create(trials=6, limits={"max_attempts": 2})
        while (assignment := study.ask()) is not None:
            if study.trials()[assignment.number].attempt == 1:
                study.tell(assignment.number, Lost("the hub does not answer", by_machine=True))
            else:
                study.tell(assignment.number, measured(assignment))
        assert study.failure_report is None
        assert states(desk) == {TrialState.COMPLETE: 6}
