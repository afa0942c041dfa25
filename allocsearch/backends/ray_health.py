"""Whether a Ray cluster answers, what it has, and whether it asks who calls."""

import os
from collections.abc import Mapping
from typing import Any

from allocsearch.backends.ray_session import refuse_ray_client, session  # before Ray: it sets what Ray reads when it is imported

import ray  # isort: skip

from allocsearch.core.errors import InputError
from allocsearch.core.findings import Finding


def cluster(address: str) -> tuple[list[Finding], list[str]]:
    """What there is to say of the cluster at `address` (`auto` or host:port), and its nodes' addresses."""
    try:
        refuse_ray_client(address)
        with session(num_cpus=1, address=address):
            nodes = [node for node in ray.nodes() if node["Alive"]]
            findings = [resources(nodes), authentication(os.environ)]
    except InputError as error:
        return [Finding("cluster", "fail", str(error), "run `ray status` on a node of the cluster, and this command there")], []
    return findings, sorted({str(node["NodeManagerAddress"]) for node in nodes})


def resources(nodes: list[Mapping[str, Any]]) -> Finding:
    """What the nodes that are alive offer."""
    total = {name: sum(node["Resources"].get(name, 0.0) for node in nodes) for name in ("CPU", "GPU")}
    found = f"Ray {ray.__version__}: {len(nodes)} node{'s' if len(nodes) != 1 else ''}, {total['CPU']:g} CPUs, {total['GPU']:g} GPUs"
    return Finding("cluster", "ok", found)


def authentication(environment: Mapping[str, str]) -> Finding:
    """Whether the cluster wants a token from whom it obeys. With `auto`, Ray itself sets this where it finds one."""
    if environment.get("RAY_AUTH_MODE", "").lower() == "token":
        return Finding("Ray login", "ok", "RAY_AUTH_MODE=token: the cluster obeys only who has its token")
    remedy = "start every node and the driver with RAY_AUTH_MODE=token: docs/security.md"
    return Finding("Ray login", "warn", "none: whoever reaches the cluster's ports runs code on all nodes", remedy)
