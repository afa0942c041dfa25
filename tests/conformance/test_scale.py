"""What a study costs as it grows: numbers of statements and of things looked at, never seconds."""

import sys
from collections import Counter
from contextlib import contextmanager
from dataclasses import replace
from statistics import median
from types import SimpleNamespace

import optuna
import pytest
import sqlalchemy as sa
from optuna.trial import TrialState
from sqlalchemy import event

from allocsearch import exporting
from allocsearch.backends.catalog import Catalog
from allocsearch.cli import reading
from allocsearch.core.errors import InputError
from allocsearch.core.trial import Failed, Infeasible, RungScore, Stopped
from allocsearch.search.register import Register
from allocsearch.search.results import pareto
from allocsearch.views import status_json
from tests.conformance.toy import Desk, allocation, finish, measured, proposals_of, score_of

FREE = {"experts": {"choices": [0, 1, 2, 3, 4], "share": {"tie": 1}}, "rank": {"choices": [1, 2, 3, 4, 6, 8], "share": {"tie": 1}}}
BOOKKEEPING = ("/optuna/", "/sqlalchemy/", "/allocsearch/backends/", "/allocsearch/search/register", "/allocsearch/core/front")
COPIED = {
    "trials": "study_id, state, datetime_start, datetime_complete",
    "trial_user_attributes": "key, value_json",
    "trial_params": "param_name, param_value, distribution_json",
    "trial_values": "objective, value, value_type",
}


@contextmanager
def statements(storage):
    """What is sent to the database meanwhile."""
    sent = []

    def heard(_connection, _cursor, statement, *_):
        sent.append(statement)

    event.listen(storage.engine, "before_cursor_execute", heard)
    try:
        yield sent
    finally:
        event.remove(storage.engine, "before_cursor_execute", heard)


@pytest.fixture(params=["sqlite_url", "postgres_url"])
def url(request):
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize("url", ["sqlite_url"], indirect=True)
@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_a_trial_costs_as_many_statements_whatever_came_before(desk, sampler, monkeypatch):
    """Nor does anything look through the trials that the driver has in memory."""
    study = desk.create(trials=60, sampler=sampler)
    storage = study._storage._storage
    study.tell(0, measured(study.ask()))
    monkeypatch.setattr(Register, "trials", property(lambda _: pytest.fail("looked through all trials")))
    costs = []
    for _ in range(59):
        with statements(storage) as sent:
            assignment = study.ask()
            study.tell(assignment.number, measured(assignment, artifact=f"w{assignment.number}"))
            for name in study.artifacts - {trial.outcome.artifact for trial in study.register.front}:
                study.forget_artifact(name)
        costs.append(len(sent))
    assert max(costs[-20:]) <= max(costs[:20])


def multiply(url, times):
    """The trials of a database's only study, over and over."""
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        num = connection.execute(sa.text("SELECT max(trial_id) FROM trials")).scalar()
        for shift in range(num, num * times, num):
            for table, columns in COPIED.items():
                ids = ["trial_id", "number"] if table == "trials" else ["trial_id"]
                copy = f"SELECT {', '.join(f'{name} + {shift}' for name in ids)}, {columns} FROM {table} WHERE trial_id <= {num}"
                connection.execute(sa.text(f"INSERT INTO {table} ({', '.join(ids)}, {columns}) {copy}"))
    engine.dispose()


def calls(study):
    """Function calls of asking for a trial and telling it, but for the moves in the space, whose number is drawn by lot."""
    made = Counter()

    def heard(frame, what, _):
        if what == "call":
            made[frame.f_code] += 1

    sys.setprofile(heard)
    try:
        assignment = study.ask()
        study.tell(assignment.number, measured(assignment))
    finally:
        sys.setprofile(None)
    return sum(num for code, num in made.items() if any(part in code.co_filename for part in BOOKKEEPING))


@pytest.mark.parametrize("sampler", ["random", "evolution"])
def test_asking_and_telling_is_no_more_work_after_ten_times_as_many_trials(tmp_path, sampler):
    """Rows that are read count too: each is a call or more."""
    desk = Desk(f"sqlite:///{tmp_path}/studies.db", "grown")
    study = desk.create(trials=1000, sampler=sampler, part=FREE)
    for _ in range(12):
        study.tell((assignment := study.ask()).number, measured(assignment))
    found = []
    for times in (5, 10):
        multiply(desk.url, times)
        study = desk.open()
        study.tell((assignment := study.ask()).number, measured(assignment))  # the first one looks back once
        found.append(median(calls(study) for _ in range(5)))
    assert len(study.register) > 600
    assert found[1] < 1.05 * found[0]


