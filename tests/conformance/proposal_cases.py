"""What every Study must propose, on every database. Subclasses give the fixture `url`."""

from collections import Counter
from dataclasses import replace
from typing import get_args

import pytest
from optuna.trial import TrialState

from allocsearch.core.budget import Budget, cost
from allocsearch.spec import Sampler
from tests.conformance.toy import NARROW, ROUTING, SHAPE, allocation, finish, measured

SAMPLERS = get_args(Sampler)


def states(desk):
    """Trial states as Optuna itself reads them."""
    return Counter(trial.state for trial in desk.stored().trials)


class ProposalCases:
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

    def test_scalar_studies_have_one_objective_and_aim_at_the_whole_budget(self, desk):
        study = desk.create(trials=3, objective="nll")
        finish(study)
        stored = desk.stored()
        assert stored.metric_names == ["nll"]
        assert stored.direction.name == "MINIMIZE"
        assert [trial.share for trial in study.trials()] == [1.0, 1.0, 1.0]
        assert stored.best_value == pytest.approx(min(trial.user_attrs["nll"] for trial in stored.trials))

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


def allocations_of(record):
    return [str(trial.assignment.allocation) for trial in record.trials]


def replace_name(desk, name):
    """Another study at the same desk's database."""
    return replace(desk, name=name)
