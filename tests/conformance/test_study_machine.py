"""Asks, tells, duplicate tells, losses and crashes in any order: whatever happens, nothing is trained twice and the count is exact."""

import math
import tempfile
from collections import Counter
from itertools import count
from typing import get_args

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from optuna.trial import TrialState

from allocsearch.core.budget import Budget
from allocsearch.core.trial import Failed, Infeasible, Lost, Measured, SeedScore, Stopped
from allocsearch.spec import Sampler
from tests import strategies as _  # noqa: F401 - loads the Hypothesis profile
from tests.conformance.toy import ROWS, Desk, allocation, measured

TARGET, MAX_ATTEMPTS = 6, 2
_names = count()
_folder = tempfile.TemporaryDirectory(prefix="allocsearch-machine-")


class StudyMachine(RuleBasedStateMachine):
    """What a study must look like is kept in four plain collections."""

    @initialize(sampler=st.sampled_from(get_args(Sampler)), objective=st.sampled_from(["pareto", "accuracy"]))
    def create(self, sampler, objective):
        self.desk = Desk(f"sqlite:///{_folder.name}/studies.db", f"machine-{next(_names)}")
        limits = {"max_attempts": MAX_ATTEMPTS, "max_failed_share": 1.0}
        self.study = self.desk.create(sampler=sampler, objective=objective, trials=TARGET, limits=limits)
        self.running = {}  # number -> assignment
        self.in_line = {}  # lost or left behind: to be asked for again
        self.waiting = []  # warm starts that were never asked for
        self.ended = {}  # number -> trial as first told
        self.losses = Counter()

    def teardown(self):
        if hasattr(self, "desk"):
            self.desk.close()

    @property
    def num_wanted(self):
        return sum(not isinstance(trial.outcome, Failed) for trial in self.ended.values()) + len(self.running) + len(self.in_line)

    @property
    def num_failed(self):
        return sum(isinstance(trial.outcome, Failed) for trial in self.ended.values())

    @rule()
    def ask(self):
        assignment = self.study.ask()
        if assignment is None:
            assert not self.in_line
            assert self.num_wanted == TARGET or self.num_failed >= TARGET
            return
        if self.in_line:
            assert assignment.allocation == self.in_line.pop(assignment.number).allocation
        elif self.waiting:
            assert assignment.number == self.waiting.pop(0)
        assert assignment.number not in self.running
        assert assignment.number not in self.ended
        self.running[assignment.number] = assignment

    @precondition(lambda self: self.running)
    @rule(data=st.data(), kind=st.sampled_from(["measured", "measured", "stopped", "infeasible", "failed", "nan"]))
    def end(self, data, kind):
        number = data.draw(st.sampled_from(sorted(self.running)))
        self._end(self.running.pop(number), kind)

    @precondition(lambda self: self.in_line)
    @rule(data=st.data(), kind=st.sampled_from(["measured", "failed"]))
    def end_after_all(self, data, kind):
        """A worker that was given up for lost."""
        number = data.draw(st.sampled_from(sorted(self.in_line)))
        self._end(self.in_line.pop(number), kind)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def lose(self, data):
        number = data.draw(st.sampled_from(sorted(self.running)))
        assignment = self.running.pop(number)
        self.losses[number] += 1
        trial = self.study.tell(number, Lost("gone"))
        if self.losses[number] == MAX_ATTEMPTS:
            assert isinstance(trial.outcome, Failed)
            self.ended[number] = trial
        else:
            assert trial.outcome is None
            self.in_line[number] = assignment

    @precondition(lambda self: self.in_line)
    @rule(data=st.data())
    def lose_twice(self, data):
        assert self.study.tell(data.draw(st.sampled_from(sorted(self.in_line))), Lost("gone, again")).outcome is None

    @precondition(lambda self: self.ended)
    @rule(data=st.data(), outcome=st.sampled_from([Lost("late"), Failed("late"), Stopped((), 9.0)]))
    def tell_again(self, data, outcome):
        number = data.draw(st.sampled_from(sorted(self.ended)))
        before = self.study.trials()[number]
        assert self.study.tell(number, outcome) == before == self.study.trials()[number]
        assert type(before.outcome) is type(self.ended[number].outcome)

    @rule(text=st.sampled_from(["1*4", "2x2*4", "3x2*2 1*2", "attn:4*4"]))
    def enqueue(self, text):
        known = any(trial.assignment.allocation == allocation(text) for trial in self.study.trials())
        assert self.study.enqueue(allocation(text), text) is not known
        if not known:
            self.waiting.append(len(self.study.trials()) - 1)

    @rule()
    def crash(self):
        """The driver dies and another opens the study."""
        self.study = self.desk.open()
        self.in_line |= self.running
        self.running = {}

    @invariant()
    def the_study_agrees(self):
        trials = self.study.trials()
        assert [trial.number for trial in trials] == list(range(len(trials)))
        assert len({trial.assignment.allocation for trial in trials}) == len(trials)
        ended = {trial.number for trial in trials if trial.outcome is not None}
        assert ended == set(self.ended)
        assert {trial.number for trial in trials} - ended == {*self.running, *self.in_line, *self.waiting}
        assert self.num_wanted <= TARGET
        assert all(Budget(8000).excess(trial.cost) == {} for trial in trials)

    @precondition(lambda self: self.ended and not self.running)
    @rule()
    def the_database_agrees(self):
        stored = self.desk.stored().trials
        kinds = {TrialState.COMPLETE: Measured, TrialState.PRUNED: Stopped | Infeasible, TrialState.FAIL: Failed}
        for trial in stored:
            if trial.number in self.ended:
                assert isinstance(self.ended[trial.number].outcome, kinds[trial.state])
            else:
                assert trial.state == (TrialState.WAITING if trial.number in self.waiting else TrialState.RUNNING)

    def _end(self, assignment, kind):
        diverged = SeedScore(0, (True,) * ROWS, (math.nan,) * ROWS)
        outcome = {
            "measured": measured(assignment),
            "stopped": Stopped((), 1.0),
            "infeasible": Infeasible("out of memory", 1.0),
            "failed": Failed("a bad loss"),
            "nan": measured(assignment, scores=(diverged,)),
        }[kind]
        trial = self.study.tell(assignment.number, outcome)
        assert isinstance(trial.outcome, Failed) if kind == "nan" else trial.outcome == outcome
        self.ended[assignment.number] = trial


TestStudyMachine = StudyMachine.TestCase
TestStudyMachine.settings = settings(max_examples=15, stateful_step_count=25)
