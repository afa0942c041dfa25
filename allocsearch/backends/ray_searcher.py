"""The Study port as Ray Tune's searcher: Tune decides where a trial runs, and the study which."""

import json
import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, Self

from allocsearch.backends import ray_session  # noqa: F401 - before Ray: it sets what Ray reads when it is imported

# isort: split
import ray
from ray import tune
from ray.tune.search import Searcher

from allocsearch.backends.ray_referee import RefereeHost
from allocsearch.backends.ray_resources import Resources, room
from allocsearch.core import codec
from allocsearch.core.ports import Study
from allocsearch.core.trial import Lost, Outcome, Trial

_POLL_SECONDS: Final = 0.5
_COUNT_SECONDS: Final = 1.0
_DIED: Final = "its worker process ended without a result"


class Room:
    """How many trials may run: what was asked for, or as many as the cluster's nodes hold at the time, which come and go."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._counted, self._until = 1, 0.0

    def __call__(self) -> int:
        """At least one, since a trial that waits for room is what makes an autoscaler add some."""
        if self._resources.num_workers is not None:
            return self._resources.num_workers
        if time.monotonic() >= self._until:
            self._counted = max(1, sum(room(node, self._resources) for node in ray.nodes()))
            self._until = time.monotonic() + _COUNT_SECONDS
        return self._counted


class OfThisProcess:
    """Tune copies its configuration, and writes it down for a restore that is never made: this part of it stays here, and the same."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {}


class Stopper(OfThisProcess, tune.Stopper):
    """Ends the experiment when the iterator is closed."""

    def __init__(self) -> None:
        self._stopped = threading.Event()

    def stop(self) -> None:
        """From now on no trial is asked for or told."""
        self._stopped.set()

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:  # noqa: ARG002 - Tune's signature
        """No trial is ended from here."""
        return False

    def stop_all(self) -> bool:
        """Whether the experiment is to end."""
        return self._stopped.is_set()


class StudySearcher(OfThisProcess, Searcher):
    """The Study port as Tune sees it. Made without a metric: Tune rejects results that lack a named one."""

    def __init__(self, study: Study, host: RefereeHost | None, room_for: Callable[[], int]) -> None:
        super().__init__()
        self.stopper = Stopper()
        self.error: BaseException | None = None
        self._study, self._host, self._room_for = study, host, room_for
        self._numbers: dict[str, int] = {}
        self._told: queue.SimpleQueue[Trial] = queue.SimpleQueue()
        self._death = _DIED

    @contextmanager
    def because(self, death: str) -> Iterator[None]:
        """Trials that are lost meanwhile are lost for this reason."""
        self._death = death
        try:
            yield
        finally:
            self._death = _DIED

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """What the study asks for, where there is room for it."""
        try:
            if self._host is not None:
                self._host.keep_alive()
            if len(self._numbers) >= self._room_for():
                return None
            assignment = None if self.stopper.stop_all() else self._study.ask()
        except BaseException as error:  # noqa: BLE001 - raised again in the driver's own thread
            self.fail(error)
            return str(Searcher.FINISHED)
        if assignment is None:
            return None if self._numbers else str(Searcher.FINISHED)
        self._numbers[trial_id] = assignment.number
        return {"assignment": codec.assignment_to_json(assignment)}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tell the study how the trial ended; one without a result was lost with its worker."""
        number = self._numbers.pop(trial_id, None)
        if number is None or self.stopper.stop_all():
            return
        outcome: Outcome = Lost(self._death)
        if result is not None and "outcome" in result and not error:
            outcome = codec.outcome_from_json(json.loads(result["outcome"]))
        try:
            trial = self._study.tell(number, outcome)
            if self._host is not None:
                self._host.hear(trial)
            self._told.put(trial)
        except BaseException as problem:  # noqa: BLE001 - as above
            self.fail(problem)

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

    def fail(self, error: BaseException) -> None:
        """Ends the experiment, and raises `error` in the driver's own thread."""
        self.error = error
        self.stopper.stop()

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the study in the database is the only truth."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing, for the same reason."""
