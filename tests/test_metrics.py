"""What Prometheus scrapes, by its own parser, from a real port."""

import socket
import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families

from allocsearch.core.errors import InputError
from allocsearch.metrics import LOOPBACK, metered
from tests.test_logs import OUTCOMES, trial_of


def free_port():
    with socket.socket() as taken:
        taken.bind((LOOPBACK, 0))
        return taken.getsockname()[1]


def scraped(port):
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://{LOOPBACK}:{port}/metrics", timeout=30) as answer:
        families = text_string_to_metric_families(answer.read().decode())
    samples = [one for family in families for one in family.samples]
    return {(one.name, *(one.labels[key] for key in ("study", "stage", "state") if key in one.labels)): one.value for one in samples}


def test_trials_are_counted_from_where_the_study_stands():
    port = free_port()
    with metered(port) as meter:
        meter.begin("mine", [trial_of(OUTCOMES["finished"]), trial_of(OUTCOMES["running"])], target=9)
        first = scraped(port)
        for state in ("finished", "stopped", "infeasible", "failed", "lost", "running"):
            meter.count(trial_of(OUTCOMES[state]))
        meter.count(trial_of(OUTCOMES["finished"]), stage="confirmation")
        found = scraped(port)
    assert first["allocsearch_trials", "mine", "search", "finished"] == 1
    assert first["allocsearch_trials", "mine", "search", "failed"] == 0
    assert found["allocsearch_trials", "mine", "search", "finished"] == 2
    assert found["allocsearch_trials", "mine", "search", "stopped"] == 1
    assert found["allocsearch_trials", "mine", "search", "failed"] == 1
    assert found["allocsearch_trials", "mine", "confirmation", "finished"] == 1
    assert found["allocsearch_trials", "mine", "search", "infeasible"] == 1
    assert found["allocsearch_lost_workers_total", "mine", "search"] == 2, "a trial that comes back without an end lost its worker"
    assert ("allocsearch_lost_workers_total", "mine", "search") not in first
    assert found["allocsearch_worker_seconds_total", "mine", "search"] == 2.5 + 2.5 + 1.0 + 0.25 + 0.5
    assert found["allocsearch_target_trials", "mine"] == 9
    assert found["allocsearch_best_accuracy", "mine"] == 0.5


def test_the_port_is_given_back_and_was_loopback_only():
    port = free_port()
    with metered(port):
        with socket.socket() as other:
            other.bind(("127.0.0.2", port))  # would be taken if it listened everywhere
        assert scraped(port)
    with pytest.raises(OSError, match="refused"):
        scraped(port)


def test_a_port_that_is_taken_is_named():
    with socket.socket() as taken:
        taken.bind((LOOPBACK, 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=f"127.0.0.1:{port}, but: Address already in use"), metered(port):
            pass


def test_without_a_port_nothing_listens_and_counting_does_no_harm():
    with metered(None) as meter:
        meter.begin("mine", [trial_of(OUTCOMES["finished"])], target=1)
        meter.count(trial_of(OUTCOMES["failed"]))
