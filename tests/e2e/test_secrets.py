"""The password in a storage's URL is nowhere that anybody but the driver can look."""

import contextlib
import re
import sqlite3
from pathlib import Path

import psutil
import pytest
import sqlalchemy

from allocsearch.backends.storage import storage_url
from allocsearch.core.errors import InputError

SECRET = "hunter2-and-more"


def everything_in(url):
    """Every row of every table, as text."""
    engine = sqlalchemy.create_engine(url)
    with engine.connect() as connection:
        names = sqlalchemy.inspect(connection).get_table_names()
        rows = [str(row) for name in names for row in connection.execute(sqlalchemy.text(f'SELECT * FROM "{name}"'))]
    engine.dispose()
    return "\n".join(rows)


def holders(folder):
    return [path for path in Path(folder).rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]


def watched(running):
    """What `ps` shows of a process and its descendants until it ends, and the environments of the descendants.

    Those of what lives for longer than a look or two: a child that has not begun its own program yet shows its parent's environment.
    """
    commands, environments = set(), set()
    root, earlier = psutil.Process(running.pid), set()
    while running.poll() is None:
        there = {root, *root.children(recursive=True)}
        for process in there:
            with contextlib.suppress(psutil.Error):  # it has just ended
                commands.add(" ".join(process.cmdline()))
                if process in earlier - {root}:
                    environments.add(str(process.environ()))
        earlier = there
        with contextlib.suppress(psutil.TimeoutExpired):
            root.wait(0.5)
    return commands, environments


def test_a_run_on_ray_keeps_the_password_to_the_driver(cli, tiny_study, postgres_url):
    """Not in `ps`, in the environment of a worker, in a log of Ray's, in the database, on the terminal, or in a file of ours."""
    with_password = postgres_url.replace("postgres@", f"postgres:{SECRET}@")
    cli.env["ALLOCSEARCH_STORAGE"] = with_password
    running = cli.start("run", tiny_study(trials=2), "--workers", "1", "--name", "secrets")
    commands, environments = watched(running)
    out, err = running.communicate(timeout=60)
    assert running.returncode == 0, err
    assert any("raylet" in command for command in commands), "the workers' own processes must have been seen"
    assert any("RAY_" in environment for environment in environments)
    (session,) = {found for command in commands for found in re.findall(r"/tmp/ray/session_[\w.-]+", command)}
    assert SECRET not in "\n".join([*commands, *environments, out, err])
    assert holders(session) == []
    assert SECRET not in everything_in(postgres_url)
    for command in ("status secrets", "front secrets --json", "export secrets -o best.yaml", "report secrets", "doctor --json", "db check"):
        result = cli.process(*command.split())
        assert SECRET not in result.stdout + result.stderr
    assert (cli.home / "best.yaml").is_file()
    assert holders(cli.home) == []


def test_a_url_from_a_file_is_used_and_the_nearer_wins(tmp_path, monkeypatch):
    file = tmp_path / "url"
    file.write_text("sqlite:///from-file.db\n")
    monkeypatch.delenv("ALLOCSEARCH_STORAGE", raising=False)
    monkeypatch.setenv("ALLOCSEARCH_STORAGE_FILE", str(file))
    assert storage_url(None) == "sqlite:///from-file.db"
    monkeypatch.setenv("ALLOCSEARCH_STORAGE", "sqlite:///from-environment.db")
    assert storage_url(None) == "sqlite:///from-environment.db"
    assert storage_url("sqlite:///given.db") == "sqlite:///given.db"


@pytest.mark.parametrize(
    ("content", "says"), [(None, "No such file"), (b"", "is empty"), (b" \n", "is empty"), (b"\xff\xfe", "it is no text")]
)
def test_a_file_without_a_url_is_named(tmp_path, monkeypatch, content, says):
    file = tmp_path / "url"
    if content is not None:
        file.write_bytes(content)
    monkeypatch.delenv("ALLOCSEARCH_STORAGE", raising=False)
    monkeypatch.setenv("ALLOCSEARCH_STORAGE_FILE", str(file))
    with pytest.raises(InputError, match=says) as caught:
        storage_url(None)
    assert str(file) in str(caught.value)


def test_a_file_that_holds_something_else_is_not_shown(cli, tmp_path):
    file = tmp_path / "url"
    file.write_text(SECRET)
    cli.env["ALLOCSEARCH_STORAGE_FILE"] = str(file)
    result = cli.process("status", code=2)
    assert SECRET not in result.stdout + result.stderr
    assert "cannot be parsed" in result.stderr


def test_commands_take_the_database_from_the_file(cli, tmp_path):
    file = tmp_path / "url"
    file.write_text(f"sqlite:///{tmp_path}/elsewhere.db")
    cli.env["ALLOCSEARCH_STORAGE_FILE"] = str(file)
    cli.process("db", "upgrade")
    with contextlib.closing(sqlite3.connect(tmp_path / "elsewhere.db")) as connection:
        assert connection.execute("SELECT count(*) FROM studies").fetchone() == (0,)
    assert not (cli.home / "studies.db").exists()
