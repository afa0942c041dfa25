"""Disks that are full, a hub that is gone, credentials that are revoked: one clear line, nothing lost, and the study goes on afterwards."""

from dataclasses import dataclass

import pytest
from optuna.trial import TrialState
from sqlalchemy import event
from sqlalchemy.pool import Pool

from allocsearch.backends.inline_executor import InlineExecutor
from allocsearch.backends.storage import written
from allocsearch.core.errors import InputError, MachineError
from tests.conformance.executor_cases import states
from tests.conformance.toy import evaluate, finish, measured


@dataclass
class Machine:
    """Runs trials, but for its first `bad` ones."""

    error: Exception
    bad: int

    def __call__(self, assignment, report):
        self.bad -= 1
        if self.bad >= 0:
            raise self.error
        return measured(assignment)


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), MachineError("the base must load on node-1, but: 401")])
def test_a_machine_that_cannot_work_pauses_the_study_with_its_reason(desk, sqlite_url, error):
    study = desk.create(trials=4)
    assert [trial.outcome for trial in InlineExecutor().run(study, Machine(error, bad=99))] == [None] * 3
    assert study.failure_report.startswith("3 × ")
    assert str(error) in study.failure_report
    assert states(desk) == {TrialState.RUNNING: 1}
    again = desk.open()
    assert len([trial for trial in InlineExecutor().run(again, Machine(error, bad=2)) if trial.outcome is not None]) == 4
    assert states(desk) == {TrialState.COMPLETE: 4}


@pytest.fixture
def url(tmp_path):
    """A database of the test's own, to be filled up."""
    return f"sqlite:///{tmp_path}/studies.db"


def test_a_database_on_a_full_disk_ends_the_run_in_one_line_and_loses_nothing(desk, url):
    """SQLite itself says so here, at a limit to its file's pages."""
    study = desk.create(trials=200)

    @event.listens_for(Pool, "checkout")
    def fill(connection, _record, _proxy):
        cursor = connection.cursor()
        (pages,) = cursor.execute("PRAGMA page_count").fetchone()
        limits.setdefault("pages", pages + 20)
        cursor.execute(f"PRAGMA max_page_count = {limits['pages']}")
        cursor.close()

    limits = {}
    with pytest.raises(InputError, match="database or disk is full") as caught, written(url):
        list(InlineExecutor().run(study, evaluate))
    assert "\n" not in str(caught.value)
    assert "resume the study" in str(caught.value)
    event.remove(Pool, "checkout", fill)
    done = {trial.number: trial.outcome for trial in desk.record().trials if trial.outcome is not None}
    assert 0 < len(done) < 200
    again = desk.open()
    again.num_trials = len(done) + 5
    finish(again)
    record = desk.record()
    assert {number: record.trials[number].outcome for number in done} == done
    assert states(desk) == {TrialState.COMPLETE: len(done) + 5}
