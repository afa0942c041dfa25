"""Runs trials on Ray Tune workers, each of which keeps its evaluator, and with it the frozen base, from trial to trial.

Tune decides where a trial runs and nothing else: its searcher here is a thin view of the Study port, its schedulers and its
restore are not used, and a worker's death is told to the study, which puts the same trial back in line.
"""

import json
import os
import queue
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Final

from allocsearch.backends.ray_session import refuse_ray_client, session  # before Ray: it sets what Ray reads when it is imported

# isort: split
from ray import tune
from ray.tune.search import Searcher

from allocsearch.backends.evaluation import limit_threads, outcome_of, reporter
from allocsearch.backends.ray_referee import RefereeHost
from allocsearch.core import codec
from allocsearch.core.ports import Evaluator, Referee, Scheduler, Study
from allocsearch.core.trial import Lost, Outcome, Trial

_POLL_SECONDS: Final = 0.5
_JOIN_SECONDS: Final = 20


@dataclass(frozen=True, slots=True)
class Resources:
    """Workers and what each may use; `gpus` may be a fraction (bookkeeping only: Ray does not cap memory)."""

    num_workers: int
    threads: int = 1
    gpus: float = 0.0


def local_resources(num_workers: int | None, *, num_trials: int) -> Resources:
    """One worker per GPU, or else one per CPU: two one-thread trials beat one two-thread trial."""
    import torch  # noqa: PLC0415 - seconds to import, and only the driver that starts workers needs it

    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    gpus = torch.cuda.device_count()
    workers = num_workers or max(1, min(gpus or cpus, num_trials))
    return Resources(workers, threads=max(1, cpus // workers), gpus=min(1.0, gpus / workers) if gpus else 0.0)


class RayExecutor:
    """The Executor port on Ray Tune.

    Args:
        resources: workers and what each may use.
        address: an existing cluster to join from one of its nodes (`auto` or `host:port`); None starts a local one.
    """

    def __init__(self, resources: Resources, *, address: str | None = None) -> None:
        refuse_ray_client(address)
        self.resources = resources
        self.num_workers = resources.num_workers
        self._address = address

    def run(self, study: Study, evaluator: Evaluator, *, scheduler: Scheduler | None = None) -> Iterator[Trial]:
        """Ask, evaluate on workers, tell; closing the iterator ends the workers at once and leaves their trials to a resume."""
        with (
            tempfile.TemporaryDirectory(prefix="allocsearch-", ignore_cleanup_errors=True) as folder,
            ExitStack() as after_the_session,
            session(num_cpus=self.resources.num_workers * self.resources.threads, address=self._address),
        ):
            host = _host(scheduler, study)
            searcher = _StudySearcher(study, host)
            trainable = tune.with_resources(
                tune.with_parameters(
                    _Worker, evaluator=evaluator, threads=self.resources.threads, referee=None if host is None else host.referee
                ),
                {"cpu": self.resources.threads, "gpu": self.resources.gpus},
            )
            tuner = tune.Tuner(
                trainable,
                tune_config=tune.TuneConfig(
                    search_alg=searcher, num_samples=-1, reuse_actors=True, max_concurrent_trials=self.resources.num_workers
                ),
                run_config=tune.RunConfig(
                    name="search",
                    storage_path=folder,
                    verbose=0,
                    stop=searcher.stopper,
                    failure_config=tune.FailureConfig(max_failures=0),
                    checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
                ),
            )
            fitting = threading.Thread(target=_fit, args=(tuner, searcher), name="ray-tune", daemon=True)
            fitting.start()
            after_the_session.callback(fitting.join, _JOIN_SECONDS)  # Tune must not write to a folder that is gone
            try:
                yield from searcher.told(fitting)
            finally:
                searcher.stopper.stop()
                if host is not None:
                    host.close()


def _host(scheduler: Scheduler | None, study: Study) -> RefereeHost | None:
    if scheduler is None:
        return None
    scheduler.replay(study.trials())
    return RefereeHost(scheduler)


class _Stopper(tune.Stopper):
    """Ends the experiment when the iterator is closed."""

    def __init__(self) -> None:
        self._stopped = threading.Event()

    def stop(self) -> None:
        self._stopped.set()

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:  # noqa: ARG002 - Tune's signature
        return False

    def stop_all(self) -> bool:
        return self._stopped.is_set()

    def __deepcopy__(self, memo: dict[int, Any]) -> "_Stopper":
        return self  # Tune copies its configuration, and an event must stay the same one

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune writes its configuration down for a restore that is never made


class _StudySearcher(Searcher):
    """The Study port as Tune sees it. Made without a metric: Tune rejects results that lack a named one."""

    def __init__(self, study: Study, host: RefereeHost | None) -> None:
        super().__init__()
        self.stopper = _Stopper()
        self.error: BaseException | None = None
        self._study, self._host = study, host
        self._numbers: dict[str, int] = {}
        self._told: queue.SimpleQueue[Trial] = queue.SimpleQueue()

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        try:
            if self._host is not None:
                self._host.keep_alive()
            assignment = None if self.stopper.stop_all() else self._study.ask()
        except BaseException as error:  # noqa: BLE001 - raised again in the driver's own thread
            self._fail(error)
            return str(Searcher.FINISHED)
        if assignment is None:
            return None if self._numbers else str(Searcher.FINISHED)
        self._numbers[trial_id] = assignment.number
        return {"assignment": codec.assignment_to_json(assignment)}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        number = self._numbers.pop(trial_id, None)
        if number is None or self.stopper.stop_all():
            return
        outcome: Outcome = Lost("its worker process ended without a result")
        if result is not None and "outcome" in result and not error:
            outcome = codec.outcome_from_json(json.loads(result["outcome"]))
        try:
            trial = self._study.tell(number, outcome)
            if self._host is not None:
                self._host.hear(trial)
            self._told.put(trial)
        except BaseException as problem:  # noqa: BLE001 - as above
            self._fail(problem)

    def told(self, fitting: threading.Thread) -> Iterator[Trial]:
        """Trials as they end, until Tune is done; raises what asking or telling raised."""
        while True:
            alive = fitting.is_alive()
            try:
                yield self._told.get(timeout=_POLL_SECONDS)
            except queue.Empty:
                if self.error is not None:
                    raise self.error from None
                if not alive:
                    return

    def _fail(self, error: BaseException) -> None:
        self.error = error
        self.stopper.stop()

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the study in the database is the only truth."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing, for the same reason."""

    def __deepcopy__(self, memo: dict[int, Any]) -> "_StudySearcher":
        return self  # Tune copies its configuration; a study cannot be

    def __getstate__(self) -> dict[str, Any]:
        return {}  # as in _Stopper: the database connection stays in this process


class _Worker(tune.Trainable):
    """One worker process. A trial is a single step, and `reset_config` keeps the process for the next."""

    def setup(self, config: dict[str, Any], *, evaluator: Evaluator, threads: int, referee: Referee | None) -> None:
        limit_threads(threads)
        self._evaluator, self._referee = evaluator, referee
        self._assignment = codec.assignment_from_json(config["assignment"])

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._assignment = codec.assignment_from_json(new_config["assignment"])
        return True

    def step(self) -> dict[str, Any]:
        outcome = outcome_of(self._evaluator, self._assignment, reporter(self._referee, self._assignment))
        # As text, since Tune flattens nested results.
        return {"outcome": json.dumps(codec.outcome_to_json(outcome)), "done": True}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: a lost trial starts again."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing to load."""


def _fit(tuner: tune.Tuner, searcher: _StudySearcher) -> None:
    try:
        tuner.fit()
    except BaseException as error:  # noqa: BLE001 - as above
        if not searcher.stopper.stop_all():
            searcher._fail(error)  # noqa: SLF001 - the thread's half of the searcher
