"""What doctor says of a Ray cluster."""

import base64
import os
import socket
import subprocess
from contextlib import contextmanager
from pathlib import Path

import pytest

from allocsearch.backends import ray_health
from allocsearch.backends.ray_health import authentication, cluster, resources, to_a_stranger
from allocsearch.backends.ray_session import session

import ray  # isort: skip


def test_a_cluster_tells_what_it_has_and_where():
    with session(num_cpus=2, address=None):
        (found, login), hosts = cluster("auto")
    assert found.level == "ok"
    assert "1 node, 2 CPUs, 0 GPUs" in found.found
    assert (login.check, login.level) == ("Ray login", "warn")
    assert "answered a caller without a token" in login.found
    assert hosts == ["127.0.0.1"]  # our own sessions listen on loopback only


def test_nodes_are_added_up():
    nodes = [{"Resources": {"CPU": 4.0, "GPU": 0.5}}, {"Resources": {"CPU": 2.0}}, {"Resources": {"memory": 5.0}}]
    assert "3 nodes, 6 CPUs, 0.5 GPUs" in resources(nodes).found


@contextmanager
def head(folder, **environment):
    """The part of a Ray head that knows the cluster, and its address."""
    program = Path(ray.__file__).parent / "core/src/ray/gcs/gcs_server"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    options = {"gcs_server_port": port, "node_ip_address": "127.0.0.1", "log_dir": folder, "session_dir": folder, "session_name": "test",
               "config_list": base64.b64encode(b"{}").decode(), "node_id": "ab" * 28}  # fmt: skip
    command = [program, *(f"--{name}={value}" for name, value in options.items())]
    process = subprocess.Popen(command, env={**os.environ, **environment}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield f"127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(("mode", "answer", "level"), [("token", "refused", "ok"), ("disabled", "answered", "warn")])
def test_a_login_is_what_the_cluster_asks_of_a_stranger(tmp_path, monkeypatch, mode, answer, level):
    """Not what this process's environment says, which here says that there is one."""
    token = tmp_path / "token"
    token.write_text("0123456789abcdef" * 3)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
    with head(tmp_path, RAY_AUTH_MODE=mode) as address:
        assert to_a_stranger(address) == answer
    assert authentication(answer).level == level


def test_what_is_not_known_is_no_login(monkeypatch):
    monkeypatch.setattr(ray_health, "_STRANGER_SECONDS", 0.01)
    assert to_a_stranger("127.0.0.1:1") == "unknown"
    found = authentication("unknown")
    assert found.level == "warn"
    assert "RAY_AUTH_MODE=token" in found.remedy


def test_a_cluster_that_does_not_answer_is_one_failure():
    (found,), hosts = cluster("127.0.0.1:1")
    assert (found.level, hosts) == ("fail", [])
