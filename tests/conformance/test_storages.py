"""Databases that cannot be used: one line says which and why, and never shows a password."""

import gc
import sqlite3
import subprocess
import sys
import threading

import optuna
import pytest
from sqlalchemy import event, text
from sqlalchemy.engine import URL

from allocsearch.backends.catalog import Catalog
from allocsearch.backends.database_health import database
from allocsearch.backends.storage import engine_options, open_storage, storage_url
from allocsearch.backends.urls import holds_secret, parsed_url, shown_url
from allocsearch.core.errors import InputError
from tests.conformance.toy import Desk, finish, proposals_of, spec_of

SECRET = "hunter2-and-more"


def refusal(url):
    with pytest.raises(InputError) as caught:
        Catalog(url).names()
    message = str(caught.value)
    assert SECRET not in message
    assert "\n" not in message
    assert len(message) < 500
    return message


UNUSABLE = "must be readable and writable, but: "
BAD_URLS = {
    "no URL": (f"{SECRET}", "the storage must be a SQLAlchemy URL such as sqlite:///studies.db, but it cannot be parsed"),
    "no dialect": (f"://user:{SECRET}@host/db", "cannot be parsed"),
    "a port in words": (f"postgresql://user:{SECRET}@host:port/db", "cannot be parsed"),
    "a password that looks like a host": (f"postgresql://user:p@{SECRET}:{SECRET}@host:5432/db", "cannot be parsed"),
    "an unknown dialect": (f"nosql://user:{SECRET}@host/db", "the database driver of nosql://user:***@host/db must be installed"),
    "a driver that is not there": (f"mysql+mysqldb://me:{SECRET}@host/db", "the database driver of mysql+mysqldb://me:***@host/db must be"),
    "nobody listens": (f"postgresql://user:{SECRET}@127.0.0.1:1/db", f"the database postgresql://user:***@127.0.0.1:1/db {UNUSABLE}"),
    "no such host": (f"postgresql://me:{SECRET}@no-such-host.invalid/db", f"postgresql://me:***@no-such-host.invalid/db {UNUSABLE}"),
    "a password in the query": (
        f"postgresql://127.0.0.1:1/db?password={SECRET}",
        f"the database postgresql://127.0.0.1:1/db?password=*** {UNUSABLE}",
    ),
    "a key that no driver knows": (f"postgresql://127.0.0.1:1/db?passwd={SECRET}", f'{UNUSABLE}invalid connection option "passwd"'),
    "a query of an unknown dialect": (
        f"nosql://host/db?token={SECRET}",
        "the database driver of nosql://host/db?token=*** must be installed",
    ),
    "no such folder": ("sqlite:////nowhere/at/all.db", f"the database sqlite:////nowhere/at/all.db {UNUSABLE}unable to open"),
    "a folder": ("sqlite:////", "the database sqlite://"),
    "a file that cannot be written": ("sqlite:////proc/version", f"the database sqlite:////proc/version {UNUSABLE}"),
    "memory": ("sqlite://", "the storage must outlive the process, but sqlite:// is in memory"),
    "memory with a secret": (f"sqlite://?token={SECRET}", "sqlite://?token=*** is in memory"),
    "memory by name": ("sqlite:///:memory:", "is in memory"),
}


@pytest.mark.parametrize(("url", "says"), BAD_URLS.values(), ids=BAD_URLS)
def test_a_storage_that_cannot_be_opened_is_named_without_its_password(url, says):
    assert says in refusal(url)


def test_what_a_server_itself_refuses_is_said(postgres_url):
    message = refusal(postgres_url.replace("postgres@/postgres", f"postgres:{SECRET}@/absent"))
    assert 'database "absent" does not exist' in message


def parameters(url):
    """What libpq was told of a real connection."""
    storage = open_storage(url)
    with storage.engine.connect() as connection:
        return connection.connection.dbapi_connection.info.get_parameters()


@pytest.mark.parametrize("drivername", ["postgresql", "postgresql+psycopg"])
def test_a_server_that_vanishes_is_noticed_within_half_a_minute(postgres_url, monkeypatch, drivername):
    monkeypatch.delenv("PGCONNECT_TIMEOUT", raising=False)
    found = parameters(postgres_url.replace("postgresql+psycopg", drivername))
    assert found["connect_timeout"] == "10"
    assert int(found["keepalives_idle"]) + int(found["keepalives_interval"]) * int(found["keepalives_count"]) == 30
    assert found["tcp_user_timeout"] == "30000"


def test_what_a_user_says_of_that_goes_before(postgres_url, monkeypatch):
    found = parameters(f"{postgres_url}&tcp_user_timeout=5000&keepalives=0")
    assert (found["tcp_user_timeout"], found["keepalives"]) == ("5000", "0")
    monkeypatch.setenv("PGCONNECT_TIMEOUT", "77")
    assert parameters(postgres_url)["connect_timeout"] == "77"


