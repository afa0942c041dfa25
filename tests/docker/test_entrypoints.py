"""The commands of the images and of the compose file, run as plain processes: no container engine is needed to know that they work."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest
import yaml

from allocsearch.backends.ray_session import SECRETS

FOLDER = Path(__file__).parents[2] / "docker"
SERVICES = yaml.safe_load((FOLDER / "compose.yaml").read_text(encoding="utf-8"))["services"]
BINARIES = Path(sys.executable).parent
SECONDS = 180


@pytest.fixture
def environment(tmp_path):
    """As in a container: the database's URL in a file, a home, and the package's commands at hand."""
    (tmp_path / "url").write_text(f"sqlite:///{tmp_path}/studies.db\n")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "ALLOCSEARCH_"))}
    return {
        **kept,
        "PATH": f"{BINARIES}{os.pathsep}{kept['PATH']}",
        "HOME": str(tmp_path),
        "ALLOCSEARCH_HOME": str(tmp_path),
        "ALLOCSEARCH_STORAGE_FILE": str(tmp_path / "url"),
        "RAY_USAGE_STATS_ENABLED": "0",
    }


def run(command, environment, code=0):
    found = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert found.returncode == code, found.stdout + found.stderr
    return found.stdout


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def succeeds(command, environment, running):
    """Waits for a health check to pass."""
    deadline = time.monotonic() + SECONDS
    while subprocess.run(command, env=environment, capture_output=True, check=False).returncode != 0:
        assert running.poll() is None, "what is checked has ended"
        assert time.monotonic() < deadline
        time.sleep(0.5)


def test_the_image_shows_its_versions(environment):
    assert run(["allocsearch", "--version"], environment).startswith("allocsearch ")


def test_the_tables_are_made_and_then_healthy(environment):
    assert "made" in run(["allocsearch", *SERVICES["schema"]["command"]], environment)
    run(SERVICES["driver"]["healthcheck"]["test"][1:], environment)
    checks = json.loads(run(["allocsearch", "doctor", "--json"], environment))["checks"]
    assert {row["level"] for row in checks if row["check"] in {"database", "schema", "home"}} == {"ok"}


def test_the_dashboard_becomes_healthy(environment):
    port = str(free_port())
    command = [part.replace("8081", port) for part in SERVICES["dashboard"]["command"]]
    check = [part.replace("8081", port) for part in SERVICES["dashboard"]["healthcheck"]["test"][1:]]
    assert subprocess.run(check, env=environment, capture_output=True, check=False).returncode != 0
    with subprocess.Popen(["allocsearch", *command], env=environment, stderr=subprocess.DEVNULL) as running:
        try:
            succeeds(check, environment, running)
        finally:
            running.terminate()


def test_a_driver_keeps_the_database_from_the_node_that_it_starts(tmp_path, environment):
    told = " ".join(f"${{{name}-none}}" for name in SECRETS)
    none, all_of_them = (" ".join([word] * len(SECRETS)) for word in ("none", "here"))
    for name in ("ray", "allocsearch"):
        stub = tmp_path / name
        stub.write_text(f'#!/bin/sh\necho "{name} $* {told}" >>"$HOME/calls"\n')
        stub.chmod(0o755)
    given = {
        **environment,
        **dict.fromkeys(SECRETS, "here"),
        "PATH": f"{tmp_path}{os.pathsep}{environment['PATH']}",
        "RAY_HEAD": "head:6379",
    }
    run([FOLDER / "on-cluster", "resume", "quick start"], given)
    assert (tmp_path / "calls").read_text().splitlines() == [
        f"ray health-check --address head:6379 {none}",
        f"ray start --address=head:6379 --num-cpus=0 --num-gpus=0 --disable-usage-stats {none}",
        f"allocsearch resume quick start {all_of_them}",
    ]
    (tmp_path / "ray").write_text("#!/bin/sh\nexit 1\n")
    found = subprocess.run([FOLDER / "on-cluster", "status"], env={**given, "RAY_HEAD_TRIES": "1"}, capture_output=True, check=False)
    assert (found.returncode, b"must answer at head:6379" in found.stderr) == (1, True)
    del given["RAY_HEAD"]
    assert subprocess.run([FOLDER / "on-cluster", "status"], env=given, capture_output=True, check=False).returncode != 0


@pytest.fixture
def ray_folder():
    """A short path, since Ray puts sockets into it; whatever of Ray's still runs from there is ended."""
    folder = tempfile.mkdtemp(prefix="as-", dir="/tmp")
    yield Path(folder)
    ours = [process for process in psutil.process_iter(["cmdline"]) if folder in " ".join(process.info["cmdline"] or [])]
    for process in ours:
        process.terminate()
    for process in psutil.wait_procs(ours, timeout=20)[1]:
        process.kill()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def start(ray_folder):
    """Starts a service's command and ends it with the test."""
    with contextlib.ExitStack() as running, (ray_folder / "log").open("w") as log:

        def start(command, environment):
            process = running.enter_context(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
            running.callback(process.terminate)
            return process

        yield start


def test_a_cluster_with_a_token_lets_in_who_has_it_and_trains(ray_folder, environment, start, write_study):
    """The head, its health check, a worker and a driver, with the compose file's own commands."""
    (ray_folder / "token").write_text("0123456789abcdef" * 3)
    port = free_port()
    address = f"127.0.0.1:{port}"
    here = ["--node-ip-address=127.0.0.1", "--object-store-memory=100000000"]
    head = [part.replace("6379", str(port)) for part in SERVICES["ray-head"]["entrypoint"]] + [*here, f"--temp-dir={ray_folder}"]
    worker = [part.replace("ray-head:6379", address) for part in SERVICES["worker"]["entrypoint"]] + [*here, "--num-cpus=1"]
    check = [part.replace("6379", str(port)) for part in SERVICES["ray-head"]["healthcheck"]["test"][1:]]
    inside = {**environment, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(ray_folder / "token"), "RAY_HEAD": address}
    succeeds(check, inside, start(head, inside))
    assert subprocess.run(check, env=environment, capture_output=True, check=False).returncode != 0  # without the token
    checks = {
        row["check"]: row for row in json.loads(run([FOLDER / "on-cluster", "doctor", "--address", address, "--json"], inside))["checks"]
    }
    assert checks["cluster"]["level"] == "ok"
    assert "2 nodes, 0 CPUs" in checks["cluster"]["found"]  # the head's and the driver's, on neither of which trials run
    assert checks["Ray login"]["level"] == "ok"
    assert checks["binds"]["level"] == "ok"
    start(worker, {name: value for name, value in inside.items() if not name.startswith("ALLOCSEARCH_STORAGE")})
    study = write_study(ray_folder / "study.yaml", trials=2)
    inside["ALLOCSEARCH_FOLDERS"] = os.environ["ALLOCSEARCH_FOLDERS"]  # its model and data lie in other fixtures' folders
    run([FOLDER / "on-cluster", "run", study, "--address", address, "--workers", "1"], inside)
    assert json.loads(run(["allocsearch", "status", "tiny", "--json"], inside))["counts"]["finished"] == 2
