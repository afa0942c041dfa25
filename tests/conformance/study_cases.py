"""What every Study must do, on every database. Subclasses give the fixture `url`."""

import threading
from collections import Counter
from dataclasses import replace
from typing import get_args

import pytest
from optuna.trial import TrialState

from allocsearch.backends.catalog import Catalog
from allocsearch.core.budget import cost
from allocsearch.core.trial import Failed, Lost, Measured, RungScore, Stopped
from allocsearch.spec import Sampler
from tests.conformance.end_cases import EndCases
from tests.conformance.proposal_cases import ProposalCases
from tests.conformance.toy import BASE, ROUTING, SHAPE, finish, measured, proposals_of, score_of

SAMPLERS = get_args(Sampler)
RUNGS = (RungScore(0, 10, 0.5, 0.7), RungScore(0, 20, 0.625, 0.65))


def states(desk):
    """Trial states as Optuna itself reads them."""
    return Counter(trial.state for trial in desk.stored().trials)


class StudyCases(ProposalCases, EndCases):
    @pytest.mark.parametrize(
        ("sampler", "objective"),
        [*((name, "pareto") for name in SAMPLERS), ("tpe", "accuracy"), ("tpe", "nll"), ("nsga2", "accuracy"), ("evolution", "nll")],
    )
    def test_the_target_is_reached_exactly(self, desk, sampler, objective):
        study = desk.create(sampler=sampler, objective=objective, trials=10)
        assert finish(study) == list(range(10))
        assert study.ask() is None
        assert study.num_finished == 10
        assert states(desk) == {TrialState.COMPLETE: 10}
        assert desk.record().num_missing == 0
        assert study.failure_report is None

    @pytest.mark.parametrize("sampler", SAMPLERS)
    def test_reopening_continues_where_a_dead_driver_stopped(self, desk, sampler):
        study = desk.create(sampler=sampler, trials=9)
        done = [study.ask() for _ in range(4)]
        for assignment in done[:2]:
            study.tell(assignment.number, measured(assignment))
        again = desk.open()
        assert sorted([again.ask().number, again.ask().number]) == [2, 3]
        assert [trial.assignment.allocation for trial in again.trials()] == [assignment.allocation for assignment in done]
        for assignment in done[2:]:
            again.tell(assignment.number, measured(assignment))
        assert finish(again) == [4, 5, 6, 7, 8]
        assert desk.open().ask() is None
        assert states(desk) == {TrialState.COMPLETE: 9}
        assert len({trial.assignment.allocation for trial in again.trials()}) == 9

    def test_reopening_again_and_again_never_trains_more_than_the_target(self, desk):
        desk.create(trials=5)
        for _ in range(4):  # each driver dies with two trials on its hands
            study = desk.open()
            study.ask()
            assignment = study.ask()
            study.tell(assignment.number, measured(assignment))
        finish(desk.open())
        assert states(desk) == {TrialState.COMPLETE: 5}

    def test_a_second_word_about_a_finished_trial_changes_nothing(self, desk):
        study = desk.create(trials=2)
        assignment = study.ask()
        first = study.tell(assignment.number, measured(assignment))
        for outcome in (measured(assignment, seconds=99.0), Failed("late"), Lost("late"), Stopped((), 1.0)):
            assert study.tell(assignment.number, outcome) == first
        assert finish(study) == [1]
        assert desk.record().trials[0].outcome.seconds == 0.25
        assert states(desk) == {TrialState.COMPLETE: 2}

    def test_the_frozen_bases_score_is_asked_for_until_a_trial_brings_it(self, desk):
        study = desk.create(trials=5)
        wishes = []
        for end in (Failed("a bad loss"), Stopped(RUNGS, 1.0), None, None):
            assignment = study.ask()
            wishes.append(assignment.score_base)
            study.tell(assignment.number, end or measured(assignment))
        assert wishes == [True, True, True, False]
        assert desk.record().base == BASE
        assert desk.open().ask().score_base is False

    def test_every_finished_trial_has_its_gain_over_the_base(self, desk):
        study = desk.create(trials=4)
        together = [study.ask(), study.ask()]
        for assignment in together:
            study.tell(assignment.number, measured(assignment))
        finish(study)
        for trial in desk.stored().trials:
            gain = (trial.user_attrs["accuracy"] - BASE.accuracy) / (trial.user_attrs["trainable_params"] / 1e6)
            assert trial.user_attrs["gain_per_million_params"] == pytest.approx(gain)

    def test_a_plain_load_of_the_study_shows_it_all(self, desk):
        study = desk.create(trials=2, proxy={"seeds": [0, 1], "rungs": [10]})
        first = study.ask()
        study.tell(first.number, measured(first, artifact="weights-0", rungs=RUNGS, statistics={"load": 0.5}))
        second = study.ask()
        study.tell(second.number, measured(second))
        stored = desk.stored()
        assert stored.metric_names == ["accuracy", "trainable_params"]
        assert [direction.name for direction in stored.directions] == ["MAXIMIZE", "MINIMIZE"]
        assert set(stored.user_attrs) >= {"spec", "spec_hash", "versions", "budget"}
        assert stored.user_attrs["spec_hash"] == desk.spec.digest
        assert stored.user_attrs["spec"] == desk.spec.to_json()
        assert stored.user_attrs["budget"] == "8K-params"
        trial = stored.trials[0]
        attrs = trial.user_attrs
        score = score_of(first.allocation)
        total = cost(first.allocation, SHAPE, ROUTING)
        assert trial.values == [score.accuracy, total.trainable]
        assert (attrs["allocation"], attrs["trainable_params"], attrs["active_params"]) == (str(first.allocation), *_pair(total))
        assert attrs["routing"] == {"router": "topk", "top_k": 2, "targets": ["attn", "ffn"], "swi_x": 4}
        assert (attrs["accuracy"], attrs["nll"]) == (score.accuracy, pytest.approx(score.mean_nll))
        assert attrs["accuracy_per_million_params"] == pytest.approx(score.accuracy / (total.trainable / 1e6))
        assert (attrs["seeds"], attrs["seconds"], attrs["worker"]) == ([0, 1], 0.25, "here")
        assert (attrs["origin"], attrs["attempt"], attrs["artifact"]) == ("random", 1, "weights-0")
        assert attrs["rungs"] == [[0, 10, 0.5, 0.7], [0, 20, 0.625, 0.65]]
        space = study._proposals.space
        assert trial.params == space.encode(first.allocation)

    def test_a_study_is_read_back_as_it_was_told(self, desk):
        study = desk.create(trials=5, limits={"max_attempts": 1})
        ends = [Failed("why", 1.5, "w"), Stopped(RUNGS, 2.5, "w"), Lost("gone"), None, None]
        for end in ends:
            assignment = study.ask()
            if end is not None:
                study.tell(assignment.number, end)
            elif assignment.number == 3:
                study.tell(3, measured(assignment, artifact="x", rungs=RUNGS, statistics={"load": 0.5}))
        for got, told in zip(desk.record().trials, study.trials(), strict=True):
            assert got.number == told.number
            assert (got.cost, got.origin, got.attempt, got.share) == (told.cost, told.origin, told.attempt, told.share)
            assert got.assignment == told.assignment
            assert _rounded(got.outcome) == _rounded(told.outcome)
        assert desk.open().trials() == list(desk.record().trials)

    @pytest.mark.parametrize("sampler", SAMPLERS)
    def test_threads_may_ask_and_tell_at_once(self, desk, sampler):
        study = desk.create(sampler=sampler, trials=12)
        ran, errors = [], []

        def work():
            try:
                while (assignment := study.ask()) is not None:
                    ran.append(assignment.number)
                    study.tell(assignment.number, measured(assignment))
            except BaseException as error:  # noqa: BLE001 - shown by the assertion below
                errors.append(error)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
        assert sorted(ran) == list(range(12))
        assert states(desk) == {TrialState.COMPLETE: 12}

    def test_studies_in_one_database_do_not_meet(self, desk):
        one, two = replace_name(desk, f"{desk.name}-one"), replace_name(desk, f"{desk.name}-two")
        first, second = one.create(trials=2), two.create(trials=3)
        a, b = first.ask(), second.ask()
        second.tell(b.number, measured(b))
        first.tell(a.number, Failed("only here"))
        assert (finish(first), finish(second)) == ([1, 2], [1, 2])
        assert isinstance(one.record().trials[0].outcome, Failed)
        assert isinstance(two.record().trials[0].outcome, Measured)

    def test_a_companion_runs_what_it_is_given_and_nothing_else(self, desk):
        study = desk.create(trials=2)
        finish(study)
        catalog = Catalog(desk.url)
        assert catalog.companion(desk.name, "confirmation") is None
        beside = catalog.open_companion(desk.name, "confirmation", desk.spec, proposals_of(desk.spec), {"versions": {}})
        assert beside.ask() is None
        draft = replace(study.trials()[0].assignment, seeds=(7, 8), split="test", keep_weights=False)
        assert beside.enqueue_assignment(draft, "uniform")
        assert not beside.enqueue_assignment(draft, "uniform"), "the same work is not done twice"
        assert beside.enqueue_assignment(replace(draft, seeds=(9,)), "uniform")
        asked = beside.ask()
        assert (asked.seeds, asked.split, asked.keep_weights) == ((7, 8), "test", False)
        again = catalog.open_companion(desk.name, "confirmation", desk.spec, proposals_of(desk.spec), {"versions": {}})
        assert again.ask() == replace(asked, score_base=True), "a dead driver's assignment is run again, whole"
        again.tell(asked.number, measured(asked))
        assert finish(again) == [1]
        record = catalog.companion(desk.name, "confirmation")
        assert [trial.assignment.seeds for trial in record.trials] == [(7, 8), (9,)]
        assert (record.num_trials, record.num_missing) == (2, 0)
        assert desk.name in catalog.names()
        assert not any("/" in name for name in catalog.names())
        assert desk.record().num_trials == 2


def replace_name(desk, name):
    """Another study at the same desk's database."""
    return replace(desk, name=name)


def _pair(total):
    return total.trainable, total.active


def _rounded(outcome):
    """The database keeps five digits of an NLL."""
    if not isinstance(outcome, Measured):
        return outcome
    scores = tuple(replace(score, nll=tuple(round(value, 5) for value in score.nll)) for score in outcome.scores)
    return replace(outcome, scores=scores, base=None)
