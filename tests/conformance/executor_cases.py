"""What every Executor must do. Subclasses give the fixture `executor`."""

import math
from collections import Counter
from dataclasses import dataclass, replace

import pytest
from optuna.trial import TrialState

from allocsearch.core.trial import Failed, Measured, SeedScore, Stopped
from allocsearch.search import results
from allocsearch.search.schedule import halving
from allocsearch.views import front_json, status_json
from tests.conformance.toy import ROWS, allocation, climb, evaluate, finish, measured


@dataclass(frozen=True)
class Failing:
    """Ends some trials in other ways than the toy model does."""

    raising: tuple[int, ...] = ()
    diverging: tuple[int, ...] = ()
    failing: tuple[int, ...] = ()

    def __call__(self, assignment, report):
        if assignment.number in self.raising:
            raise MemorylessError("CUDA out of memory.\n  Tried to allocate 2 GiB")
        if assignment.number in self.failing:
            return Failed("the loss must be finite, but it is not", 0.5, "here")
        if assignment.number in self.diverging:
            return measured(assignment, scores=(SeedScore(0, (True,) * ROWS, (math.nan,) * ROWS),))
        return measured(assignment)


class MemorylessError(Exception):
    """An error that cannot travel between processes, as some of CUDA's cannot."""

    def __reduce__(self):
        raise TypeError("never")


def remembering(assignment, report):
    """Says what it was told."""
    return measured(assignment, worker=repr(assignment))


def states(desk):
    return Counter(trial.state for trial in desk.stored().trials)


