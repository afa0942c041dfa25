"""The Executor cases inline and on a real Ray session, and what only processes can show."""

import contextlib
import ipaddress
import os
import signal
import tempfile
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from optuna.trial import TrialState

from allocsearch.backends.artifact_store import artifact_store
from allocsearch.backends.inline_executor import InlineExecutor
from allocsearch.core.errors import InputError
from allocsearch.core.ports import ArtifactStore
from allocsearch.core.trial import RungScore, Stopped
from allocsearch.search.schedule import halving
from tests.conformance.executor_cases import HALVING, ExecutorCases, states
from tests.conformance.toy import climb, evaluate, measured


@pytest.fixture
def url(sqlite_url):
    return sqlite_url


def test_a_session_does_not_tell_its_workers_the_drivers_command_line(ray_session):
    """`--storage` may hold a password there."""
    import ray

    @ray.remote
    def entrypoints():
        from ray._private.worker import global_worker

        return [job.entrypoint for job in global_worker.gcs_client.get_all_job_info().values()]

    assert ray.get(entrypoints.remote()) == ["allocsearch"]


class TestInline(ExecutorCases):
    @pytest.fixture
    def executor(self):
        return InlineExecutor()


@dataclass(frozen=True)
class Deadly:
    """Kills its own process: once in trial 1, and every time in trial 2."""

    folder: Path

    def __call__(self, assignment, report):
        mark = self.folder / "killed"
        if assignment.number == 2 or (assignment.number == 1 and not mark.exists()):
            mark.touch(exist_ok=True)
            os.kill(os.getpid(), signal.SIGKILL)
        return measured(assignment)


@dataclass(frozen=True)
class DeadlyAtARung:
    """Kills its own process in trial 5, after its first report; odd trials are bad."""

    folder: Path

    def __call__(self, assignment, report):
        def fatal(rung):
            go_on = report(rung)
            mark = self.folder / "killed"
            if assignment.number == 5 and not mark.exists():
                mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return go_on

        return climb(assignment, fatal, bad=assignment.number % 2 == 1)


def _kill_the_referee():
    """From a worker, as a node's death would; returns once it is dead."""
    import ray
    from ray.exceptions import RayError

    (name,) = [name for name in ray.util.list_named_actors() if name.startswith("allocsearch-referee-")]
    actor = ray.get_actor(name)
    ray.kill(actor)
    with contextlib.suppress(RayError):
        while True:
            ray.get(actor.ping.remote())


def killing_the_referee(assignment, report):
    """In trial 8, before it reports. The trials from 11 on are bad."""
    if assignment.number == 8:
        _kill_the_referee()
    return climb(assignment, report, bad=assignment.number > 10)


def killing_every_referee(assignment, report):
    """Each trial finds none."""
    with contextlib.suppress(ValueError):  # the other worker's trial has killed it already
        _kill_the_referee()
    return climb(assignment, report, bad=assignment.number % 2 == 1)


def greedy(assignment, report):
    """Takes a fifth of what its worker may in trial 0, and twice as much as it may in trial 1."""
    import torch

    if assignment.number < 2:
        torch.ones((200_000_000, 2_000_000_000)[assignment.number], dtype=torch.int8)
    return measured(assignment)


@dataclass(frozen=True)
class Keeping:
    """Leaves each trial's weights in a store."""

    artifacts: ArtifactStore

    def __call__(self, assignment, report):
        with tempfile.NamedTemporaryFile() as weights:
            self.artifacts.write(f"w{assignment.number}", Path(weights.name))
        return measured(assignment, artifact=f"w{assignment.number}")


class Loading:
    """Loads something heavy on first use, as the real evaluator does."""

    def __init__(self):
        self.loads = 0

    def __call__(self, assignment, report):
        if not hasattr(self, "base"):
            self.base = object()
            self.loads += 1
        print("said on a worker's terminal")  # noqa: T201 - what a library might do
        return measured(assignment, worker=f"{os.getpid()} loaded {self.loads}")

    def __getstate__(self):
        return {"loads": 0}


