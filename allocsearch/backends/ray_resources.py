"""What a trial takes of a node, and how many trials that makes: on this machine, or on whatever nodes a cluster has at the time."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from allocsearch.resources_spec import ResourcesSpec

_GIGABYTE: Final = 10**9


@dataclass(frozen=True, slots=True)
class Resources:
    """What each trial takes, and how many may run at a time.

    Attributes:
        num_workers: trials at a time; None for as many as the nodes that are there have room for, which may come and go.
        gpus: a whole number, or a share of one; also a worker's share of the GPU's memory.
        memory: bytes that are reserved on the node, and the most that a worker may allocate; None limits nothing.
    """

    num_workers: int | None
    threads: int = 1
    gpus: float = 0.0
    memory: int | None = None

    @property
    def request(self) -> dict[str, float]:
        """As Ray Tune is asked for them."""
        return {"cpu": self.threads, "gpu": self.gpus} | ({} if self.memory is None else {"memory": self.memory})

    def __str__(self) -> str:
        parts = [f"{self.gpus:g} GPU"] * bool(self.gpus) + [f"{self.threads} thread{'s' if self.threads > 1 else ''}"]
        return ", ".join(parts + ([] if self.memory is None else [f"{self.memory / _GIGABYTE:g} GB"]))


def local_resources(num_workers: int | None, *, num_trials: int, wish: ResourcesSpec | None = None) -> Resources:
    """One worker per GPU, or else one per CPU, where `wish` says nothing else: two one-thread trials beat one two-thread trial."""
    import torch  # noqa: PLC0415 - seconds to import, and only the driver that starts workers needs it

    wish = wish or ResourcesSpec()
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    gpus = 0 if wish.gpus == 0 else torch.cuda.device_count()
    fitting = _of_gpus(gpus, wish.gpus or 1.0) if gpus else cpus // (wish.threads or 1)
    workers = num_workers or max(1, min(fitting, num_trials))
    share = wish.gpus if wish.gpus is not None else min(1.0, gpus / workers) if gpus else 0.0
    return Resources(workers, threads=wish.threads or max(1, cpus // workers), gpus=share, memory=_bytes(wish))


def cluster_resources(nodes: Iterable[Mapping[str, Any]], num_workers: int | None, *, wish: ResourcesSpec | None = None) -> Resources:
    """On the nodes of a cluster, as Ray lists them. One thread, as a number that changed with the nodes would change the rounding."""
    wish = wish or ResourcesSpec()
    any_gpu = any(node["Resources"].get("GPU", 0) for node in nodes)
    gpus = wish.gpus if wish.gpus is not None else float(any_gpu)
    return Resources(num_workers, threads=wish.threads or 1, gpus=gpus, memory=_bytes(wish))


def room(node: Mapping[str, Any], resources: Resources) -> int:
    """How many trials `node`, as Ray lists it, would hold if it held nothing else."""
    if not node["Alive"]:
        return 0
    has = node["Resources"]
    fitting = [int(has.get("CPU", 0) // resources.threads)]
    if resources.gpus:
        fitting.append(_of_gpus(has.get("GPU", 0), resources.gpus))
    if resources.memory:
        fitting.append(int(has.get("memory", 0) // resources.memory))
    return min(fitting)


def _of_gpus(gpus: float, each: float) -> int:
    """Shares of one GPU do not reach into the next."""
    return int(gpus // each) if each >= 1 else int(gpus) * int(1 / each + 1e-9)


def _bytes(wish: ResourcesSpec) -> int | None:
    return None if wish.memory_gb is None else int(wish.memory_gb * _GIGABYTE)
