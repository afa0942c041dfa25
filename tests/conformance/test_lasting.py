"""Databases that go away in the middle: a restart costs seconds, and what was asked for twice has happened once."""

import signal
import sqlite3
import threading
from collections import Counter

import optuna
import psycopg
import pytest
from optuna.trial import TrialState
from sqlalchemy import event

from allocsearch.backends import lasting
from allocsearch.backends.catalog import Catalog
from allocsearch.backends.lasting import DatabaseAwayError, LastingStorage
from allocsearch.backends.storage import open_storage
from allocsearch.core.errors import InputError
from allocsearch.core.trial import Stopped
from tests.conformance.toy import finish, measured


@pytest.fixture
def url(postgres_url):
    return postgres_url


def assert_whole(desk, trials):
    stored = desk.stored().trials
    assert Counter(trial.state for trial in stored) == {TrialState.COMPLETE: trials}
    assert [trial.number for trial in stored] == list(range(trials))
    assert len({trial.user_attrs["allocation"] for trial in stored}) == trials
    assert all(len(trial.values) == 2 for trial in stored)


def test_a_server_that_restarts_costs_a_run_nothing(desk, postgres):
    study = desk.create(trials=12, sampler="evolution")
    study.tell(study.ask().number, Stopped((), 0.1))
    while (assignment := study.ask()) is not None:
        crashing = threading.Thread(target=postgres.restart)
        if assignment.number % 3 == 0:
            crashing.start()  # while the trial is told and the next one is made
        study.tell(assignment.number, measured(assignment))
        if assignment.number % 3 == 0:
            crashing.join()
    stored = desk.stored().trials
    assert Counter(trial.state for trial in stored) == {TrialState.COMPLETE: 11, TrialState.PRUNED: 1}
    assert len({trial.user_attrs["allocation"] for trial in stored}) == 12


def terminate(engine, pid):
    with psycopg.connect(engine.url.render_as_string(hide_password=False).replace("+psycopg", "")) as other:
        other.execute("SELECT pg_terminate_backend(%s, 5000)", (pid,))


class Cut:
    """Breaks the connection at the n-th commit from now on, before it or after it: the acknowledgement alone is lost."""

    def __init__(self, study, *, at, committed):
        self.left, self.committed, self.done = at, committed, False
        self.engine = study._storage._storage.engine
        event.listen(self.engine, "commit", self._cut)

    def _cut(self, connection):
        self.left -= 1
        if self.left or self.done:
            return
        self.done = True
        if self.committed:
            connection.connection.dbapi_connection.commit()
        terminate(self.engine, connection.connection.dbapi_connection.info.backend_pid)


@pytest.mark.parametrize("committed", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("at", [1, 2, 9, 12])
def test_a_commit_whose_word_is_lost_happens_once(desk, at, committed):
    """Wherever it falls: while a trial is made, an attribute is set, or a trial is ended."""
    study = desk.create(trials=3)
    study.tell(study.ask().number, measured(study.register[0].assignment))
    cut = Cut(study, at=at, committed=committed)
    assignment = study.ask()
    told = study.tell(assignment.number, measured(assignment))
    assert study.tell(assignment.number, measured(assignment)) == told
    assert cut.done
    finish(study)
    assert_whole(desk, 3)


class CutAtEach:
    """Breaks the connection the first time that each statement is about to be sent."""

    def __init__(self, engine):
        self.engine, self.statements = engine, []
        event.listen(engine, "before_cursor_execute", self._cut)

    def _cut(self, connection, _cursor, statement, *_):
        if statement not in self.statements:
            self.statements.append(statement)
            terminate(self.engine, connection.connection.dbapi_connection.info.backend_pid)


@pytest.mark.parametrize("reading", ["record", "glance"])
def test_a_study_is_read_wherever_the_connection_breaks(desk, monkeypatch, reading):
    monkeypatch.setattr(lasting, "_LONGEST_PAUSE_SECONDS", 0.001)
    finish(desk.create(trials=2))
    with Catalog(desk.url).driving(desk.name):
        whole = getattr(Catalog(desk.url), reading)(desk.name)
        catalog = Catalog(desk.url)
        cut = CutAtEach(catalog._storage.engine)
        assert getattr(catalog, reading)(desk.name) == whole
    assert whole.driver is not None
    assert any("allocsearch_leases" in statement for statement in cut.statements)
    assert len(cut.statements) > 5


def test_a_server_that_stays_away_is_named_in_one_line(desk, postgres, monkeypatch):
    monkeypatch.setattr(lasting, "_LONGEST_PAUSE_SECONDS", 0.1)
    study = desk.create(trials=3)
    study._storage._patience = 0.3
    assignment = study.ask()
    postgres.stop(signal.SIGQUIT)
    try:
        with pytest.raises(InputError, match=r"the database postgresql\+psycopg://postgres@/postgres\S* must be back 0 s after") as caught:
            study.tell(assignment.number, measured(assignment))
    finally:
        postgres.start()
    assert "\n" not in str(caught.value)
    finish(desk.open())
    assert_whole(desk, 3)


def test_what_is_no_matter_of_the_connection_is_not_repeated(desk):
    storage = LastingStorage(open_storage(desk.url), patience=60)
    with pytest.raises(KeyError):
        storage.get_trial(10**9)
    study = desk.create(trials=1)
    finish(study)
    with pytest.raises(optuna.exceptions.UpdateFinishedTrialError):
        storage.set_trial_state_values(study._ids[0], TrialState.FAIL)
    with pytest.raises(optuna.exceptions.DuplicatedStudyError):
        storage.create_new_study([optuna.study.StudyDirection.MINIMIZE], desk.name)


def test_ctrl_c_is_not_taken_for_a_broken_connection(desk, monkeypatch):
    """It breaks the connection off, which psycopg then says of it; a pre-ping would make another."""

    def interrupted_ping(connection):
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt as interrupt:
            raise psycopg.OperationalError("the connection is closed") from interrupt

    study = desk.create(trials=2)
    with monkeypatch.context() as patch:
        patch.setattr(study._storage._storage.engine.dialect, "do_ping", interrupted_ping)
        with pytest.raises(KeyboardInterrupt):
            study.ask()
    finish(desk.open())
    assert_whole(desk, 2)


def test_a_locked_file_is_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr("allocsearch.backends.storage._SQLITE_TIMEOUT_SECONDS", 0)
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    storage = LastingStorage(open_storage(url), patience=60)
    study_id = storage.create_new_study([optuna.study.StudyDirection.MINIMIZE], "busy")
    writer = sqlite3.connect(tmp_path / "studies.db", check_same_thread=False)
    writer.execute("BEGIN IMMEDIATE")
    releasing = threading.Timer(0.5, writer.rollback)
    releasing.start()
    seen = []
    event.listen(storage._storage.engine, "handle_error", lambda context: seen.append(context.chained_exception))
    storage.create_new_trial(study_id)
    releasing.join()
    writer.close()
    assert len(storage.get_all_trials(study_id)) == 1
    assert isinstance(seen[0], DatabaseAwayError), "the lock was met"
