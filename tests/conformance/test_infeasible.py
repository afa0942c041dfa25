"""What becomes of allocations that do not fit into memory: the sampler learns of them, and nothing else shows them as results."""

from collections import Counter
from statistics import fmean
from typing import get_args

import pytest
from optuna.trial import TrialState

from allocsearch.core.trial import Infeasible, Measured
from allocsearch.search import results
from allocsearch.spec import Sampler
from allocsearch.views import front_json, status_json
from tests.conformance.toy import measured

OUT = Infeasible("out of memory in passes of 2 rows", 0.5, "here")


@pytest.fixture
def url(sqlite_url):
    return sqlite_url


def run(study, fits):
    """Ask and tell to the end; which trials were told to fit."""
    found = []
    while (assignment := study.ask()) is not None:
        found.append(fits(assignment))
        study.tell(assignment.number, measured(assignment) if found[-1] else OUT)
    return found


@pytest.mark.parametrize("sampler", get_args(Sampler))
def test_an_infeasible_trial_counts_and_is_no_result(desk, sampler):
    study = desk.create(sampler=sampler, trials=12)
    assert run(study, lambda assignment: assignment.number % 3 != 1) == [True, False, True] * 4
    record, stored = desk.record(), desk.stored()
    assert record.num_missing == 0
    assert study.failure_report is study.infeasible_report is None
    assert status_json(record)["counts"] == {"finished": 8, "stopped": 0, "infeasible": 4, "failed": 0, "running": 0, "waiting": 0}
    assert [trial.outcome for trial in record.trials if not isinstance(trial.outcome, Measured)] == [OUT] * 4
    out = {1, 4, 7, 10}
    assert out.isdisjoint(point.trial.number for point in results.points(record.trials))
    assert out.isdisjoint(point["trial"] for point in front_json(record)["points"])
    assert out.isdisjoint(trial.number for trial in stored.best_trials)
    assert Counter(trial.state for trial in stored.trials) == {TrialState.COMPLETE: 8, TrialState.PRUNED: 4}
    for number in out:
        trial = stored.trials[number]
        assert (trial.values, trial.intermediate_values) == (None, {})
        assert trial.system_attrs["constraints"] == [trial.user_attrs["trainable_params"]]
        assert not any(key.startswith("constraints:") for key in trial.system_attrs), "the dashboard would not read this one"
        assert list(trial.constraints.values()) == trial.system_attrs["constraints"]
    again = desk.open()
    again.num_trials = 13
    assert again.ask().number == 12


def test_optunas_dashboard_shows_it_as_infeasible(desk):
    from optuna_dashboard._serializer import serialize_frozen_trial

    run(desk.create(trials=3), lambda assignment: assignment.number != 1)
    stored = desk.stored()
    shown = [serialize_frozen_trial(stored._study_id, trial, {}) for trial in stored.trials]
    assert [bool(trial["constraints"]) for trial in shown] == [False, True, False]


@pytest.mark.parametrize("trials", [2, 3, 20])
def test_a_study_in_which_nothing_fits_ends_and_says_so(desk, trials):
    study = desk.create(sampler="tpe", trials=trials)
    told = run(study, lambda _: False)
    assert len(told) == {2: 2, 3: 3, 20: 10}[trials], "the limit is that of failures"
    assert study.infeasible_report == f"{len(told)} × {OUT.reason}"
    assert study.failure_report is None
    assert desk.open().ask() is None


def test_one_trial_that_fits_is_enough_to_go_on(desk):
    study = desk.create(trials=8)
    assert sum(run(study, lambda assignment: assignment.number == 0)) == 1
    assert study.num_finished == 8


def _late_share(desk, sampler, seed):
    """Of the last half of 40 trials, the share with three experts or more at the bottom, none of which fits."""
    desk.name = f"{desk.name}-{sampler}-{seed}"
    fits = run(desk.create(sampler=sampler, trials=40, seed=seed), lambda assignment: len(assignment.allocation.layers[0].sizes("q")) < 3)
    return fmean(not one for one in fits[20:])


def test_tpe_turns_away_from_what_does_not_fit(desk):
    late = {sampler: _late_share(desk, sampler, 0) for sampler in ("tpe", "random")}
    assert late["tpe"] < late["random"] - 0.1


def test_a_resumed_sampler_knows_what_did_not_fit(desk):
    """The trials of a new driver's sampler carry the constraint, too, however they ended: told to it, or read back."""
    study = desk.create(sampler="tpe", trials=6)
    run(study, lambda assignment: assignment.number != 2)

    def broken(opened):
        opened._mirror.propose(6)  # only now does it look at them
        mirrored = opened._mirror._study.get_trials(states=(TrialState.PRUNED,))
        return [list(trial.constraints.values()) for trial in mirrored]

    again = desk.open()
    assert broken(study) == broken(again) == [[study.trials()[2].cost.trainable]]
