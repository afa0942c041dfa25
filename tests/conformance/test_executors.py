"""The Executor cases inline and on a real Ray session, and what only processes can show."""

import ipaddress
import os
import signal
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from optuna.trial import TrialState

from allocsearch.backends.inline_executor import InlineExecutor
from allocsearch.core.errors import InputError
from tests.conformance.executor_cases import ExecutorCases, states
from tests.conformance.toy import measured


@pytest.fixture
def url(sqlite_url):
    return sqlite_url


@pytest.fixture(scope="module")
def ray_session():
    """One Ray session for the whole file, made the way that the executor makes its own."""
    from allocsearch.backends.ray_session import session

    with session(num_cpus=2, address=None):
        yield


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
        from allocsearch.backends.ray_executor import RayExecutor, Resources

        return RayExecutor(Resources(num_workers=2))

    def test_a_killed_worker_costs_one_attempt_and_too_many_fail_the_trial(self, desk, executor, tmp_path):
        study = desk.create(trials=4, limits={"max_attempts": 2})
        told = list(executor.run(study, Deadly(tmp_path)))
        assert states(desk) == {TrialState.COMPLETE: 4, TrialState.FAIL: 1}
        assert [trial.attempt for trial in study.trials()] == [1, 2, 2, 1, 1]
        assert study.trials()[2].outcome.reason == "its worker died 2 times, last: its worker process ended without a result"
        assert sorted(trial.number for trial in told if trial.outcome is not None) == [0, 1, 2, 3, 4]

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


def test_a_ray_client_address_is_refused():
    from allocsearch.backends.ray_executor import RayExecutor, Resources

    with pytest.raises(InputError, match="`ray://` would carry its database credentials into a remote actor") as caught:
        RayExecutor(Resources(1), address="ray://head:10001")
    assert "\n" not in str(caught.value)


def test_local_resources_share_the_cpus():
    from allocsearch.backends.ray_executor import local_resources

    cpus = len(os.sched_getaffinity(0))
    assert local_resources(1, num_trials=9).threads == cpus
    assert local_resources(None, num_trials=1).num_workers == 1
    assert local_resources(None, num_trials=10**6).num_workers in (cpus, 8)
    assert local_resources(7, num_trials=1).num_workers == 7
