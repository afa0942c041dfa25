"""A Ray cluster on this machine, whose nodes are struck and replaced."""

import os
import shutil
import tempfile
from contextlib import contextmanager

NUM_NODES = 2


class RayCluster:
    """A head without trials and two nodes for one trial each, on loopback; a dead node is noticed within two seconds."""

    def __init__(self):
        os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 - Ray spells it so; workers are not to wait for whatever else runs here
        from allocsearch.backends import ray_session

        ray_session._stay_on_loopback()
        from ray.cluster_utils import Cluster

        quick = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 200, "health_check_failure_threshold": 5}
        self._folder = tempfile.mkdtemp(prefix="faults-")  # else it would become the cluster that `--address auto` means on this machine
        head = {"num_cpus": 0, "include_dashboard": False, "_system_config": quick, "temp_dir": self._folder}
        self._made = Cluster(initialize_head=True, head_node_args=head)
        self.mend()

    @property
    def address(self):
        return self._made.address

    def mend(self):
        """Bury the dead, and bring the cluster back to its number of nodes."""
        for node in [node for node in self._made.worker_nodes if not node.remaining_processes_alive()]:
            self._made.remove_node(node, allow_graceful=False)
        while len(self._made.worker_nodes) < NUM_NODES:
            self._made.add_node(num_cpus=1)

    def close(self):
        self._made.shutdown()
        shutil.rmtree(self._folder, ignore_errors=True)  # what is still ending may write to it


@contextmanager
def started_when_needed():
    """A function that gives the one cluster, started at its first call and mended at each."""
    made = []

    def cluster():
        if not made:
            made.append(RayCluster())
        made[0].mend()
        return made[0]

    try:
        yield cluster
    finally:
        for each in made:
            each.close()