class TestRay(ExecutorCases):
    @pytest.fixture
    def executor(self, ray_session):
        from allocsearch.backends.ray_executor import RayExecutor
        from allocsearch.backends.ray_resources import Resources

        return RayExecutor(Resources(num_workers=2))

    def test_a_killed_worker_costs_one_attempt_and_too_many_fail_the_trial(self, desk, executor, tmp_path):
        study = desk.create(trials=4, limits={"max_attempts": 2})
        told = list(executor.run(study, Deadly(tmp_path)))
        assert states(desk) == {TrialState.COMPLETE: 4, TrialState.FAIL: 1}
        assert [trial.attempt for trial in study.trials()] == [1, 2, 2, 1, 1]
        assert study.trials()[2].outcome.reason == "its worker died 2 times, last: its worker process ended without a result"
        assert sorted(trial.number for trial in told if trial.outcome is not None) == [0, 1, 2, 3, 4]

    def test_a_worker_that_is_killed_between_rungs_reports_again(self, desk, executor, tmp_path):
        study = desk.create(trials=10, proxy={"rungs": [5, 10]}, objective="nll", scheduler={**HALVING, "first_rung": 5})
        list(executor.run(study, DeadlyAtARung(tmp_path), scheduler=halving(desk.spec)))
        trials = desk.record().trials
        assert [trial.attempt for trial in trials] == [1] * 5 + [2] + [1] * 4
        assert states(desk) == {TrialState.PRUNED: len(_stopped(trials)), TrialState.COMPLETE: 10 - len(_stopped(trials))}
        assert {7, 9} <= _stopped(trials) <= {1, 3, 5, 7, 9}
        assert len({rung.step for rung in trials[5].outcome.rungs}) == len(trials[5].outcome.rungs)

    def test_a_dead_referee_is_replaced_by_one_that_knows_what_the_study_holds(self, desk, executor, capfd):
        """Nine reports decide, and eight trials run after its death."""
        study = desk.create(trials=16, proxy={"rungs": [10]}, objective="nll", scheduler={**HALVING, "eta": 9})
        list(executor.run(study, killing_the_referee, scheduler=halving(desk.spec)))
        assert {13, 14, 15} <= _stopped(desk.record().trials) <= {11, 12, 13, 14, 15}
        assert sum(states(desk).values()) == 16
        assert capfd.readouterr() == ("", "")

    def test_no_trial_is_lost_where_there_is_no_referee(self, desk, executor):
        from allocsearch.backends.ray_referee import RayReferee

        assert RayReferee("nobody").go_on(0, RungScore(0, 10, 0.5, 0.5), params=1)
        study = desk.create(trials=6, proxy={"rungs": [10]}, objective="nll", scheduler=HALVING)
        list(executor.run(study, killing_every_referee, scheduler=halving(desk.spec)))
        assert sum(states(desk).values()) == 6
        assert states(desk).keys() <= {TrialState.COMPLETE, TrialState.PRUNED}

    def test_a_trial_beyond_its_memory_is_its_own_error_and_kills_nobody(self, desk, ray_session):
        from allocsearch.backends.ray_executor import RayExecutor
        from allocsearch.backends.ray_resources import Resources

        study = desk.create(trials=4, limits={"max_failed_share": 1.0})
        told = list(RayExecutor(Resources(num_workers=2, memory=10**9)).run(study, greedy))
        ended = {trial.number: trial for trial in told}
        assert "can't allocate memory" in ended[1].outcome.reason
        assert {trial.attempt for trial in told} == {1}
        assert states(desk) == {TrialState.COMPLETE: 4, TrialState.FAIL: 1}

    def test_a_worker_that_ray_kills_for_its_nodes_memory_costs_one_attempt(self, desk, executor, monkeypatch):
        """What Ray's memory monitor does is done here by hand: it kills the worker, and what waits for the worker gets this error."""
        from ray.air.execution._internal import event_manager
        from ray.exceptions import OutOfMemoryError

        get, results = event_manager.ray.get, []

        def get_or_kill(future):
            result = get(future)
            if isinstance(result, dict) and "outcome" in result:
                results.append(result)
                if len(results) == 3:
                    psutil.Process(result["pid"]).kill()
                    raise OutOfMemoryError("1 worker(s) were killed due to the node running low on memory")
            return result

        monkeypatch.setattr(event_manager.ray, "get", get_or_kill)
        study = desk.create(trials=5, limits={"max_attempts": 2})
        told = list(executor.run(study, evaluate))
        assert states(desk) == {TrialState.COMPLETE: 5}
        assert sorted(trial.attempt for trial in study.trials()) == [1, 1, 1, 1, 2]
        assert len(told) == 6

    def test_a_node_that_joined_with_another_package_trains_nothing(self, desk, executor, monkeypatch):
        from allocsearch.backends import ray_executor, ray_nodes

        drivers = {**ray_nodes.package_versions(), "torch": "0.4.1"}
        monkeypatch.setattr(ray_executor, "package_versions", lambda: drivers)
        study = desk.create(trials=2)
        list(executor.run(study, evaluate))
        assert f"has torch {ray_nodes.package_versions()['torch']}, not 0.4.1" in study.failure_report
        assert study.num_finished == 0

    def test_weights_are_kept_where_the_driver_looks_for_them(self, desk, executor, monkeypatch, tmp_path):
        """Ray gives each trial a working folder of its own, where a relative path would mean another one."""
        monkeypatch.chdir(tmp_path)
        store = artifact_store("out", "demo")
        store.check()
        list(executor.run(desk.create(trials=2), Keeping(store)))
        assert sorted(path.name for path in (tmp_path / "out" / "demo").iterdir()) == ["w0", "w1"]

    def test_workers_keep_what_they_loaded_and_say_nothing_on_the_terminal(self, desk, executor, capfd):
        study = desk.create(trials=5)
        workers = {trial.outcome.worker for trial in executor.run(study, Loading())}
        assert len(workers) <= 2
        assert {worker.partition(" ")[2] for worker in workers} == {"loaded 1"}
        out, err = capfd.readouterr()
        assert (out, err) == ("", "")

    def test_a_session_of_one_node_listens_on_loopback_only(self, ray_session):
        """Ray's ports run what anybody sends them: CVE-2023-48022 and its kin."""
        processes = psutil.Process().children(recursive=True)
        listening = {
            (connection.laddr.ip, connection.laddr.port)
            for process in processes
            for connection in process.net_connections(kind="tcp")
            if connection.status == psutil.CONN_LISTEN
        }
        assert listening, "the Ray session must be listening somewhere, or this test sees nothing"
        for ip, port in listening:
            address = ipaddress.ip_address(ip)
            assert (getattr(address, "ipv4_mapped", None) or address).is_loopback, f"{ip}:{port} is open to others"

    def test_the_dashboard_serves_no_jobs(self, ray_session):
        """Ray starts a process by that name in any case; ours has neither pages nor the job API."""
        commands = [process.cmdline() for process in psutil.Process().children(recursive=True)]
        for command in commands:
            if any("dashboard/dashboard.py" in word for word in command):
                assert {"--minimal", "--disable-frontend", "--modules-to-load=UsageStatsHead"} <= set(command)


def _stopped(trials):
    return {trial.number for trial in trials if isinstance(trial.outcome, Stopped)}


def test_a_ray_client_address_is_refused():
    from allocsearch.backends.ray_executor import RayExecutor
    from allocsearch.backends.ray_resources import Resources

    with pytest.raises(InputError, match="`ray://` would carry its database credentials into a remote actor") as caught:
        RayExecutor(Resources(1), address="ray://head:10001")
    assert "\n" not in str(caught.value)
