"""`doctor` and `db`, as a user meets them."""

import json
import socket
import sqlite3
import time
import urllib.request

import pytest


def test_doctor_gives_a_new_machine_its_lines_and_touches_no_database(cli):
    found = cli.json("doctor")
    assert found["ok"]
    checks = {row["check"]: row for row in found["checks"]}
    assert checks.keys() >= {"python", "packages", "GPU", "memory", "home", "disk", "model", "database", "schema", "binds"}
    assert checks["model"]["remedy"] == "allocsearch models pull smollm2-135m"
    assert list(cli.home.iterdir()) == []


def test_doctor_prints_a_line_for_each_and_fails_with_1(cli):
    result = cli("doctor", "--storage", "postgresql://me:hunter2@127.0.0.1:1/none", code=1)
    lines = result.stdout.splitlines()
    assert {line.split()[0] for line in lines} <= {"ok", "warn", "fail"}
    (failure,) = [line for line in lines if line.startswith("fail")]
    assert "postgresql://me:***@127.0.0.1:1/none" in failure
    assert " → " in failure
    assert "hunter2" not in result.stdout + result.stderr


def test_doctor_refuses_ray_client_and_names_a_cluster_that_does_not_answer(cli):
    for address, says in (("ray://host:10001", "credentials"), ("127.0.0.1:1", "must answer at '127.0.0.1:1'")):
        found = json.loads(cli("doctor", "--address", address, "--json", code=1).stdout)
        (failure,) = [row for row in found["checks"] if row["level"] == "fail"]
        assert failure["check"] == "cluster"
        assert says in failure["found"]


def test_the_tables_are_made_once_and_then_fit(cli):
    assert "Optuna has no tables yet" in cli("db", "check").stdout
    assert list(cli.home.iterdir()) == []
    assert "made" in cli("db", "upgrade").stdout
    assert cli.json("db", "upgrade")["checks"][0]["found"] == "nothing to do"
    assert cli.json("db", "check")["ok"]


def test_tables_that_do_not_fit_are_exit_code_1_and_left_alone_with_2(cli):
    cli("db", "upgrade")
    with sqlite3.connect(cli.home / "studies.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'v9.9.9'")
    connection.close()
    assert "fail" in cli("db", "check", code=1).stdout
    assert "v9.9.9" in cli("db", "upgrade", code=2).stderr


def test_an_upgrade_says_what_it_did_and_nothing_else(cli):
    """Optuna's migrations would set up logging to the terminal."""
    cli("db", "upgrade")
    with sqlite3.connect(cli.home / "studies.db") as connection:
        connection.executescript("DROP INDEX ix_trials_study_id; UPDATE alembic_version SET version_num = 'v3.0.0.d'")
    connection.close()
    assert "allocsearch db upgrade" in cli("db", "check", code=1).stdout
    result = cli.process("db", "upgrade")
    assert [line.split()[:2] for line in result.stdout.splitlines()] == [["ok", "upgrade"], ["ok", "schema"], ["ok", "schema"]]
    assert "Optuna's tables upgraded from v3.0.0.d" in result.stdout
    assert result.stderr == ""


def objects(stderr):
    """Every line of it, as JSON; a line for people fails."""
    return [json.loads(line) for line in stderr.splitlines()]


def test_a_run_logs_for_machines(cli, tiny_study, monkeypatch):
    monkeypatch.setenv("ALLOCSEARCH_LOG", "json")
    result = cli("run", tiny_study(trials=3, confirmation={"candidates": 1, "seeds": 1}), "--inline", "--json")
    found = objects(result.stderr)
    assert json.loads(result.stdout)["study"] == "tiny"
    assert {line["study"] for line in found} == {"tiny"}
    search = [line for line in found if line["event"] == "trial" and line["stage"] == "search"]
    assert [(line["trial"], line["state"], line["done"], line["total"]) for line in search] == [(i, "finished", i + 1, 3) for i in range(3)]
    assert all(line["worker"] and 0 <= line["accuracy"] <= 1 for line in search)
    assert any(line["stage"] == "confirmation" for line in found if line["event"] == "trial")


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [(["front", "none"], 2, "'none'"), (["export", "x", "--pick", "luckiest"], 2, "--pick"), (["run", "--budget", "1-params"], 3, "raise")],
)
def test_errors_are_logged_for_machines_too(cli, monkeypatch, arguments, code, says):
    monkeypatch.setenv("ALLOCSEARCH_LOG", "json")
    (line,) = objects(cli(*arguments, code=code).stderr)
    assert (line["event"], line["level"], line["exit_code"]) == ("error", "error", code)
    assert says in line["message"]


def test_an_unknown_form_of_log_is_bad_input(cli, monkeypatch):
    monkeypatch.setenv("ALLOCSEARCH_LOG", "xml")
    assert "`text` or `json`" in cli("spaces", code=2).stderr


def test_a_run_serves_metrics_while_it_lasts(cli, tiny_study):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    running = cli.start("run", tiny_study(trials=3), "--inline", "--metrics-port", port)
    opener, page = urllib.request.build_opener(urllib.request.ProxyHandler({})), ""
    while running.poll() is None and 'allocsearch_target_trials{study="tiny"} 3.0' not in page:
        try:
            with opener.open(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
                page = answer.read().decode()
        except OSError:  # it does not listen yet
            time.sleep(0.05)
    _, err = running.communicate(timeout=300)
    assert running.returncode == 0, err
    assert 'allocsearch_target_trials{study="tiny"} 3.0' in page
