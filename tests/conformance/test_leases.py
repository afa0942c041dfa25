"""One driver per study, on every database: who holds it, who may take it over, and that a late write changes nothing."""

import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from dataclasses import asdict, replace

import pytest
import sqlalchemy
from optuna.distributions import IntDistribution
from optuna.study import StudyDirection
from optuna.trial import TrialState, create_trial

from allocsearch.backends import lease
from allocsearch.backends.catalog import Catalog
from allocsearch.backends.lease import Holder, lease_seconds
from allocsearch.backends.own_tables import LEASES
from allocsearch.backends.urls import full_url, parsed_url
from allocsearch.core.errors import InputError, LostLeaseError
from tests.conformance.toy import finish, measured


@pytest.fixture(params=["sqlite", "postgres"])
def url(request):
    return request.getfixturevalue(f"{request.param}_url")


@pytest.fixture
def engine(url):
    engine = sqlalchemy.create_engine(full_url(parsed_url(url)))
    yield engine
    engine.dispose()


def row(engine, study):
    with engine.connect() as connection:
        return connection.execute(sqlalchemy.select(LEASES).where(LEASES.c.study == study)).one()


def change(engine, study, **values):
    with engine.begin() as connection:
        connection.execute(sqlalchemy.update(LEASES).where(LEASES.c.study == study).values(values))


def everything(engine):
    """All rows but the leases'."""
    with engine.connect() as connection:
        names = sorted(set(sqlalchemy.inspect(connection).get_table_names()) - {LEASES.name})
        return {name: sorted(map(str, connection.execute(sqlalchemy.text(f'SELECT * FROM "{name}"')))) for name in names}


def test_a_second_driver_is_told_who_holds_the_study(desk, engine):
    desk.create()
    here = Holder.here()
    with Catalog(desk.url).driving(desk.name):
        with (
            pytest.raises(InputError, match=f"{here} is running '{desk.name}' and has it until") as caught,
            Catalog(desk.url).driving(desk.name),
        ):
            pass
        with Catalog(desk.url).driving(f"{desk.name}-other"):  # another study is another lease
            pass
        assert row(engine, desk.name).epoch == 1
    assert "wait for it, or stop it" in str(caught.value)
    with Catalog(desk.url).driving(desk.name):  # let go of at the end, so that the next one need not wait
        assert row(engine, desk.name).epoch == 3


def test_a_reader_is_told_who_drives_a_study(desk, engine, ended):
    desk.create()
    assert desk.record().driver is None
    with Catalog(desk.url).driving(desk.name):
        assert desk.record().driver == str(Holder.here())
        change(engine, desk.name, **asdict(ended))
        assert desk.record().driver is None, "a process of this machine that is dead drives nothing"
        change(engine, desk.name, **asdict(Holder.here()), expires_at=1.0)
        assert desk.record().driver is None
        change(engine, desk.name, place="another machine", expires_at=1e10)
        assert desk.record().driver is not None
    assert desk.record().driver is None


def test_a_lease_is_let_go_of_however_its_driver_ends(desk, engine):
    desk.create()
    with pytest.raises(KeyboardInterrupt), Catalog(desk.url).driving(desk.name):
        raise KeyboardInterrupt
    assert row(engine, desk.name).expires_at == 0


def test_a_lease_is_renewed_while_its_driver_lives(desk, engine, monkeypatch):
    monkeypatch.setenv("ALLOCSEARCH_LEASE_SECONDS", "0.5")
    desk.create()
    with Catalog(desk.url).driving(desk.name):
        first = row(engine, desk.name).expires_at
        while row(engine, desk.name).expires_at < first + 1:  # it would have expired by then
            time.sleep(0.05)
        assert row(engine, desk.name).epoch == 1


WRITES = {
    "a study": lambda storage, study, trial: storage.create_new_study([StudyDirection.MAXIMIZE], "a-new-one"),
    "no study": lambda storage, study, trial: storage.delete_study(study),
    "a study's attribute": lambda storage, study, trial: storage.set_study_user_attr(study, "spec", "another"),
    "a study's artifact": lambda storage, study, trial: storage.set_study_system_attr(study, "artifacts:x", "null"),
    "a trial": lambda storage, study, trial: storage.create_new_trial(study),
    "a whole trial": lambda storage, study, trial: storage.create_new_trial(study, create_trial(state=TrialState.WAITING)),
    "a parameter": lambda storage, study, trial: storage.set_trial_param(trial, "mine", 1.0, IntDistribution(0, 3)),
    "an end": lambda storage, study, trial: storage.set_trial_state_values(trial, TrialState.COMPLETE, [0.5, 10.0]),
    "a failure": lambda storage, study, trial: storage.set_trial_state_values(trial, TrialState.FAIL),
    "a report": lambda storage, study, trial: storage.set_trial_intermediate_value(trial, 1, 0.5),
    "an attribute": lambda storage, study, trial: storage.set_trial_user_attr(trial, "attempt", 7),
    "a note of the sampler's": lambda storage, study, trial: storage.set_trial_system_attr(trial, "generation", 7),
}  # fmt: skip


