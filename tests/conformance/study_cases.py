"""What every Study must do, on every database. Subclasses give the fixture `url`."""

import math
import threading
from collections import Counter
from dataclasses import replace
from typing import get_args

import pytest
from optuna.trial import TrialState

from allocsearch.backends.catalog import Catalog
from allocsearch.core.budget import Budget, cost
from allocsearch.core.trial import Failed, Infeasible, Lost, Measured, RungScore, SeedScore, Stopped
from allocsearch.spec import Sampler
from allocsearch.views import status_json
from tests.conformance.toy import BASE, NARROW, ROUTING, ROWS, SHAPE, allocation, finish, measured, proposals_of, score_of

SAMPLERS = get_args(Sampler)
RUNGS = (RungScore(0, 10, 0.5, 0.7), RungScore(0, 20, 0.625, 0.65))


def states(desk):
    """Trial states as Optuna itself reads them."""
    return Counter(trial.state for trial in desk.stored().trials)


class StudyCases:
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
    def test_every_proposal_is_inside_the_budget_and_new(self, desk, sampler):
        study = desk.create(sampler=sampler, trials=12, budget="5K-params,4K-active")
        limit = Budget(5000, 4000)
        finish(study)
        allocations = [trial.assignment.allocation for trial in study.trials()]
        assert len(set(allocations)) == len(allocations)
        for trial in study.trials():
            total = cost(trial.assignment.allocation, SHAPE, ROUTING)
            assert trial.cost == total
            assert limit.excess(total) == {}
            assert limit.scaled(trial.share).excess(total) == {}

    def test_each_share_of_the_ladder_is_aimed_at_once_a_round(self, desk):
        study = desk.create(trials=12, ladder=[0.25, 0.5, 0.75, 1.0])
        finish(study)
        shares = [trial.share for trial in study.trials()]
        for i in range(0, 12, 4):
            assert sorted(shares[i : i + 4]) == [0.25, 0.5, 0.75, 1.0]

    @pytest.mark.parametrize("sampler", SAMPLERS)
    def test_the_same_seed_proposes_the_same(self, desk, sampler):
        def run(name, seed):
            study = replace_name(desk, name).create(sampler=sampler, trials=6, seed=seed)
            finish(study)
            return [str(trial.assignment.allocation) for trial in study.trials()]

        first = run(f"{desk.name}-a", 5)
        assert run(f"{desk.name}-b", 5) == first
        assert run(f"{desk.name}-c", 6) != first

    def test_an_assignment_says_all_that_a_worker_needs(self, desk):
        study = desk.create(proxy={"seeds": [3, 1], "rungs": [10, 20]}, routing={"top_k": 1, "targets": ["attn", "ffn"]})
        assignment = study.ask()
        assert (assignment.number, assignment.seeds, assignment.rungs) == (0, (3, 1), (10, 20))
        assert assignment.routing == replace(ROUTING, top_k=1)

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

    @pytest.mark.parametrize("sampler", SAMPLERS)
    def test_proposals_do_not_depend_on_how_many_drivers_there_were(self, desk, sampler):
        undisturbed = replace_name(desk, f"{desk.name}-one").create(sampler=sampler, trials=12)
        finish(undisturbed)
        desk.create(sampler=sampler, trials=12)
        while (assignment := desk.open().ask()) is not None:
            last = desk.open()
            assert last.ask() == assignment
            last.tell(assignment.number, measured(assignment))
        assert allocations_of(desk.record()) == [str(trial.assignment.allocation) for trial in undisturbed.trials()]

    @pytest.mark.parametrize("sampler", SAMPLERS)
    def test_in_batches_neither_timing_nor_deaths_change_what_is_proposed(self, desk, sampler):
        def run(name, order, *, dying):
            own = replace_name(desk, f"{desk.name}-{name}")
            study = own.create(sampler=sampler, trials=12, proposal_batch=3)
            study.enqueue(allocation("2x2*4"), "start")
            while running := list(iter(study.ask, None)):
                assert len(running) <= 3
                for assignment in sorted(running, key=lambda one: order * one.number):
                    study.tell(assignment.number, measured(assignment))
                    if dying:
                        study = own.open()
            return allocations_of(own.record())

        first = run("forwards", 1, dying=False)
        assert len(first) == 12
        assert run("backwards", -1, dying=False) == first
        assert run("dying", -1, dying=True) == first

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

    def test_warm_starts_come_first_in_their_order(self, desk):
        study = desk.create(trials=4)
        assert study.enqueue(allocation("2x2*4"), "first")
        assert study.enqueue(allocation("3x2*2 1*2"), "second")
        assert not study.enqueue(allocation("2+2*4"), "first again")
        assert finish(study) == [0, 1, 2, 3]
        assert [trial.origin for trial in study.trials()] == ["first", "second", "random", "random"]
        assert str(study.trials()[1].assignment.allocation) == "3x2*2 1*2"

    def test_warm_starts_are_put_in_line_once_however_often_a_driver_starts(self, desk):
        study = desk.create(trials=3)
        assert [study.enqueue(allocation(text), text) for text in ("2x2*4", "1*4")] == [True, True]
        assert desk.record().waiting == {0, 1}
        again = desk.open()
        assert [again.enqueue(allocation(text), text) for text in ("2x2*4", "1*4", "2*4")] == [False, False, True]
        assert finish(again) == [0, 1, 2]
        assert desk.record().waiting == frozenset()

    def test_more_warm_starts_than_trials_wait(self, desk):
        study = desk.create(trials=2)
        for text in ("1*4", "2*4", "3*4"):
            study.enqueue(allocation(text), text)
        assert finish(study) == [0, 1]
        assert states(desk) == {TrialState.COMPLETE: 2, TrialState.WAITING: 1}

    @pytest.mark.parametrize("sampler", SAMPLERS)
    def test_a_baseline_that_the_space_cannot_express_runs_outside_the_samplers_sight(self, desk, sampler):
        study = desk.create(sampler=sampler, trials=8)
        assert study.enqueue(allocation("attn:2x5*4"), "published")
        finish(study)
        stored = desk.stored().trials
        assert stored[0].params == {}
        assert all(trial.params for trial in stored[1:])
        again = desk.open()
        again.num_trials = 9
        assert again.ask().number == 8

    @pytest.mark.parametrize("sampler", SAMPLERS)
    def test_a_small_space_is_trained_once_over_and_then_ends(self, desk, sampler):
        study = desk.create(sampler=sampler, trials=30, part=NARROW, ladder=[0.3, 0.55, 0.8, 1.0], budget="1.2K-params")
        finish(study)
        assert sorted(str(trial.assignment.allocation) for trial in study.trials()) == ["1*4", "2*4", "3*4"]
        assert study.ask() is None

    def test_a_share_whose_allocations_are_used_up_leaves_the_others_their_trials(self, desk):
        """The lowest share admits one allocation only, and comes round in every second trial."""
        study = desk.create(trials=12, ladder=[0.12, 1.0], budget="5K-params")
        assert len(finish(study)) == 12
        for trial in study.trials():
            assert Budget(5000).scaled(trial.share).excess(trial.cost) == {}

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

    def test_scalar_studies_have_one_objective_and_aim_at_the_whole_budget(self, desk):
        study = desk.create(trials=3, objective="nll")
        finish(study)
        stored = desk.stored()
        assert stored.metric_names == ["nll"]
        assert stored.direction.name == "MINIMIZE"
        assert [trial.share for trial in study.trials()] == [1.0, 1.0, 1.0]
        assert stored.best_value == pytest.approx(min(trial.user_attrs["nll"] for trial in stored.trials))

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

    def test_a_genetic_sampler_breeds_its_generations(self, desk):
        """Its generation number travels with each trial, through the database too."""
        study = desk.create(sampler="nsga2", trials=20)
        for _ in range(10):
            assignment = study.ask()
            study.tell(assignment.number, measured(assignment))
        finish(desk.open())
        stored = desk.stored().trials
        generations = [v for trial in stored for k, v in trial.system_attrs.items() if k.endswith(":generation")]
        assert max(generations) >= 2
        assert Counter(generations)[0] == 8  # the population of a study of 20

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


def allocations_of(record):
    return [str(trial.assignment.allocation) for trial in record.trials]


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