def test_a_driver_that_is_not_libpqs_is_not_told_of_it():
    assert engine_options(parsed_url("postgresql+asyncpg://host/db")) == {"pool_pre_ping": True, "connect_args": {}}
    assert engine_options(parsed_url("mysql+pymysql://host/db"))["connect_args"] == {}


def test_the_password_is_not_written_out_to_learn_which_driver_it_is(monkeypatch):
    url = parsed_url(f"postgresql://me:{SECRET}@host/db")
    monkeypatch.setattr(URL, "render_as_string", lambda *_, **__: pytest.fail("wrote it out"))
    assert engine_options(url)["connect_args"]["keepalives"] == 1


def test_a_file_that_is_no_database(tmp_path):
    path = tmp_path / "studies.db"
    path.write_text("not a database\n" * 1000)
    assert refusal(f"sqlite:///{path}") == f"the database sqlite:///{path} must be readable and writable, but: file is not a database"


def test_a_database_that_is_cut_short(tmp_path):
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    desk = Desk(url, "cut")
    finish(desk.create(trials=6))
    with sqlite3.connect(tmp_path / "studies.db") as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    content = (tmp_path / "studies.db").read_bytes()
    for name in ("studies.db-wal", "studies.db-shm"):
        (tmp_path / name).unlink(missing_ok=True)
    (tmp_path / "studies.db").write_bytes(content[: len(content) // 3])
    with pytest.raises(InputError) as caught:
        Catalog(url).record("cut")
    assert str(caught.value).startswith(f"the database {url} must be readable and writable, but: ")
    assert "\n" not in str(caught.value)


def test_a_database_whose_tables_are_anothers(tmp_path):
    path = tmp_path / "other.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE studies (name TEXT)")
    connection.commit()
    connection.close()
    assert "must be readable and writable, but: " in refusal(f"sqlite:///{path}")


def test_a_database_of_another_optuna(tmp_path):
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    storage = open_storage(url)
    with storage.engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = 'v9.9.9'"))
    assert f"the tables in {url} must fit the installed Optuna, but they are of version v9.9.9" in refusal(url)


def test_one_writer_does_not_block_readers(tmp_path):
    """Write-ahead logging: a dashboard or `status` reads while the driver is in the middle of a write."""
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    desk = Desk(url, "busy")
    finish(desk.create(trials=2))
    writer = sqlite3.connect(tmp_path / "studies.db")
    writer.execute("BEGIN IMMEDIATE")
    writer.execute("UPDATE studies SET study_name = study_name")
    try:
        assert len(desk.record().trials) == 2
    finally:
        writer.rollback()
        writer.close()


def test_many_writers_wait_for_each_other(tmp_path):
    """Nothing is lost to `database is locked`: the busy timeout is long."""
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    desks = [Desk(url, f"writer-{i}") for i in range(4)]
    studies = [desk.create(trials=5) for desk in desks]
    threads = [threading.Thread(target=finish, args=(study,)) for study in studies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [len(desk.record().trials) for desk in desks] == [5] * 4
    assert all(desk.record().num_missing == 0 for desk in desks)


def test_connections_are_closed_with_their_storage(tmp_path):
    storage = open_storage(f"sqlite:///{tmp_path / 'studies.db'}")
    closed = []
    event.listen(storage.engine, "close", lambda *_: closed.append(True))
    assert storage.engine.pool.checkedin() == 1
    del storage
    gc.collect()
    assert closed == [True]
    assert not (tmp_path / "studies.db-wal").exists(), "the last connection takes the log away with it"


def test_the_default_is_a_file_in_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("ALLOCSEARCH_HOME", str(tmp_path / "home"))
    assert storage_url(None) == f"sqlite:///{tmp_path}/home/studies.db"
    assert Catalog(None).names() == []
    assert (tmp_path / "home" / "studies.db").is_file()
    assert storage_url("postgresql://x/y") == "postgresql://x/y"


def test_a_url_is_shown_without_its_password():
    assert shown_url(f"postgresql+psycopg://me:{SECRET}@host:5432/db") == "postgresql+psycopg://me:***@host:5432/db"
    assert shown_url(SECRET) == "the storage URL"


@pytest.mark.parametrize(
    "key", ["password", "PASSWORD", "sslpassword", "passwd", "pwd", "my_secret", "motherduck_token", "odbc_connect", "ssl%70assword"]
)
def test_a_url_is_shown_without_the_secrets_in_its_query(key):
    url = f"postgresql://host/db?user=me&{key}={SECRET}&sslmode=require"
    assert SECRET not in shown_url(url)
    assert "user=me" in shown_url(url)
    assert "=***" in shown_url(url)
    assert holds_secret(parsed_url(url))
    assert SECRET not in shown_url(f"postgresql://host/db?{key}=a&{key}={SECRET}"), "a key may stand there twice"


@pytest.mark.parametrize("url", ["postgresql://me@host/db?application_name=a&sslmode=verify-full", "sqlite:///studies.db?timeout=5"])
def test_a_url_without_secrets_is_shown_as_it_is(url):
    assert shown_url(url) == url
    assert not holds_secret(parsed_url(url))


@pytest.mark.parametrize("url", [f"postgresql://me:{SECRET}@127.0.0.1:1/db", f"postgresql://127.0.0.1:1/db?password={SECRET}"])
def test_doctor_warns_of_a_password_in_the_command_line(url):
    found = list(database(url))
    assert [each.level for each in found] == ["warn", "fail"]
    assert "`ps` shows it" in found[0].found
    assert SECRET not in str(found)


@pytest.fixture
def catalog(tmp_path):
    return Catalog(f"sqlite:///{tmp_path / 'studies.db'}")


def test_a_study_that_is_not_there_is_named_with_the_nearest(catalog):
    with pytest.raises(InputError, match="a study named 'none' must be in the storage, but it is not: it has none yet"):
        catalog.record("none")
    catalog.create("night-run", spec_of(), {})
    with pytest.raises(InputError, match="did you mean 'night-run'"):
        catalog.record("nite-run")
    with pytest.raises(InputError, match="it has night-run"):
        catalog.record("zzz")
    with pytest.raises(InputError, match="a study named 'zzz' must be"):
        catalog.open("zzz", spec_of(), proposals_of(spec_of()))


def test_a_name_that_is_taken_is_refused_and_the_study_kept(catalog):
    catalog.create("mine", spec_of(), {})
    with pytest.raises(InputError, match="a new study needs a new name, but 'mine' exists"):
        catalog.create("mine", spec_of(trials=3), {})
    assert catalog.record("mine").num_trials == 8


def test_a_study_that_is_not_ours_is_left_alone(catalog):
    optuna.create_study(storage=catalog.url, study_name="theirs")
    assert catalog.names() == ["theirs"]
    with pytest.raises(InputError, match="study 'theirs' must have been made by allocsearch, but it has no spec"):
        catalog.record("theirs")


def test_a_trial_that_is_not_ours_is_found(catalog):
    catalog.create("ours", spec_of(), {})
    theirs = optuna.load_study(storage=catalog.url, study_name="ours")
    theirs.add_trial(optuna.create_trial(values=[0.5, 100.0]))
    for read in (catalog.glance, catalog.front, catalog.record, lambda name: catalog.open(name, spec_of(), proposals_of(spec_of()))):
        with pytest.raises(
            InputError, match="every trial of study 'ours' must have been made by allocsearch, but these were not: 0; search"
        ):
            read("ours")


def test_a_trial_beside_a_study_that_is_not_ours_is_found(catalog):
    catalog.create("ours", spec_of(), {})
    catalog.open_companion("ours", "confirmation", spec_of(), proposals_of(spec_of()), {})
    optuna.load_study(storage=catalog.url, study_name="ours/confirmation").ask()
    for read in (catalog.glance, catalog.record):
        with pytest.raises(InputError, match="every trial of study 'ours/confirmation' must have been made by allocsearch"):
            read("ours")


def test_the_target_can_be_raised(catalog):
    catalog.create("more", spec_of(trials=3), {})
    finish(catalog.open("more", spec_of(trials=3), proposals_of(spec_of(trials=3))))
    assert catalog.record("more").num_missing == 0
    catalog.retarget("more", 5)
    assert (catalog.record("more").num_trials, catalog.record("more").num_missing) == (5, 2)
    again = catalog.open("more", spec_of(trials=3), proposals_of(spec_of(trials=3)))
    assert finish(again) == [3, 4]


def test_a_stored_spec_that_no_longer_reads_says_whose(catalog):
    catalog.create("old", spec_of(), {})
    study = optuna.load_study(storage=catalog.url, study_name="old")
    study.set_user_attr("spec", {**study.user_attrs["spec"], "colour": "blue"})
    with pytest.raises(InputError, match="the stored spec of study 'old': `colour` is not a key here"):
        catalog.record("old")


def test_processes_that_open_a_new_database_at_once_all_get_it(tmp_path):
    script = "import sys; from allocsearch.backends.catalog import Catalog; Catalog(sys.argv[1]).names()"
    url = f"sqlite:///{tmp_path}/studies.db"
    opening = [subprocess.Popen([sys.executable, "-W", "ignore", "-c", script, url], stderr=subprocess.PIPE, text=True) for _ in range(4)]
    errors = [process.communicate(timeout=120)[1] for process in opening]
    assert [process.returncode for process in opening] == [0] * 4, errors
