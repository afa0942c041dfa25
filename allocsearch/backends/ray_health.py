"""Whether a Ray cluster answers, what it has, and whether it asks who calls."""

import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any, Final, Literal

from allocsearch.backends.ray_session import refuse_ray_client, session  # before Ray: it sets what Ray reads when it is imported

import ray  # isort: skip

from allocsearch.core.errors import InputError
from allocsearch.core.findings import Finding

Answer = Literal["refused", "answered", "unknown"]

_STRANGER: Final = """
import sys
from ray._raylet import GcsClient
from ray.exceptions import AuthenticationError
try:
    GcsClient(address=sys.argv[1]).get_all_node_info(timeout=5)
except AuthenticationError:
    print("refused")
else:
    print("answered")
"""
_ANSWERS: Final[Mapping[str, Answer]] = {"refused": "refused", "answered": "answered"}
_STRANGER_SECONDS: Final = 30
_LOGIN: Final = "start every node and the driver with RAY_AUTH_MODE=token: docs/security.md"


def cluster(address: str) -> tuple[list[Finding], list[str]]:
    """What there is to say of the cluster at `address` (`auto` or host:port), and its nodes' addresses."""
    try:
        refuse_ray_client(address)
        with session(num_cpus=1, address=address):
            nodes = [node for node in ray.nodes() if node["Alive"]]
            findings = [resources(nodes), authentication(to_a_stranger(ray.get_runtime_context().gcs_address))]
    except InputError as error:
        return [Finding("cluster", "fail", str(error), "run `ray status` on a node of the cluster, and this command there")], []
    return findings, sorted({str(node["NodeManagerAddress"]) for node in nodes})


def resources(nodes: list[Mapping[str, Any]]) -> Finding:
    """What the nodes that are alive offer."""
    total = {name: sum(node["Resources"].get(name, 0.0) for node in nodes) for name in ("CPU", "GPU")}
    found = f"Ray {ray.__version__}: {len(nodes)} node{'s' if len(nodes) != 1 else ''}, {total['CPU']:g} CPUs, {total['GPU']:g} GPUs"
    return Finding("cluster", "ok", found)


def to_a_stranger(gcs_address: str) -> Answer:
    """How the head at `gcs_address` (host:port) answers a caller without a token, whatever this process's own settings say of it.

    The caller is a process of its own, as Ray reads its token once.
    """
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled"}
    command = [sys.executable, "-W", "ignore", "-c", _STRANGER, gcs_address]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=_STRANGER_SECONDS, check=False)  # noqa: S603 - ours
    except subprocess.TimeoutExpired:
        return "unknown"
    return _ANSWERS.get(done.stdout.strip(), "unknown")


def authentication(answer: Answer) -> Finding:
    """Whether the cluster wants a token from whom it obeys."""
    if answer == "refused":
        return Finding("Ray login", "ok", "the cluster refused a caller without a token: it obeys only who has it")
    if answer == "unknown":
        return Finding("Ray login", "warn", "a caller without a token got neither an answer nor a refusal: nothing is known of it", _LOGIN)
    found = "none: the cluster answered a caller without a token, so whoever reaches its ports runs code on all nodes"
    return Finding("Ray login", "warn", found, _LOGIN)
