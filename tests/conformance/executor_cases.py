"""What every Executor must do. Subclasses give the fixture `executor`."""

import math
from collections import Counter
from dataclasses import dataclass, replace

import pytest
from optuna.trial import TrialState

from allocsearch.core.trial import Failed, Measured, SeedScore
from tests.conformance.toy import ROWS, allocation, evaluate, finish, measured


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