def test_whatever_a_driver_writes_after_its_study_has_passed_to_another_is_refused(desk, engine):
    late, study = Catalog(desk.url), desk.create(trials=3)
    with ExitStack() as drivers:
        drivers.enter_context(late.driving(desk.name))
        study = late.open(desk.name, desk.spec, study._proposals)
        running = study.ask()
        change(engine, desk.name, expires_at=1.0)
        drivers.enter_context(Catalog(desk.url).driving(desk.name))
        before = everything(engine)
        for what, write in WRITES.items():
            with pytest.raises(LostLeaseError, match=f"'{desk.name}' is held by process"):
                write(late._storage, study._study._study_id, study._ids[running.number])
            assert everything(engine) == before, what
        for late_word in (lambda: study.tell(running.number, measured(running)), study.ask, lambda: late.retarget(desk.name, 9)):
            with pytest.raises(LostLeaseError):
                late_word()
        assert everything(engine) == before
        assert late.record(desk.name).num_missing == 3  # who has lost it may still look


def test_a_late_word_about_a_trial_that_the_other_driver_has_ended(desk, engine):
    late, study = Catalog(desk.url), desk.create(trials=1)

    def drive():
        with late.driving(desk.name):
            late_study = late.open(desk.name, desk.spec, study._proposals)
            running = late_study.ask()
            change(engine, desk.name, expires_at=1.0)
            with Catalog(desk.url).driving(desk.name):
                assert finish(desk.open()) == [0]
            late_study.tell(0, measured(running, seconds=9.0))

    with pytest.raises(LostLeaseError):
        drive()
    assert [trial.outcome.seconds for trial in desk.record().trials] == [0.25]


def test_every_way_of_writing_that_optuna_has_is_among_them():
    from optuna.storages import BaseStorage

    ways = {name for name in vars(BaseStorage) if name.startswith(("create_", "delete_", "set_"))}
    assert ways == {
        name for write in WRITES.values() for name in write.__code__.co_names if name.startswith(("create_new", "delete_", "set_"))
    }


def test_an_expired_lease_that_nobody_took_goes_on(desk, engine):
    """A driver that was cut off for long, and came back before anybody missed it."""
    study = desk.create(trials=2)
    catalog = Catalog(desk.url)
    with catalog.driving(desk.name):
        study = catalog.open(desk.name, desk.spec, study._proposals)
        change(engine, desk.name, expires_at=1.0)
        assert finish(study) == [0, 1]


def test_of_many_that_want_an_expired_lease_one_gets_it(desk, engine):
    desk.create()
    start, leave, taken, refused = threading.Barrier(6), threading.Event(), [], []

    def drive():
        catalog = Catalog(desk.url)
        start.wait()
        try:
            with catalog.driving(desk.name):
                taken.append(catalog._fence.lease.epoch)
                leave.wait()
        except InputError:
            refused.append(1)
        if len(refused) == 5:
            leave.set()

    with Catalog(desk.url).driving(desk.name):
        change(engine, desk.name, expires_at=1.0)
        threads = [threading.Thread(target=drive) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert (taken, len(refused)) == ([2], 5)
    assert row(engine, desk.name).epoch == 3


def test_a_study_does_not_change_hands_within_a_write(desk, engine):
    desk.create()
    catalog, taken = Catalog(desk.url), threading.Event()

    def take_over():
        with Catalog(desk.url).driving(desk.name):
            taken.set()

    with catalog.driving(desk.name):
        change(engine, desk.name, expires_at=1.0)
        with catalog._storage.scoped_session() as session:
            session.execute(sqlalchemy.text("UPDATE trials SET number = 0 WHERE number = -1"))
            catalog._fence.lease.check(session.connection())
            other = threading.Thread(target=take_over)
            other.start()
            assert not taken.wait(0.3), "the other driver must wait until this transaction has ended"
            session.commit()
        other.join()
    assert taken.is_set()


@pytest.fixture(scope="module")
def ended():
    """A process of this machine that has ended, as it was."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    holder = replace(Holder.here(), pid=process.pid)
    process.communicate()
    return holder


def test_a_driver_of_this_machine_that_is_dead_keeps_nobody_waiting(desk, engine, ended):
    desk.create()
    with Catalog(desk.url).driving(desk.name):
        change(engine, desk.name, **asdict(ended))
        with Catalog(desk.url).driving(desk.name):
            assert row(engine, desk.name).epoch == 2


def test_who_is_gone_and_who_may_not_be(ended):
    here = Holder.here()
    assert not here.is_gone
    assert ended.is_gone
    assert replace(here, born=here.born - 60).is_gone, "the id was given to another process"
    assert not replace(ended, place="another machine, or another container").is_gone
    assert replace(ended, place=lease._place()).is_gone


def test_a_process_that_another_user_hides_may_not_be_gone(monkeypatch):
    def hidden(pid):
        raise lease.psutil.NoSuchProcess(pid)

    here = Holder.here()
    monkeypatch.setattr(lease.psutil, "Process", hidden)
    assert not here.is_gone


def test_a_zombie_is_gone():
    with subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE) as process:
        process.stdout.read()  # its end
        holder = replace(Holder.here(), pid=process.pid, born=lease.psutil.Process(process.pid).create_time())
        while lease.psutil.Process(process.pid).status() != lease.psutil.STATUS_ZOMBIE:
            time.sleep(0.01)
        assert holder.is_gone


@pytest.mark.parametrize("text", ["0", "-3", "nan", "inf", "soon"])
def test_a_length_that_is_none_is_refused(monkeypatch, text):
    monkeypatch.setenv("ALLOCSEARCH_LEASE_SECONDS", text)
    with pytest.raises(InputError, match="ALLOCSEARCH_LEASE_SECONDS"):
        lease_seconds()
