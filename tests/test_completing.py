"""What TAB shows of a storage. Whatever stands at its URL, nothing is made of it."""

import sqlite3
from types import SimpleNamespace

import optuna
import psycopg
import pytest

from allocsearch.backends.storage import open_storage
from allocsearch.cli.completing import stored_names


def completed(url, incomplete=""):
    return stored_names(SimpleNamespace(params={"storage": url}), incomplete)


@pytest.mark.parametrize("url", ["sqlite:///{}", "sqlite+pysqlite:///{}", "sqlite:///{}?timeout=30", "sqlite:///file:{}?uri=true"])
def test_names_of_studies_are_shown_however_the_file_is_named_and_none_is_made(tmp_path, url):
    file = tmp_path / "studies.db"
    assert completed(url.format(file)) == []
    assert not file.exists()
    for name in ("two", "one", "one/replicas", "other"):
        optuna.create_study(storage=open_storage(f"sqlite:///{file}"), study_name=name)
    assert completed(url.format(file)) == ["one", "other", "two"]
    assert completed(url.format(file), "o") == ["one", "other"]


def test_a_file_of_somebody_elses_stays_as_it_is(tmp_path):
    file = tmp_path / "theirs.db"
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE poems (title TEXT)")
    connection.close()
    before = file.read_bytes()
    assert completed(f"sqlite:///{file}") == []
    assert (file.read_bytes(), [each.name for each in tmp_path.iterdir()]) == (before, ["theirs.db"])


def test_an_empty_database_of_a_server_stays_empty(postgres_url):
    with psycopg.connect(postgres_url.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute("CREATE DATABASE completed")
    url = postgres_url.replace("/postgres?", "/completed?")
    assert completed(url) == []
    with psycopg.connect(url.replace("+psycopg", "")) as connection:
        assert connection.execute("SELECT count(*) FROM information_schema.tables WHERE table_schema = 'public'").fetchone() == (0,)


def test_what_is_no_storage_has_no_names():
    assert completed("no url") == []
