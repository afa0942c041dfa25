"""`--submit`: what is sent, what is refused, and the way there and back on a real head."""

import contextlib
import json
import os
import socket
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import requests
import yaml

URL = "http://127.0.0.1:1"


@pytest.fixture
def sent(cli, monkeypatch):
    """Runs a command whose job server takes everything and ends at once, and returns what it got."""
    from allocsearch.backends import ray_jobs

    jobs = []

    class Server:
        def __init__(self, url):
            self.url = url

        def submit(self, job):
            jobs.append(job)
            return "job-1"

        def follow(self, job_id, write):
            write("trial 0\n")
            return 3

    monkeypatch.setattr(ray_jobs, "JobServer", Server)

    def send(*arguments):
        result = cli(*arguments, "--submit", URL, code=3)
        assert "job job-1 is in the hands of" in result.stderr
        assert result.stderr.endswith("trial 0\n")
        assert result.stdout == ""
        return jobs[-1], result.stderr

    return send


def test_a_run_travels_as_its_whole_spec(sent, tiny_study):
    from allocsearch import spec as specs

    file = tiny_study()
    job, said = sent("run", file, "--trials", 9, "--gpus", 0.5, "--memory-gb", 4, "--artifacts", "/shared/a b")
    assert job.arguments[:2] == ["run", "study.yaml"]
    assert job.arguments[2:] == ["--gpus", "0.5", "--memory-gb", "4.0", "--artifacts", "/shared/a b", "--address", "auto"]
    there = specs.StudySpec.from_json(yaml.safe_load(job.files["study.yaml"]), where="there")
    assert there == specs.load(str(file), {"trials": 9})
    assert "these must be on the cluster's nodes" in said
    assert there.task.path in said
    assert job.variables == {"ALLOCSEARCH_FOLDERS": f"{there.task.path}:{there.model}"}


def test_a_dry_run_is_not_sent(cli, tiny_study):
    planned = cli("run", tiny_study(), "--dry-run", "--json", "--submit", URL)
    assert json.loads(planned.stdout)["study"] == "tiny"


def test_a_path_that_would_be_taken_for_two_is_not_sent(cli, tiny_study):
    file = tiny_study()
    place = file.parent / "16:45"
    place.mkdir()
    study = yaml.safe_load(file.read_text())
    (place / "rows.jsonl").write_bytes(Path(study["task"]["path"]).read_bytes())
    study["task"]["path"] = "rows.jsonl"
    (place / "study.yaml").write_text(yaml.safe_dump(study))
    [line] = cli("run", place / "study.yaml", "--submit", URL, code=2).stderr.splitlines()
    assert "a path that --submit sends must hold no ':'" in line


def test_a_bucket_is_the_same_from_everywhere(cli, sent):
    job, said = sent("resume", "tiny", "--artifacts", "s3://weights/of")
    assert job.arguments[2:] == ["--artifacts", "s3://weights/of", "--address", "auto"]
    assert "these must be on the cluster's nodes" not in said
    refused = cli("resume", "tiny", "--submit", URL, "--artifacts", "s3://me:hunter2@weights", code=2)
    assert "without credentials" in refused.stderr
    assert "hunter2" not in refused.stderr


def test_other_commands_travel_with_their_options(sent, tiny_study):
    assert sent("resume", "tiny", "--trials", 9, "--workers", 2)[0].arguments == [
        *("resume", "tiny", "--trials", "9", "--workers", "2", "--address", "auto")
    ]
    job, _ = sent("confirm", "tiny", "--seeds", 2)
    assert job.arguments == ["confirm", "tiny", "--candidates", "3", "--seeds", "2", "--address", "auto"]
    assert job.files == job.variables == {}
    job, _ = sent("calibrate", tiny_study(), "--no-scores", "--seeds", 4)
    assert job.arguments[:8] == ["calibrate", "study.yaml", "--allocations", "12", "--seeds", "4", "--no-scores", "--metric"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--storage", "postgresql://me:hunter2@host/db"], "must hold no password"),
        (["--storage", "postgresql://host/db?user=me&password=hunter2"], "must hold no password"),
        (["--storage", "postgresql://host/db?sslkey=mine&sslpasswd=hunter2"], "must hold no password"),
        (["--address", "auto"], "without --address"),
        (["--inline"], "without --inline"),
        (["--json"], "allocsearch front NAME --json"),
    ],
)
def test_what_must_not_travel_is_refused(cli, options, says):
    result = cli("resume", "tiny", "--submit", URL, *options, code=2)
    assert says in result.stderr
    assert "hunter2" not in result.stderr