class ExecutorCases:
    def test_a_study_is_run_to_its_target(self, desk, executor):
        study = desk.create(
            sampler="tpe", trials=6, proxy={"seeds": [4, 2], "rungs": [7]}, routing={"router": "dense", "top_k": [1, 2, 1, 2]}
        )
        study.enqueue(allocation("2x2*4"), "start")
        ended = list(executor.run(study, remembering))
        assert sorted(trial.number for trial in ended) == list(range(6))
        assert sorted(ended, key=lambda trial: trial.number) == study.trials()
        for trial in ended:
            assert trial.outcome.accuracy == measured(trial.assignment).accuracy
            assert trial.outcome.worker in {repr(replace(trial.assignment, score_base=wish)) for wish in (True, False)}
        assert states(desk) == {TrialState.COMPLETE: 6}
        assert study.trials()[0].origin == "start"
        assert list(executor.run(desk.open(), evaluate)) == []

    def test_one_trials_failure_is_nobody_elses_and_too_many_end_the_run(self, desk, executor):
        study = desk.create(trials=4, limits={"max_failed_share": 1.0})
        failing = Failing(raising=(0, 5), diverging=(2,), failing=(3,))
        ended = {trial.number: trial.outcome for trial in executor.run(study, failing)}
        assert ended[0].reason == "MemorylessError: CUDA out of memory. Tried to allocate 2 GiB"
        assert ended[2].reason == "the NLL must be finite on every row, but it is not"
        assert ended[3] == Failed("the loss must be finite, but it is not", 0.5, "here")
        assert {number for number, outcome in ended.items() if isinstance(outcome, Measured)} >= {1, 4}
        assert states(desk)[TrialState.FAIL] == 4
        assert study.failure_report.startswith("2 × MemorylessError: CUDA out of memory. Tried to allocate 2 GiB; 1 × ")

    def test_closing_the_iterator_leaves_a_study_that_can_be_resumed(self, desk, executor):
        study = desk.create(trials=6)
        running = executor.run(study, evaluate)
        first = next(running)
        running.close()
        assert isinstance(first.outcome, Measured)
        again = desk.open()
        assert 1 <= again.num_finished < 6
        finish(again)
        assert states(desk) == {TrialState.COMPLETE: 6}
        assert len({trial.assignment.allocation for trial in again.trials()}) == 6

    @pytest.mark.parametrize("broken", ["ask", "tell"])
    def test_what_the_study_raises_ends_the_run(self, desk, executor, broken):
        """A database that goes away must not look like a finished search."""
        study = BrokenStudy(desk.create(trials=4), broken)
        with pytest.raises(ConnectionError, match="the database is gone"):
            list(executor.run(study, evaluate))

    def test_halving_stops_what_is_worse_from_the_first_rung_on(self, desk, executor):
        """Of the warm start, which is bad too, nothing is stopped; and a baseline's reports count like any other's."""
        study = desk.create(trials=14, proxy={"seeds": [4, 2], "rungs": [5, 10, 20]}, scheduler=HALVING, objective="nll")
        study.enqueue(allocation("attn:2x5*4"), "published")
        told = list(executor.run(study, Climbing((0, 3, 5, 7, 9, 11, 13)), scheduler=halving(desk.spec)))
        stopped = {trial.number: trial.outcome for trial in told if isinstance(trial.outcome, Stopped)}
        assert {9, 11, 13} <= stopped.keys() <= {3, 5, 7, 9, 11, 13}
        assert {outcome.rungs[-1].step for outcome in stopped.values()} == {10}
        assert {rung.seed for outcome in stopped.values() for rung in outcome.rungs} == {4}
        assert states(desk) == {TrialState.PRUNED: len(stopped), TrialState.COMPLETE: 14 - len(stopped)}
        assert {trial.number: trial.outcome for trial in desk.record().trials if trial.number in stopped} == stopped

    def test_stopped_trials_enter_neither_the_front_nor_a_comparison(self, desk, executor):
        """Their last accuracy was higher than any trial's in the end."""
        study = desk.create(trials=14, proxy={"rungs": [10]}, scheduler=HALVING, ladder=[0.5, 1.0])
        told = list(executor.run(study, Climbing((3, 5, 7, 9, 11, 13)), scheduler=halving(desk.spec)))
        stopped = {trial.number for trial in told if isinstance(trial.outcome, Stopped)}
        assert stopped
        record, stored = desk.record(), desk.stored()
        assert record.num_missing == 0
        assert status_json(record)["counts"] == {
            "finished": 14 - len(stopped),
            "stopped": len(stopped),
            "infeasible": 0,
            "failed": 0,
            "running": 0,
            "waiting": 0,
        }
        seen = [*results.points(record.trials), *results.pareto(record.trials), *results.baselines(record.trials)]
        seen += [results.picked(record.trials, pick) for pick in ("best", "knee", "smallest")]
        assert stopped.isdisjoint(point.trial.number for point in seen)
        assert stopped.isdisjoint(point["trial"] for point in front_json(record)["points"])
        assert stopped.isdisjoint(trial.number for trial in stored.best_trials)
        for number in stopped:
            assert stored.trials[number].state == TrialState.PRUNED
            assert (stored.trials[number].values, stored.trials[number].intermediate_values) == (None, {})

    def test_a_resumed_search_judges_by_the_rungs_in_the_study(self, desk, executor):
        """Seven reports decide, and six trials run after the resume."""
        changes = {"proxy": {"rungs": [10]}, "objective": "nll", "scheduler": {**HALVING, "eta": 7}}
        first = desk.create(trials=8, **changes)
        list(executor.run(first, Climbing(()), scheduler=halving(desk.spec)))
        again = desk.open()
        again.num_trials = 14
        told = list(executor.run(again, Climbing((10, 11)), scheduler=halving(desk.spec)))
        assert len(told) == 6
        assert {10, 11} <= {trial.number for trial in told if isinstance(trial.outcome, Stopped)}


HALVING = {"kind": "halving", "eta": 3, "first_rung": 10}


@dataclass(frozen=True)
class Climbing:
    """Reports at rungs, badly for some trials."""

    bad: tuple[int, ...]

    def __call__(self, assignment, report):
        return climb(assignment, report, bad=assignment.number in self.bad)


class BrokenStudy:
    """A Study whose database goes away at its second use."""

    def __init__(self, study, broken):
        self.study, self.broken, self.calls = study, broken, Counter()

    def ask(self):
        return self._call("ask", self.study.ask)

    def tell(self, number, outcome):
        return self._call("tell", lambda: self.study.tell(number, outcome))

    def _call(self, name, action):
        self.calls[name] += 1
        if name == self.broken and self.calls[name] > 1:
            raise ConnectionError("the database is gone")
        return action()
