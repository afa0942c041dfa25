"""Asks, tells, duplicate and late tells, losses, crashes and changes of hands in any order, on every database.

Whatever happens, each trial ends once, the count is exact, and a driver that has lost its lease changes nothing.
"""

import math
from collections import Counter
from contextlib import ExitStack, suppress
from dataclasses import asdict, replace
from itertools import count
from typing import get_args

import pytest
import sqlalchemy
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.trial import TrialState

from allocsearch.backends.catalog import Catalog
from allocsearch.backends.lease import Holder
from allocsearch.backends.own_tables import LEASES
from allocsearch.core.budget import Budget
from allocsearch.core.errors import InputError, LostLeaseError
from allocsearch.core.trial import Failed, Infeasible, Lost, Measured, SeedScore, Stopped
from allocsearch.spec import Sampler
from tests.conformance.toy import ROWS, Desk, allocation, measured, proposals_of

TARGET, MAX_ATTEMPTS = 6, 2
REFUSALS = LostLeaseError, UpdateFinishedTrialError  # Optuna looks at the trial before the lease is looked at
_names = count()


class StudyMachine(RuleBasedStateMachine):
    """What a study must look like is kept in four plain collections. `late` are the drivers that have lost it, and what they ran."""

    url: str

    @initialize(sampler=st.sampled_from(get_args(Sampler)), objective=st.sampled_from(["pareto", "accuracy"]))
    def create(self, sampler, objective):
        self.desk = Desk(self.url, f"machine-{next(_names)}")
        limits = {"max_attempts": MAX_ATTEMPTS, "max_failed_share": 1.0}
        self.desk.create(sampler=sampler, objective=objective, trials=TARGET, limits=limits)
        self.reader = RDBStorage(self.url)
        self.drivers = ExitStack()
        self.study = self._drive()
        self.late = []  # (study, the assignments that it believes to be running)
        self.running = {}  # number -> assignment
        self.in_line = {}  # lost or left behind: to be asked for again
        self.waiting = []  # warm starts that were never asked for
        self.ended = {}  # number -> trial as first told
        self.losses = Counter()

    def teardown(self):
        if hasattr(self, "desk"):
            self.drivers.close()
            self.reader.engine.dispose()
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
        """The driver dies, and another of the same machine sees that."""
        self._change_lease(**asdict(replace(Holder.here(), born=0.0)))
        self._hand_over()

    @rule()
    def fall_asleep(self):
        """The driver misses its lease, another takes over, and the first does not know."""
        self._change_lease(expires_at=1.0)
        self.late.append((self.study, dict(self.running)))
        self._hand_over()

    @rule()
    def nod(self):
        """The driver misses its lease, and nobody notices."""
        self._change_lease(expires_at=1.0)

    @rule()
    def come_too_early(self):
        self._change_lease(expires_at=1e10)
        with pytest.raises(InputError, match="one driver"):
            self._drive()

    @precondition(lambda self: any(running for _, running in self.late))
    @rule(data=st.data(), kind=st.sampled_from(["measured", "failed", "lost"]))
    def wake_up_and_tell(self, data, kind):
        study, running = data.draw(st.sampled_from([late for late in self.late if late[1]]))
        number = data.draw(st.sampled_from(sorted(running)))
        outcome = {"measured": measured(running[number], seconds=99.0), "failed": Failed("late"), "lost": Lost("late")}[kind]
        before = self._stored()
        with pytest.raises(REFUSALS):
            study.tell(number, outcome)
        assert self._stored() == before

    @precondition(lambda self: self.late)
    @rule(data=st.data(), text=st.sampled_from(["2*4", "4x2*4"]))
    def wake_up_and_ask(self, data, text):
        study, _ = data.draw(st.sampled_from(self.late))
        before = self._stored()
        with suppress(*REFUSALS):  # it may also have nothing to ask for, as far as it knows
            study.ask()
        with suppress(*REFUSALS):
            study.enqueue(allocation(text), text)
        assert self._stored() == before

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
        stored, *_ = self._stored()
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

    def _drive(self):
        catalog = Catalog(self.url)
        self.drivers.enter_context(catalog.driving(self.desk.name))
        return catalog.open(self.desk.name, self.desk.spec, proposals_of(self.desk.spec))

    def _hand_over(self):
        self.study = self._drive()
        self.in_line |= self.running
        self.running = {}

    def _change_lease(self, **values):
        with self.reader.engine.begin() as connection:
            connection.execute(sqlalchemy.update(LEASES).where(LEASES.c.study == self.desk.name).values(values))

    def _stored(self):
        """All that the database has of the study, by nobody's memory."""
        number = self.reader.get_study_id_from_name(self.desk.name)
        attrs = self.reader.get_study_user_attrs(number), self.reader.get_study_system_attrs(number)
        return self.reader.get_all_trials(number, deepcopy=False), *attrs


@pytest.mark.parametrize(("database", "max_examples"), [("sqlite", 10), ("postgres", 3)])
def test_a_study_stays_whole_whatever_happens(request, database, max_examples):
    class Machine(StudyMachine):
        url = request.getfixturevalue(f"{database}_url")

    run_state_machine_as_test(Machine, settings=settings(max_examples=max_examples, stateful_step_count=25))
