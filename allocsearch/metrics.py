"""A run's progress for Prometheus, at `/metrics` of a port: trials by stage and state, worker seconds, the best accuracy."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any, Final, Protocol

from allocsearch.core.errors import InputError
from allocsearch.core.trial import Failed, Infeasible, Lost, Measured, Stopped, Trial

LOOPBACK: Final = "127.0.0.1"


class Meter(Protocol):
    """What a run is measured with."""

    def begin(self, study: str, trials: Sequence[Trial], *, target: int) -> None:
        """Take in what the study has already, and how many trials it is to have."""

    def count(self, trial: Trial, *, stage: str = "search") -> None:
        """One more trial has ended, or has lost its worker and runs again."""


@contextmanager
def metered(port: int | None, host: str = LOOPBACK) -> Iterator[Meter]:
    """A meter that is served at `host:port` as long as this lasts; without a port one that measures nothing.

    Raises:
        InputError: where prometheus-client is not installed, or the port cannot be had.
    """
    if port is None:
        yield _NoMeter()
        return
    try:
        from prometheus_client import CollectorRegistry, ProcessCollector, start_http_server  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise InputError("metrics need prometheus-client, but it is not installed: pip install 'allocsearch[metrics]'") from error
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    meter = _Prometheus(registry)
    try:
        server, thread = start_http_server(port, addr=host, registry=registry)
    except OSError as error:
        raise InputError(f"metrics must be served at {host}:{port}, but: {error.strerror}: give another --metrics-port") from error
    try:
        yield meter
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _NoMeter:
    def begin(self, study: str, trials: Sequence[Trial], *, target: int) -> None:
        pass

    def count(self, trial: Trial, *, stage: str = "search") -> None:
        pass


class _Prometheus:
    def __init__(self, registry: Any) -> None:
        from prometheus_client import Counter, Gauge, Info  # noqa: PLC0415 - an extra

        Info("allocsearch", "The program.", registry=registry).info({"version": version("allocsearch")})
        in_stage = ["study", "stage"]
        self._trials = Gauge("allocsearch_trials", "Trials that have ended, by how.", [*in_stage, "state"], registry=registry)
        self._target = Gauge("allocsearch_target_trials", "Trials that the search is to have.", ["study"], registry=registry)
        self._best = Gauge(
            "allocsearch_best_accuracy", "Of the search's finished trials, on the search rows.", ["study"], registry=registry
        )
        self._lost = Counter("allocsearch_lost_workers", "Deaths of workers; their trials run again.", in_stage, registry=registry)
        self._seconds = Counter("allocsearch_worker_seconds", "Wall time in workers, in ended trials.", in_stage, registry=registry)
        self._study, self._highest = "", 0.0

    def begin(self, study: str, trials: Sequence[Trial], *, target: int) -> None:
        self._study = study
        self._target.labels(study).set(target)
        for state in ("finished", "stopped", "infeasible", "failed"):
            self._trials.labels(study, "search", state).set(0)
        for trial in trials:
            if trial.outcome is not None:
                self.count(trial)

    def count(self, trial: Trial, *, stage: str = "search") -> None:
        where = (self._study, stage)
        match trial.outcome:
            case None | Lost():  # it is back without having ended
                self._lost.labels(*where).inc()
                return
            case Measured() as outcome:
                state = "finished"
                self._measure(outcome, stage)
            case Stopped() as outcome:
                state = "stopped"
            case Infeasible() as outcome:
                state = "infeasible"
            case Failed() as outcome:
                state = "failed"
        self._trials.labels(*where, state).inc()
        self._seconds.labels(*where).inc(outcome.seconds)

    def _measure(self, measured: Measured, stage: str) -> None:
        if stage == "search":
            self._highest = max(self._highest, measured.accuracy)
            self._best.labels(self._study).set(self._highest)
