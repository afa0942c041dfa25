"""Studies, spaces and tasks as YAML, parsed into one frozen `StudySpec`. The only parser of user files."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from allocsearch import documents
from allocsearch.builtin_models import BUILTIN_MODELS
from allocsearch.core.budget import Budget
from allocsearch.core.choices import Metric, Objective, Sampler
from allocsearch.core.errors import InputError, quoted, shown
from allocsearch.core.warm_starts import SCORED_STARTS, WARM_STARTS
from allocsearch.documents import Beside
from allocsearch.followup_spec import ConfirmationSpec, ReplicationSpec
from allocsearch.limits_spec import NEUTRAL, LimitsSpec
from allocsearch.proxy_spec import ProxySpec, Seed
from allocsearch.resources_spec import ResourcesSpec
from allocsearch.scheduler_spec import SchedulerSpec
from allocsearch.space_spec import SPACE_SCHEMA, Closed, Positive, RoutingSpec, SpaceSpec
from allocsearch.task_spec import TASK_SCHEMA, TaskSpec

STUDY_SCHEMA: Final = "allocsearch/study/v1"
_STARTS: Final = (*WARM_STARTS, *SCORED_STARTS)
_LADDER: Final = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)

__all__ = [
    "SPACE_SCHEMA",
    "TASK_SCHEMA",
    "Closed",
    "ConfirmationSpec",
    "Objective",
    "ProxySpec",
    "ReplicationSpec",
    "RoutingSpec",
    "Sampler",
    "SpaceSpec",
    "StudySpec",
    "TaskSpec",
    "diff",
    "load",
    "load_space",
]


def _as_budget(text: str) -> str:
    Budget.parse(text)
    return text


def _as_warm_start(name: str) -> str:
    if name not in _STARTS:
        raise ValueError(f"a warm start must be one of {shown(_STARTS, limit=20)}")
    return name


def _as_task(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


def _as_read(value: Any) -> Any:
    """What a file may name was read before; this tells its JSON schema so."""
    return value


class StudySpec(Closed):
    """A study, resolved: nothing in it depends on a file that may change."""

    schema_version: Literal["allocsearch/study/v1"] = Field(alias="schema")
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,79}$")]
    """What the study is called in its storage."""

    about: str = ""
    """For people."""

    model: str
    """A built-in name, a hub id, or a folder of safetensors."""

    revision: str | None = None
    """The model's branch, tag or commit on the hub."""

    task: Annotated[TaskSpec, BeforeValidator(_as_task, json_schema_input_type=str | TaskSpec)]
    """A built-in name, the path of a task's YAML, or the task itself."""

    space: Annotated[SpaceSpec, BeforeValidator(_as_read, json_schema_input_type=str | SpaceSpec)]
    """A shipped name, the path of a space's YAML, or the space itself."""

    budget: Annotated[str, AfterValidator(_as_budget)]
    """Upper limits: `50M-params` (trainable), `8M-active` (per token), `1.5%` (of the base), joined by commas."""

    objective: Objective = "pareto"
    """`pareto`: accuracy against trainable parameters. Otherwise the best at the whole budget."""

    trials: Positive = 50
    """Finished trials to reach, warm starts included."""

    sampler: Sampler = "random"
    """Who proposes allocations."""

    seed: Seed = 0
    """Of the search; the seeds of trainings are in `proxy`."""

    proposal_batch: Positive | None = None
    """Trials that are proposed at a time, from what ended before them, so that neither timing nor deaths change what a seed finds;
    without it, whatever has ended counts at once, and no worker waits for the slowest of a batch."""

    routing: RoutingSpec = RoutingSpec()
    """Default: the space's own, else this."""

    ladder: Annotated[tuple[Annotated[float, Field(gt=0, le=1)], ...], Field(min_length=1)] = _LADDER
    """Target sizes of a Pareto study's trials, as shares of the budget."""

    warm_starts: tuple[Annotated[str, AfterValidator(_as_warm_start), Field(json_schema_extra={"enum": list(_STARTS)})], ...] = (
        "uniform",
        "mola-2468",
        "mola-8642",
        "mola-8228",
        "mola-2882",
        "hilo-2468",
        "lora",
        "moa-default",
    )
    """Allocations that are tried first. Those that mean nothing under the study's router are passed over."""

    warm_from: str | None = None
    """A study in the same storage whose best allocations are tried first, fitted to this model's depth and to this budget."""

    proxy: ProxySpec = ProxySpec()
    scheduler: SchedulerSpec = SchedulerSpec()
    limits: LimitsSpec = LimitsSpec()
    resources: ResourcesSpec = ResourcesSpec()
    replication: ReplicationSpec = ReplicationSpec()
    confirmation: ConfirmationSpec = ConfirmationSpec()

    @field_validator("scheduler")
    @classmethod
    def _has_rungs_to_stop_at(cls, scheduler: SchedulerSpec, info: ValidationInfo) -> SchedulerSpec:
        if "proxy" in info.data:  # else the proxy's own mistake is told
            scheduler.check(info.data["proxy"].rungs, num_steps=info.data["proxy"].num_steps)
        return scheduler

    @model_validator(mode="before")
    @classmethod
    def _take_the_spaces_routing(cls, data: Any) -> Any:
        if isinstance(data, dict) and "routing" not in data and isinstance(data.get("space"), dict) and data["space"].get("routing"):
            return {**data, "routing": data["space"]["routing"]}
        return data

    @property
    def metric(self) -> Metric:
        """What allocations are ranked by."""
        return "nll" if self.objective == "nll" else "accuracy"

    @property
    def digest(self) -> str:
        """Sixteen hex digits of what changes the study's findings; not its name, length, spending, checkpoints, resources or follow-up."""
        left_out: dict[str, Any] = {
            "name": True,
            "about": True,
            "trials": True,
            "resources": True,
            "replication": True,
            "confirmation": True,
            "limits": set(NEUTRAL),
            "space": {"about"},
        }
        content = self.model_dump(mode="json", by_alias=True, exclude=left_out | {"space": {"about"}})
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]

    def to_json(self) -> dict[str, Any]:
        """As JSON values; `from_json` reads them back."""
        return self.model_dump(mode="json", by_alias=True)

    @classmethod
    def from_json(cls, data: Mapping[str, Any], *, where: str) -> "StudySpec":
        """Read what `to_json` wrote; `where` names the place in an error."""
        return documents.validated(cls, dict(data), where=where)


