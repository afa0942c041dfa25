"""Runs trials on Ray Tune workers, each of which keeps its evaluator, and with it the frozen base, from trial to trial.

Tune decides where a trial runs and nothing else: its searcher here is a thin view of the Study port, its schedulers and its
restore are not used, and a worker's death is told to the study, which puts the same trial back in line.
"""

import json
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from typing import Any, Final

from allocsearch.backends.ray_session import refuse_ray_client, session  # before Ray: it sets what Ray reads when it is imported

# isort: split
import ray
from ray import tune

from allocsearch.backends.evaluation import limit_threads, outcome_of, reporter
from allocsearch.backends.memory_limit import limit_memory
from allocsearch.backends.ray_forgetting import ForgetfulOrder, NoProgress
from allocsearch.backends.ray_memory import memory_kills_as_deaths
from allocsearch.backends.ray_nodes import check_nodes, differing
from allocsearch.backends.ray_referee import RefereeHost
from allocsearch.backends.ray_resources import Resources, room
from allocsearch.backends.ray_searcher import OfThisProcess, Room, StudySearcher
from allocsearch.core import codec
from allocsearch.core.errors import InputError
from allocsearch.core.ports import Evaluator, Referee, Scheduler, Study
from allocsearch.core.trial import Lost, Outcome, Trial
from allocsearch.core.versions import package_versions

_JOIN_SECONDS: Final = 20  # Tune itself gives a worker 10 of them to end
_MOST_WORKERS: Final = 4096


class RayExecutor:
    """The Executor port on Ray Tune.

    Args:
        resources: what each trial takes, and how many run at a time; on a cluster also a function from its nodes, as Ray lists them.
        address: an existing cluster to join from one of its nodes (`auto` or `host:port`); None starts a local one.
        paths: files and folders that trials read, which every node of a cluster must see.
        say: takes a line on what runs where.
    """

    def __init__(
        self,
        resources: Resources | Callable[[Sequence[Mapping[str, Any]]], Resources],
        *,
        address: str | None = None,
        paths: Sequence[str] = (),
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        refuse_ray_client(address)
        self._resources, self._address, self._paths, self._say = resources, address, tuple(paths), say

    def run(self, study: Study, evaluator: Evaluator, *, scheduler: Scheduler | None = None) -> Iterator[Trial]:
        """Ask, evaluate on workers, tell; closing the iterator ends the workers at once and leaves their trials to a resume.

        Raises:
            InputError: where no cluster answers, where one of its nodes differs from this one in what results depend on, and where
                this machine has no room for a trial.
        """
        with (
            tempfile.TemporaryDirectory(prefix="allocsearch-", ignore_cleanup_errors=True) as folder,
            session(num_cpus=self._num_cpus(), address=self._address),
        ):
            resources = self._checked_resources()
            with _hosted(scheduler, study) as host:
                searcher = StudySearcher(study, host, Room(resources))
                actors = _Actors()
                tuner = _tuner(searcher, evaluator, resources, referee=None if host is None else host.referee, folder=folder, actors=actors)
                fitting = threading.Thread(target=_fit, args=(tuner, searcher), name="ray-tune", daemon=True)
                fitting.start()
                try:
                    yield from searcher.told(fitting)
                finally:
                    searcher.stopper.stop()
                    actors.kill()
                    fitting.join(_JOIN_SECONDS)  # Ray ends a process one of whose threads calls it after its session

    def _num_cpus(self) -> int:
        """Of a session of our own."""
        mine = self._resources
        return (mine.num_workers or 1) * mine.threads if isinstance(mine, Resources) else 1

    def _checked_resources(self) -> Resources:
        """What trials take, once it is known that the nodes that are there now can train them."""
        nodes = [node for node in ray.nodes() if node["Alive"]]
        resources = self._resources if isinstance(self._resources, Resources) else self._resources(nodes)
        fitting = [node for node in nodes if room(node, resources)]
        if self._address is None and not fitting:
            raise InputError(f"this machine must have room for a trial, but one takes {resources}: ask for less, or see allocsearch doctor")
        if self._address is not None:
            check_nodes(fitting, self._paths)
            self._say(_room_line(fitting, resources))
        return resources


def _room_line(nodes: Sequence[Mapping[str, Any]], resources: Resources) -> str:
    if not nodes:
        return f"the cluster has no node with room for a trial ({resources}) yet: waiting for one to join"
    num_trials = sum(room(node, resources) for node in nodes)
    return f"the cluster has room for {num_trials} trials at a time ({resources} each) on {len(nodes)} node{'s' if len(nodes) > 1 else ''}"


class _Actors(OfThisProcess, tune.Callback):
    """The actors of the workers, to be ended at once: Tune itself would wait for what they are doing."""

    def __init__(self) -> None:
        self._by_id: dict[str, Any] = {}
        self._killed = False

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:  # noqa: ARG002 - Tune's signature
        """Remember whose trial it is; one actor has many, one after another. One that is late for `kill` is ended here."""
        actor = trial.temporary_state.ray_actor
        if actor is None:
            return
        self._by_id[actor._ray_actor_id.hex()] = actor  # noqa: SLF001 - handles of one actor differ
        if self._killed:
            ray.kill(actor)

    def kill(self) -> None:
        """All of them, dead ones too."""
        self._killed = True
        for actor in list(self._by_id.values()):
            ray.kill(actor)


def _tuner(
    searcher: StudySearcher, evaluator: Evaluator, resources: Resources, *, referee: Referee | None, folder: str, actors: _Actors
) -> tune.Tuner:
    versions = package_versions()
    trainable = tune.with_parameters(_Worker, evaluator=evaluator, resources=resources, referee=referee, versions=versions)
    return tune.Tuner(
        tune.with_resources(trainable, resources.request),
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=ForgetfulOrder(),
            num_samples=-1,
            reuse_actors=True,
            max_concurrent_trials=resources.num_workers or _MOST_WORKERS,
        ),
        run_config=tune.RunConfig(
            name="search",
            storage_path=folder,
            verbose=0,
            stop=searcher.stopper,
            callbacks=[actors, NoProgress()],
            failure_config=tune.FailureConfig(max_failures=0),
            checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
        ),
    )


