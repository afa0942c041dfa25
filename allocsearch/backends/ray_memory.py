"""Workers that Ray kills because their node runs out of memory: a death like any other, but for its reason.

Tune knows two ways in which a worker fails, its own error and its death, and ends the whole experiment at the third: Ray reports what its
memory monitor kills by an error of another class.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from allocsearch.backends import ray_session  # noqa: F401 - before Ray: it sets what Ray reads when it is imported

# isort: split
from ray.air.execution._internal.actor_manager import RayActorManager  # no public place decides what a failure is
from ray.exceptions import OutOfMemoryError, RayActorError

from allocsearch.backends.ray_searcher import StudySearcher

REASON: Final = "its node ran out of memory, and Ray killed its worker (`resources: memory_gb` keeps a trial within its share)"


@contextmanager
def memory_kills_as_deaths(searcher: StudySearcher) -> Iterator[None]:
    """While Tune runs: it sees the worker as dead, and `searcher` tells the study why."""
    original = RayActorManager._actor_task_failed  # noqa: SLF001 - as above

    def failed(self: RayActorManager, tracked_actor_task: Any, exception: Exception) -> None:
        if not isinstance(exception, OutOfMemoryError):
            original(self, tracked_actor_task, exception)
            return
        with searcher.because(REASON):
            original(self, tracked_actor_task, RayActorError(error_msg=REASON))

    RayActorManager._actor_task_failed = failed  # noqa: SLF001 - as above
    try:
        yield
    finally:
        RayActorManager._actor_task_failed = original  # noqa: SLF001 - as above
