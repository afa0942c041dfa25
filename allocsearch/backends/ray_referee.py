"""The rung scheduler in a Ray actor of its own, which workers ask at each rung.

The actor may die at any time: a worker that can't reach it goes on, and the driver, which hears of every trial's end, puts
another in its place. What running trials had reported to the dead one is heard again when they end.
"""

import contextlib
from dataclasses import dataclass
from typing import Any, Final
from uuid import uuid4

import ray
from ray.exceptions import GetTimeoutError, RayError

from allocsearch.core.ports import Scheduler
from allocsearch.core.trial import RungScore, Trial

_ANSWER_SECONDS: Final = 30
_PING_SECONDS: Final = 1


@dataclass(frozen=True, slots=True)
class RayReferee:
    """The Referee port as a worker has it: by name, since the actor behind the name may be replaced."""

    name: str

    def go_on(self, number: int, rung: RungScore, *, params: int) -> bool:
        """The actor's answer; True where there is none, since a trial must not be lost to a lost referee."""
        try:
            answer = ray.get_actor(self.name).go_on.remote(number, rung, params=params)
            return bool(ray.get(answer, timeout=_ANSWER_SECONDS))
        except (RayError, ValueError):  # a ValueError: nobody has that name now
            return True


class RefereeHost:
    """The driver's side: starts the actor, tells it how trials ended, and replaces it when it has died."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.referee = RayReferee(f"allocsearch-referee-{uuid4().hex}")
        self._scheduler = scheduler
        self._actor: Any = self._started()

    def hear(self, trial: Trial) -> None:
        """Trial `trial` ended: its rungs, which the actor may have missed, are known from now on."""
        self._scheduler.replay([trial])
        self._actor.replay.remote([trial])

    def keep_alive(self) -> None:
        """Replace the actor where it has died; nothing where it is only busy, or its name isn't free yet."""
        try:
            ray.get(self._actor.ping.remote(), timeout=_PING_SECONDS)
        except GetTimeoutError:
            return
        except RayError:
            with contextlib.suppress(ValueError):
                self._actor = self._started()

    def close(self) -> None:
        """End the actor, also in a session that stays."""
        ray.kill(self._actor)

    def _started(self) -> Any:
        return ray.remote(_Host).options(name=self.referee.name, num_cpus=0, max_restarts=0).remote(self._scheduler)


class _Host:
    """What runs in the actor, one call after another."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler

    def go_on(self, number: int, rung: RungScore, *, params: int) -> bool:
        return self._scheduler.go_on(number, rung, params=params)

    def replay(self, trials: list[Trial]) -> None:
        self._scheduler.replay(trials)

    def ping(self) -> None:
        """An answer means that the actor lives."""