def test_a_glance_shows_what_a_reading_of_all_trials_does_in_a_fixed_number_of_statements(desk):
    study = desk.create(trials=14, limits={"max_failed_share": 1.0})
    study.enqueue(allocation("1*4"), "start")
    ends = [Failed("why", 1.5, "w"), Stopped((RungScore(0, 10, 0.5, 0.7),), 2.5, "w"), Infeasible("too large", 1.0, "w"), None, None, None]
    for end in ends:
        assignment = study.ask()
        study.tell(assignment.number, end or measured(assignment))
    study.ask()
    costs = []
    for _ in range(2):
        catalog = Catalog(desk.url)
        with statements(catalog._storage) as sent:
            found = status_json(catalog.glance(desk.name))
        costs.append(len(sent))
        assert found == status_json(desk.record())
        finish(desk.open())
    assert costs[0] == costs[1]
    assert found["best"] is not None


@pytest.mark.parametrize("objective", ["pareto", "nll"])
def test_a_glance_finds_the_best_among_replicated_trials_and_a_reader_of_the_front_finds_all_of_it(desk, objective):
    study = desk.create(trials=8, objective=objective)
    finish(study)
    costs = []
    for better in (False, True):
        drafts = [replace(trial.assignment, seeds=(7 + better,)) for trial in study.trials()[2 : 4 + better]]
        beside = Catalog(desk.url).open_companion(desk.name, "replicas", desk.spec, proposals_of(desk.spec), {})
        for draft in drafts:
            beside.enqueue_assignment(draft, "random")
        while (assignment := beside.ask()) is not None:
            beside.tell(assignment.number, measured(assignment, scores=(score_of(assignment.allocation, 7 + better),)))
        catalog = Catalog(desk.url)
        with statements(catalog._storage) as sent:
            found, front = status_json(catalog.glance(desk.name)), catalog.front(desk.name)
        costs.append(len(sent))
        assert found == status_json(desk.record())
        assert found["best"]["trial"] in (2, 3, 4)
        assert front == pareto(desk.record().trials, desk.spec.metric)
    assert costs[0] == costs[1], "however many are replicated"


def test_a_glance_may_be_taken_while_trials_begin_and_end(desk):
    study = desk.create(trials=40)
    assignment = study.ask()
    study.tell(assignment.number, measured(assignment))
    running, catalog = [study.ask()], Catalog(desk.url)

    def work(*_):
        ended = running.pop()
        study.tell(ended.number, measured(ended))
        running.append(study.ask())

    event.listen(catalog._storage.engine, "after_cursor_execute", work)
    found = status_json(catalog.glance(desk.name))
    assert found["counts"]["running"] == 1
    assert catalog.front(desk.name)
    event.remove(catalog._storage.engine, "after_cursor_execute", work)
    assert len(study.register) > 10, "one at each statement"


def test_a_study_without_a_finished_trial_has_no_best(desk):
    study = desk.create(trials=3)
    study.ask()
    found = status_json(Catalog(desk.url).glance(desk.name))
    assert found == status_json(desk.record())
    assert (found["best"], found["counts"]["running"]) == (None, 1)
    assert desk.stored().trials[0].state == TrialState.RUNNING


def test_a_study_is_looked_for_without_its_trials(desk):
    finish(desk.create(trials=2))
    catalog = Catalog(desk.url)
    with statements(catalog._storage) as sent:
        catalog.require(desk.name)
    assert sent
    assert not [each for each in sent if "trial" in each]
    with pytest.raises(InputError, match="a study named 'absent' must be in the storage"):
        catalog.require("absent")
    optuna.create_study(storage=catalog._storage, study_name=f"{desk.name}-theirs")
    with pytest.raises(InputError, match="must have been made by allocsearch"):
        catalog.require(f"{desk.name}-theirs")


@pytest.mark.parametrize("url", ["sqlite_url"], indirect=True)
def test_an_export_reads_a_study_once(desk, monkeypatch):
    finish(desk.create(trials=2))
    reads, chosen = [], SimpleNamespace(trial=0, why="the best", path=None, notes=(), text="")
    monkeypatch.setattr(Catalog, "record", lambda _, name: reads.append(name))
    monkeypatch.setattr(exporting, "export", lambda catalog, name, **_: catalog.record(name) or chosen)
    reading.export(desk.name, storage=desk.url)
    assert reads == [desk.name]


def test_names_and_companions_are_found_without_reading_what_studies_know(desk):
    """Of which their figures are most."""
    finish(desk.create(trials=2))
    catalog = Catalog(desk.url)
    catalog.open_companion(desk.name, "random", desk.spec, proposals_of(desk.spec), {})
    with statements(catalog._storage) as sent:
        assert desk.name in catalog.names()
        assert catalog.companion(desk.name, "replicas") is None
    assert len(sent) == 2
