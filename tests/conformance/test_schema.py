"""The tables of a storage, on every database: found as they are, made, upgraded, and never touched by a look."""

import itertools
import logging
import subprocess
import sys

import pytest
import sqlalchemy
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text

from allocsearch.backends import own_tables, schema
from allocsearch.backends.catalog import Catalog
from allocsearch.backends.database_health import database, stays_here
from allocsearch.backends.urls import full_url, parsed_url
from allocsearch.core.errors import InputError
from tests.conformance.toy import Desk, finish

_databases = itertools.count()
OLDER = "v3.0.0.d"


@pytest.fixture(params=["sqlite", "postgres"])
def empty_url(request, tmp_path):
    """A database with nothing in it."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'studies.db'}"
    url = request.getfixturevalue("postgres_url")
    name = f"schema_{next(_databases)}"
    execute(url, f"CREATE DATABASE {name}")
    return url.replace("/postgres?", f"/{name}?")


def execute(url, *statements):
    engine = sqlalchemy.create_engine(full_url(parsed_url(url)), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        found = [connection.execute(text(statement)) for statement in statements]
        rows = found[-1].all() if found[-1].returns_rows else None
    engine.dispose()
    return rows


def tables(url):
    engine = sqlalchemy.create_engine(full_url(parsed_url(url)))
    found = set(sqlalchemy.inspect(engine).get_table_names())
    engine.dispose()
    return found


def made_older(url):
    """As an Optuna before the last change of its tables left them."""
    finish(Desk(url, "old").create(trials=2))
    execute(url, "DROP INDEX ix_trials_study_id", f"UPDATE alembic_version SET version_num = '{OLDER}'")


def test_an_empty_database_is_seen_and_left_empty(empty_url):
    assert [one.state for one in schema.schemas_of(empty_url)] == ["missing", "missing"]
    assert [found.level for found in database(empty_url)][:3] == ["ok", "ok", "ok"]
    assert tables(empty_url) == set()


def test_upgrade_makes_the_tables(empty_url):
    before, after = schema.upgrade(empty_url)
    assert [one.state for one in before] == ["missing", "missing"]
    assert [one.state for one in after] == ["current", "current"]
    assert schema.upgrade(empty_url) == (after, after)


def test_a_storage_of_before_there_were_tables_of_our_own_is_mended_by_its_first_driver(empty_url):
    finish(Desk(empty_url, "old").create(trials=2))
    assert [one.state for one in schema.schemas_of(empty_url)] == ["current", "missing"]
    with Catalog(empty_url).driving("old"):
        pass
    assert [one.state for one in schema.schemas_of(empty_url)] == ["current", "current"]
    assert len(Catalog(empty_url).record("old").trials) == 2


def test_tables_half_made_are_made_whole(empty_url):
    """What an upgrade leaves that is killed between two statements, where the database does not take both back."""
    schema.upgrade(empty_url)
    execute(empty_url, "DELETE FROM allocsearch_version")
    assert schema.schemas_of(empty_url).own.state == "missing"
    assert schema.upgrade(empty_url)[1].own.state == "current"


def test_tables_of_our_own_that_are_newer_are_refused_by_a_driver_and_an_upgrade(empty_url):
    schema.upgrade(empty_url)
    execute(empty_url, "UPDATE allocsearch_version SET version_num = '9999'")
    assert schema.schemas_of(empty_url).own.state == "ahead"
    with pytest.raises(InputError, match="install a newer allocsearch"), Catalog(empty_url).driving("x"):
        pass
    with pytest.raises(InputError, match="install a newer allocsearch"):
        schema.upgrade(empty_url)


UPGRADE = """
import sys, sqlalchemy
from allocsearch.backends import own_tables
engine = sqlalchemy.create_engine(sys.argv[1])
print(flush=True)
input()
own_tables.upgrade(engine)
"""


def test_processes_that_upgrade_at_once_make_the_tables_once(empty_url):
    Catalog(empty_url)
    command = [sys.executable, "-W", "error", "-c", UPGRADE, full_url(parsed_url(empty_url))]
    processes = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    for process in processes:
        process.stdout.readline()  # it is about to
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    for process in processes:
        process.communicate()
    assert [process.returncode for process in processes] == [0, 0]
    assert execute(empty_url, "SELECT version_num FROM allocsearch_version") == [("0001",)]


def test_the_tables_are_as_the_program_takes_them_to_be(empty_url):
    """What the migrations make, against what `own_tables` says."""
    schema.upgrade(empty_url)
    with schema.engine_at(empty_url) as engine, engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"include_name": ours})
        assert compare_metadata(context, own_tables.LEASES.metadata) == []


def ours(name, kind, _parents):
    return kind != "table" or name == "allocsearch_leases"


def test_an_older_schema_is_seen_refused_by_a_run_and_upgraded(empty_url):
    made_older(empty_url)
    assert schema.schemas_of(empty_url).optuna.state == "behind"
    with pytest.raises(InputError, match="must fit the installed Optuna"):
        Catalog(empty_url)
    assert "fail" in [found.level for found in database(empty_url)]
    handlers = list(logging.getLogger().handlers)
    before, after = schema.upgrade(empty_url)
    assert (before.optuna.state, before.optuna.version, after.optuna.state) == ("behind", OLDER, "current")
    assert logging.getLogger().handlers == handlers
    assert len(Catalog(empty_url).record("old").trials) == 2


def test_a_newer_schema_is_left_alone(empty_url):
    schema.upgrade(empty_url)
    execute(empty_url, "UPDATE alembic_version SET version_num = 'v9.9.9'")
    assert schema.schemas_of(empty_url).optuna.state == "ahead"
    with pytest.raises(InputError, match=r"but Optuna's tables are of version v9\.9\.9"):
        schema.upgrade(empty_url)


def test_tables_of_somebody_else_are_left_alone(empty_url):
    execute(empty_url, "CREATE TABLE studies (name VARCHAR(10))")
    assert schema.schemas_of(empty_url).optuna.state == "foreign"
    with pytest.raises(InputError, match="must be of a version"):
        schema.upgrade(empty_url)
    assert tables(empty_url) == {"studies"}


def test_a_look_writes_nothing(empty_url):
    finish(Desk(empty_url, "mine").create(trials=2))
    found = list(database(empty_url))
    assert {finding.level for finding in found} <= {"ok", "warn"}
    assert "it can be written" in [finding.found for finding in found]
    assert Catalog(empty_url).names() == ["mine"]


@pytest.mark.parametrize("url", ["sqlite:///{}", "sqlite:///file:{}?uri=true", "sqlite:///file://{}?uri=true"])
def test_a_look_makes_no_file_however_it_is_named(tmp_path, url):
    file = tmp_path / "new studies.db"
    named = url.format(str(file).replace(" ", "%20") if "uri" in url else file)
    assert [one.state for one in schema.schemas_of(named)] == ["missing", "missing"]
    assert not file.exists()
    schema.upgrade(named)
    assert file.exists()
    assert [one.state for one in schema.schemas_of(named)] == ["current", "current"]


def test_a_database_that_cannot_be_written_is_said(tmp_path):
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    schema.upgrade(url)
    found = list(database(f"sqlite:///file:{tmp_path}/studies.db?mode=ro&uri=true"))
    assert [finding.level for finding in found] == ["ok", "ok", "ok", "fail"]
    assert "readonly" in found[-1].found


def test_a_mighty_role_is_a_warning_and_a_least_one_is_not(postgres_url):
    schema.upgrade(postgres_url)
    assert next(found for found in database(postgres_url) if found.check == "role").level == "warn"
    execute(
        postgres_url,
        "CREATE ROLE doctor_reader LOGIN",
        "GRANT SELECT ON ALL TABLES IN SCHEMA public TO doctor_reader",
    )
    found = {(one.check, one.level) for one in database(postgres_url.replace("postgres@", "doctor_reader@"))}
    assert ("role", "ok") in found
    assert ("database", "fail") in found  # it may not write


def test_a_socket_and_loopback_do_not_leave_the_machine():
    assert all(map(stays_here, ["", "localhost", "127.0.0.1", "::1", "/run/postgresql"]))
    assert not any(map(stays_here, ["db", "10.0.0.1", "example.org"]))


def test_a_database_that_does_not_answer_is_one_failure_without_the_password():
    warning, found = database("postgresql://me:hunter2@127.0.0.1:1/none")
    assert (warning.level, found.level) == ("warn", "fail")
    assert "ALLOCSEARCH_STORAGE_FILE" in warning.remedy
    assert "hunter2" not in str((warning, found))


def test_a_url_of_the_environment_is_no_warning(monkeypatch):
    monkeypatch.setenv("ALLOCSEARCH_STORAGE", "postgresql://me:hunter2@127.0.0.1:1/none")
    assert [found.level for found in database(None)] == ["fail"]