@contextmanager
def _hosted(scheduler: Scheduler | None, study: Study) -> Iterator[RefereeHost | None]:
    if scheduler is None:
        yield None
        return
    scheduler.replay(study.trials())
    with closing(RefereeHost(scheduler)) as host:
        yield host


class _Worker(tune.Trainable):
    """One worker process. A trial is a single step, and `reset_config` keeps the process for the next."""

    def setup(
        self, config: dict[str, Any], *, evaluator: Evaluator, resources: Resources, referee: Referee | None, versions: dict[str, str]
    ) -> None:
        limit_threads(resources.threads)
        limit_memory(resources.memory, gpu_share=resources.gpus)
        self._evaluator, self._referee, self._gpus = evaluator, referee, resources.gpus
        self._assignment = codec.assignment_from_json(config["assignment"])
        # A node that joined after the run began was not asked before.
        self._hindrance = ", ".join(differing(package_versions(), versions))

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._assignment = codec.assignment_from_json(new_config["assignment"])
        return True

    def step(self) -> dict[str, Any]:
        outcome: Outcome = Lost(f"node {socket.gethostname()} {self._hindrance}", by_machine=True)
        if not self._hindrance:
            outcome = outcome_of(self._evaluator, self._assignment, reporter(self._referee, self._assignment), gpus=self._gpus)
        # As text, since Tune flattens nested results.
        return {"outcome": json.dumps(codec.outcome_to_json(outcome)), "done": True}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: a lost trial starts again."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing to load."""


def _fit(tuner: tune.Tuner, searcher: StudySearcher) -> None:
    try:
        with memory_kills_as_deaths(searcher):
            tuner.fit()
    except BaseException as error:  # noqa: BLE001 - as above
        if not searcher.stopper.stop_all():
            searcher.fail(error)
