"""Several Ray nodes on one machine, which join, leave and die while a study runs."""

import threading
import time
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from optuna.trial import TrialState

from allocsearch.core.errors import InputError
from tests.conformance.executor_cases import states
from tests.conformance.toy import evaluate, measured


@pytest.fixture
def url(sqlite_url):
    return sqlite_url


@pytest.fixture(scope="module")
def cluster():
    """A head without trials, as a real one should be, on loopback; tests add nodes. A dead one is noticed within two seconds."""
    from allocsearch.backends import ray_session

    ray_session._stay_on_loopback()
    from ray.cluster_utils import Cluster

    quick = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 200, "health_check_failure_threshold": 5}
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, "_system_config": quick})
    with ray_session.session(num_cpus=0, address=made.address):
        yield made
    made.shutdown()


@dataclass(frozen=True)
class Gathering:
    """Trials that wait for each other's nodes, so that what happens does not depend on how quick a node is.

    Those from number `late` on wait until three nodes have begun a trial, the others until two have. A trial that begins on the node
    that `folder / "doomed"` names never ends.
    """

    folder: Path
    late: int

    def __call__(self, assignment, report):
        import ray

        node = ray.get_runtime_context().get_node_id()
        (self.folder / f"node-{node}").touch()
        if (self.folder / "doomed").exists() and (self.folder / "doomed").read_text() == node:
            (self.folder / "caught").touch()
            time.sleep(600)
        while len(list(self.folder.glob("node-*"))) < (2 if assignment.number < self.late else 3):
            time.sleep(0.05)
        return measured(assignment, worker=node)


def kill_where_caught(node, folder):
    while not (folder / "caught").exists():
        time.sleep(0.05)
    node.kill_raylet()  # SIGKILL


def test_nodes_join_leave_and_die_while_a_study_runs(desk, cluster, tmp_path, capfd):
    """No trial is lost or doubled: what ran on a node that is gone runs again elsewhere."""
    from allocsearch.backends.ray_executor import RayExecutor
    from allocsearch.backends.ray_resources import cluster_resources

    first, second = cluster.add_node(num_cpus=1), cluster.add_node(num_cpus=1)
    study = desk.create(trials=20, limits={"max_attempts": 5})
    said, told = [], []
    executor = RayExecutor(partial(cluster_resources, num_workers=None), address=cluster.address, say=said.append)
    killing = threading.Thread(target=kill_where_caught, args=(first, tmp_path), daemon=True)
    for trial in executor.run(study, Gathering(tmp_path, late=6)):
        told.append(trial)
        if len(told) == 4:
            third = cluster.add_node(num_cpus=1)
        if len(told) == 10:
            (tmp_path / "doomed").write_text(first.node_id)
            killing.start()
        if trial.outcome is None and second in cluster.worker_nodes:
            cluster.remove_node(second)
    assert said == ["the cluster has room for 2 trials at a time (1 thread each) on 2 nodes"]
    assert capfd.readouterr() == ("", "")
    ended = [trial.number for trial in told if trial.outcome is not None]
    assert sorted(ended) == list(range(20))
    assert states(desk) == {TrialState.COMPLETE: 20}
    trials = desk.record().trials
    assert len({trial.assignment.allocation for trial in trials}) == 20
    assert Counter(trial.outcome.worker for trial in trials).keys() == {node.node_id for node in (first, second, third)}
    assert max(trial.attempt for trial in trials) > 1


@pytest.mark.parametrize("wrong", ["package", "path"])
def test_a_node_that_differs_is_refused_before_a_trial_runs(desk, cluster, monkeypatch, wrong):
    from allocsearch.backends import ray_nodes
    from allocsearch.backends.ray_executor import RayExecutor
    from allocsearch.backends.ray_resources import Resources

    if not cluster.worker_nodes:
        cluster.add_node(num_cpus=1)
    if wrong == "package":
        mine = {**ray_nodes.package_versions(), "torch": "0.4.1"}
        monkeypatch.setattr(ray_nodes, "package_versions", lambda: mine)
    study = desk.create()
    with pytest.raises(InputError, match=r"every node must be able to train a trial, but node 127\.0\.0\.1 ") as caught:
        next(RayExecutor(Resources(1), address=cluster.address, paths=["/no/such/rows.jsonl"] * (wrong == "path")).run(study, evaluate))
    assert {"package": ", not 0.4.1: ", "path": " does not see /no/such/rows.jsonl: "}[wrong] in str(caught.value)
    assert "\n" not in str(caught.value)
    assert study.trials() == []