def test_a_storage_without_a_password_travels_and_the_shells_own_does_not(sent, monkeypatch):
    from allocsearch.cli import launch

    job, said = sent("resume", "tiny", "--storage", "sqlite:////shared/studies.db")
    assert job.arguments[2:4] == ["--storage", "sqlite:////shared/studies.db"]
    assert "this shell's" not in said
    monkeypatch.setenv("ALLOCSEARCH_STORAGE", "postgresql://me:hunter2@host/db")
    notes = launch._notes(launch.Launch(submit=URL), None)
    assert notes == ["note: the job uses the storage of the cluster's head, not this shell's"]


def test_an_open_job_server_elsewhere_is_warned_of(monkeypatch):
    from allocsearch import exposure

    monkeypatch.setattr(exposure, "answers", lambda *_, **__: True)
    assert exposure.open_job_server("http://127.0.0.1:8265") is None
    found = exposure.open_job_server("http://head:8265")
    assert "head:8265 asks nobody" in found.found
    assert "RAY_AUTH_MODE=token" in found.remedy
    monkeypatch.setattr(exposure, "answers", lambda *_, **__: False)
    assert exposure.open_job_server("http://head:8265") is None


SECRET, TOKEN = "hunter2-and-more", "0123456789abcdef" * 4

HEAD = """
import sys, time
from allocsearch.backends import ray_session
ray_session._stay_on_loopback()
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": True, "dashboard_port": int(sys.argv[1])})
print("ready", flush=True)
sys.stdin.read()
cluster.remove_node(cluster.head_node)
"""


@pytest.fixture
def head(cli):
    """A head of a cluster with its job server, on loopback, with a token, and a database URL in a file that only it is told of."""
    if find_spec("aiohttp") is None:
        pytest.skip("needs Ray's job server, the extra `cluster`, with which every Ray session takes seconds longer to start")
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    (cli.home / "token").write_text(TOKEN)
    (cli.home / "url").write_text(f"sqlite:///{cli.home}/{SECRET}.db")
    cli.env |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(cli.home / "token")}
    cli.env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{cli.env['PATH']}"
    env = {**cli.env, "ALLOCSEARCH_STORAGE_FILE": str(cli.home / "url"), "ALLOCSEARCH_FOLDERS": ""}
    process = subprocess.Popen([sys.executable, "-c", HEAD, str(port)], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    while process.stdout.readline() != "ready\n":
        assert process.poll() is None, "the head must start"
    yield f"http://127.0.0.1:{port}"
    process.communicate(timeout=60)


def test_a_study_is_run_by_a_job_of_a_real_cluster(cli, head, tiny_study):
    """From a shell that knows nothing of the database, to the database that only the head knows."""
    file = tiny_study(trials=3)
    result = cli.process("run", file, "--workers", 1, "--submit", head)
    assert "winner: trial" in result.stderr
    assert result.stdout == ""
    (database,) = cli.home.glob(f"{SECRET}.db")
    status = cli.process("status", "tiny", "--json", "--storage", f"sqlite:///{database}")
    assert '"finished": 3' in status.stdout
    again = cli.process("resume", "nobody", "--submit", head, code=2)
    assert "nobody" in again.stderr
    shown = requests.get(f"{head}/api/jobs/", headers={"Authorization": f"Bearer {TOKEN}"}, timeout=30)
    assert "allocsearch-tiny-" in shown.text
    assert SECRET not in shown.text
    cli.env["RAY_AUTH_MODE"] = "disabled"
    refused = cli.process("resume", "tiny", "--submit", head, code=2)
    assert "must know this shell's token" in refused.stderr
