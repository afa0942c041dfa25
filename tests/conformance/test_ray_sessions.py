"""A Ray session of the executor's own: what an interrupted run leaves behind."""

import threading
import time

import psutil
import pytest

from allocsearch.core.errors import InputError
from tests.conformance.toy import finish, measured


@pytest.fixture
def url(sqlite_url):
    return sqlite_url


def sleepy(assignment, report):
    """The first trial is quick, and the others would take longer than any test waits."""
    time.sleep(600 if assignment.number else 0)
    return measured(assignment)


def ray_processes():
    return {process for process in psutil.Process().children(recursive=True) if "ray" in " ".join(process.cmdline())}


def test_closing_ends_workers_in_the_middle_of_a_trial(desk):
    """As Ctrl-C does: at once, with no process, thread or new session left behind, and the study as it was."""
    import ray

    from allocsearch.backends.ray_executor import RayExecutor
    from allocsearch.backends.ray_resources import Resources

    study, others = desk.create(trials=4), ray_processes()
    running = RayExecutor(Resources(num_workers=2)).run(study, sleepy)
    assert next(running).number == 0
    time.sleep(1)
    began = time.monotonic()
    running.close()
    assert time.monotonic() - began < 30
    assert not ray.is_initialized()
    assert "ray-tune" not in [thread.name for thread in threading.enumerate()]
    psutil.wait_procs(ray_processes() - others, timeout=20)
    assert ray_processes() - others == set()
    again = desk.open()
    assert again.num_finished == 1
    finish(again)
    assert again.num_finished == 4
    assert len(again.trials()) == 4


@pytest.mark.parametrize("address", ["127.0.0.1:1", "localhost:port", "127.0.0.1:99999"])
def test_a_cluster_that_does_not_answer_is_named(desk, monkeypatch, address):
    from allocsearch.backends.ray_executor import RayExecutor
    from allocsearch.backends.ray_resources import Resources

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(InputError) as caught:
        next(RayExecutor(Resources(1), address=address).run(desk.create(), measured))
    assert str(caught.value).startswith(f"a Ray cluster must answer at {address!r}, but: ")
    assert "\n" not in str(caught.value)
