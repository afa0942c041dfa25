"""The nodes of a cluster before a run: whether each that could train a trial has the same packages, and sees the same files.

A node with another torch would train other trials than the rest, and one without the data would fail every trial that it is given.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import ray
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from allocsearch.core.errors import InputError, shown
from allocsearch.core.versions import package_versions

_ANSWER_SECONDS: Final = 120
_REMEDY: Final = "give all nodes one image or environment, and paths that they share"


def differing(there: Mapping[str, str], here: Mapping[str, str]) -> list[str]:
    """What a node that has the versions `there` has other than a driver's `here`. Ray compares its own and Python's when a node joins."""
    return [f"has {package} {there[package]}, not {here[package]}" for package in here if there[package] != here[package]]


def check_nodes(nodes: Sequence[Mapping[str, Any]], paths: Sequence[str]) -> None:
    """Ask every one of `nodes` (as Ray lists them) for its packages and for `paths`, which must be there.

    A node that leaves meanwhile is passed over.

    Raises:
        InputError: one line on the nodes that cannot take part, and why.
    """
    asked = {_asked(node, paths): node for node in nodes}
    done, late = ray.wait(list(asked), num_returns=len(asked), timeout=_ANSWER_SECONDS) if asked else ([], [])
    problems = [f"node {_name(asked[answer])} does not answer" for answer in late]
    for answer in done:
        problems += [f"node {_name(asked[answer])} {problem}" for problem in _problems(answer)]
    if problems:
        raise InputError(f"every node must be able to train a trial, but {shown(problems, limit=3)}: {_REMEDY}")


def _problems(answer: Any) -> list[str]:
    try:
        versions, missing = ray.get(answer, timeout=1)
    except (GetTimeoutError, ray.exceptions.NodeDiedError, ray.exceptions.TaskUnschedulableError):
        return []  # it has left
    except RayError as error:
        return [f"cannot run allocsearch ({_last_line(error)})"]
    return differing(versions, package_versions()) + [f"does not see {path}" for path in missing]


def _asked(node: Mapping[str, Any], paths: Sequence[str]) -> Any:
    here = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
    return ray.remote(_facts).options(num_cpus=0, max_retries=0, scheduling_strategy=here).remote(list(paths))


def _facts(paths: list[str]) -> tuple[dict[str, str], list[str]]:
    return package_versions(), [path for path in paths if not Path(path).exists()]


def _name(node: Mapping[str, Any]) -> str:
    return str(node["NodeManagerAddress"])


def _last_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1][:200]
