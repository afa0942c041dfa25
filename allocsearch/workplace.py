"""What a driver needs on its machine: the evaluator with its model and data at hand, and an executor."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

from allocsearch.backends.artifact_store import artifact_store
from allocsearch.core.ports import ArtifactStore, Executor
from allocsearch.core.versions import TRAINING, versions_of
from allocsearch.home import home
from allocsearch.hub import has_weights
from allocsearch.models import BUILTIN_MODELS, model_digest, resolve
from allocsearch.options import Options, paths_of
from allocsearch.planning import Plan
from allocsearch.spec import StudySpec
from allocsearch.training.finetune import ProxyEvaluator
from allocsearch.training.tasks import load_task

Say = Callable[[str], None]

_LONG_TO_READ: Final = 2_000_000_000
"""Bytes of weights whose digest takes seconds."""
_PACKAGES: Final = (*TRAINING, "optuna", "ray", "sqlalchemy")


class TooManyFailuresError(RuntimeError):
    """The study is paused because too many of its trials failed; its text says what they share."""


class LimitReachedError(RuntimeError):
    """The study has spent what it may before all of it was done; its text says which limit that was."""


def versions() -> dict[str, str]:
    """Of Python and the packages that results depend on."""
    return versions_of(_PACKAGES)


def num_workers(spec: StudySpec, options: Options) -> int:
    """Trials that would run at a time on this machine."""
    from allocsearch.backends.ray_resources import local_resources  # noqa: PLC0415 - imports torch

    wish = spec.resources.overridden(options.resources)
    return 1 if options.inline else local_resources(options.workers, num_trials=spec.trials, wish=wish).num_workers or 1


def artifacts_of(name: str, options: Options) -> ArtifactStore:
    """Where the weights of study `name` are kept."""
    return artifact_store(options.artifacts or home() / "artifacts", name)


def prepare(spec: StudySpec, name: str, options: Options, say: Say) -> tuple[ProxyEvaluator, dict[str, str]]:
    """The evaluator, and digests of the task and the model; they, the cluster and the place of weights are known to be there then."""
    task = load_task(spec.task.source())
    model = resolve(spec.model, say)
    _announce_reading(model, say)
    digest = model_digest(model, spec.revision)
    _announce_fetching(model, digest, say)
    place = spec.model if spec.model in BUILTIN_MODELS else str(model)  # each node keeps built-in models where its own home is
    # A branch may move while a study runs, and nodes fetch at different times.
    pinned = spec.model_copy(update={"revision": digest.removeprefix("commit:")}) if digest.startswith("commit:") else spec
    artifacts = artifacts_of(name, options)
    if options.address is not None and not options.inline:
        from allocsearch.backends.ray_session import check_reachable  # noqa: PLC0415 - seconds to import

        check_reachable(options.address)
    artifacts.check()
    evaluator = ProxyEvaluator(pinned, place, artifacts, prefix=name, weights=digest)
    return evaluator, {"task_digest": task.digest, "model_digest": digest}


def _announce_reading(model: Path | str, say: Say) -> None:
    size = sum(file.stat().st_size for file in model.glob("*.safetensors")) if isinstance(model, Path) else 0
    if size >= _LONG_TO_READ:
        say(f"reading the {size / 1e9:.0f} GB of weights in {model}, to tell them from others")


def _announce_fetching(model: Path | str, digest: str, say: Say) -> None:
    if isinstance(model, str) and not has_weights(model, digest.removeprefix("commit:")):
        say(f"the weights of {model} are not in this machine's cache: each machine fetches those it lacks before its first trial")


def executor_of(planned: Plan, num_trials: int, options: Options, say: Say) -> Executor:
    """Ray's, or the one without an engine where `options.inline`."""
    if options.inline:
        from allocsearch.backends.inline_executor import InlineExecutor  # noqa: PLC0415 - see below

        return InlineExecutor()
    from allocsearch.backends.ray_executor import RayExecutor  # noqa: PLC0415 - seconds to import
    from allocsearch.backends.ray_resources import cluster_resources, local_resources  # noqa: PLC0415 - imports torch

    wish = planned.spec.resources.overridden(options.resources)
    if options.address is not None:
        say(f"joining the Ray cluster at {options.address} for {planned.shape.architecture}")
        resources = partial(cluster_resources, num_workers=options.workers, wish=wish)
        return RayExecutor(resources, address=options.address, paths=paths_of(planned.spec), say=say)
    local = local_resources(options.workers, num_trials=num_trials, wish=wish)
    say(f"starting Ray with {local.num_workers} worker{'s' if local.num_workers != 1 else ''} for {planned.shape.architecture}")
    return RayExecutor(local)