def load(source: str, overrides: Mapping[str, Any] | None = None, *, confined: bool = True) -> StudySpec:
    """The study that `source` names (a name under `studies/`, or a path), with `overrides` of its top-level keys.

    What its file names must lie in its folder or in one that `ALLOCSEARCH_FOLDERS` names, where it is `confined`.

    Raises:
        InputError: one line that says which file, line and key, or which option, what must hold, and the nearest known name.
    """
    path = documents.find(source, "studies")
    given = {key: value for key, value in (overrides or {}).items() if value is not None}
    for key, value in given.items():
        if value == "":
            raise InputError(f"{documents.option(key)} must say something, but it is empty: leave it out for what the study says")
    data, beside = {**documents.read(path), **given}, Beside(path.parent, confined)
    # A path on the command line is relative to where the user stands, one in a file to that file.
    for key, read in (("space", _space_document), ("task", task_document)):
        if key in data:
            data[key] = read(data[key], given_as=documents.option(key)) if key in given else read(data[key], beside=beside)
    if isinstance(data.get("model"), str):
        data["model"] = _model_place(data["model"], beside=beside, is_given="model" in given)
    return documents.validated(StudySpec, data, where=str(path), path=path, given=given.keys())


def load_space(source: str) -> SpaceSpec:
    """The space that `source` names (a name under `search_spaces/`, or a path)."""
    path = documents.find(source, "search_spaces")
    return documents.validated(SpaceSpec, documents.read(path), where=str(path), path=path)


def diff(old: StudySpec, new: StudySpec) -> list[str]:
    """What differs between two specs, as `key: old → new` lines."""
    before, after = dict(_flat(old.to_json())), dict(_flat(new.to_json()))
    keys = sorted(before.keys() | after.keys())
    return [f"{key}: {before.get(key)} → {after.get(key)}" for key in keys if before.get(key) != after.get(key)]


def _space_document(value: Any, *, beside: Beside | None = None, given_as: str | None = None) -> Any:
    if not isinstance(value, str):
        return value
    path = documents.find(value, "search_spaces", beside=beside, given_as=given_as)
    # Validated here, so that an error names the space's own file and line.
    return documents.validated(SpaceSpec, documents.read(path), where=str(path), path=path).model_dump(mode="json", by_alias=True)


def task_document(value: Any, *, beside: Beside | None = None, given_as: str = "task") -> Any:
    """A task by name stays a name; a path to a YAML file is read; data paths become absolute."""
    if isinstance(value, str):
        if not value.endswith((".yaml", ".yml")):
            return value
        file = documents.located(value, beside)
        if file is None:
            raise InputError(f"{given_as}: {quoted(value)} must be a file that is there, but it is not")
        task = documents.validated(TaskSpec, documents.read(file), where=str(file), path=file)
        value = task.model_dump(mode="json", by_alias=True, exclude_none=True)
        beside = Beside(file.parent, confined=beside is None or beside.confined)
    if not isinstance(value, dict):
        return value
    given = {key: value[key] for key in ("path", "test_path") if isinstance(value.get(key), str)}
    folder = beside.folder if beside else Path()
    return {**value, **{key: str((documents.located(name, beside) or folder / name).absolute()) for key, name in given.items()}}


def _model_place(model: str, *, beside: Beside, is_given: bool) -> str:
    """A folder of weights by its absolute path, so that workers and resumes find it from anywhere; any other name as it is."""
    folder = documents.located(model, None if is_given else beside)
    if is_given and folder is None and model.startswith((".", "/", "~")):
        raise InputError(f"--model: {quoted(model)} must be a folder that is there, or a hub id or a built-in name, but nothing is there")
    if not is_given and folder is None and model not in BUILTIN_MODELS and Path(model).is_dir():
        raise InputError(
            f"model: what a study's file names lies beside it, but {quoted(model)} lies here: give --model with run, or call from elsewhere"
        )
    return str(folder.resolve()) if folder is not None and folder.is_dir() else model


def _flat(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flat(inner, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, value
