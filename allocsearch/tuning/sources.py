"""What the command line names: the exported config to train, and the task to train and score it on."""

from pathlib import Path
from typing import Final

from allocsearch import documents
from allocsearch import spec as specs
from allocsearch.core.errors import InputError, quoted
from allocsearch.core.task import BUILTIN_TASKS
from allocsearch.exported import SCHEMA, ExportedConfig
from allocsearch.spec import TaskSpec

EVIDENCE_FILE: Final = "allocsearch.yaml"


def exported_config(source: Path) -> ExportedConfig:
    """The exported config in a YAML file, or in a folder that `allocsearch export --format peft` or `allocsearch train` wrote.

    Raises:
        InputError: where there is none, or it is not valid.
    """
    path = source / EVIDENCE_FILE if source.is_dir() else source
    if not path.is_file():
        raise InputError(
            f"a config must be an exported YAML file, or a folder with an {EVIDENCE_FILE}, but {quoted(str(source))} is neither: "
            "write one with allocsearch export NAME -o best.yaml"
        )
    data = documents.read(path)
    if data.get("schema") != SCHEMA:
        raise InputError(
            f"{path}: an exported config must have the schema {SCHEMA!r}, but this has {data.get('schema')!r}: "
            "write one with allocsearch export NAME -o best.yaml"
        )
    return documents.validated(ExportedConfig, data, where=str(path), path=path)


def task_of(given: str | None, exported: ExportedConfig | None) -> TaskSpec:
    """The task that `given` names: a built-in, a task's YAML or a study's YAML; without it, the built-in that the config was found on.

    Raises:
        InputError: where neither says how rows become prompts.
    """
    if given is None:
        return _recorded(exported)
    path = documents.located(given)
    if path is not None and path.is_file() and documents.read(path).get("schema") == specs.STUDY_SCHEMA:
        return specs.load(str(path)).task
    value = specs.task_document(given, given_as="--task")
    return _builtin(value) if isinstance(value, str) else TaskSpec.model_validate(value)


def _recorded(exported: ExportedConfig | None) -> TaskSpec:
    if exported is None:
        raise InputError("an adapter without the evidence of a search names no task: say which with --task FILE.yaml")
    if exported.study.task not in BUILTIN_TASKS:
        raise InputError(
            f"an exported config names its task but not where the rows are, and {exported.study.task!r} is not built in: "
            "give the task's or the study's YAML with --task FILE.yaml"
        )
    return _builtin(exported.study.task)


def _builtin(name: str) -> TaskSpec:
    if name not in BUILTIN_TASKS:
        raise InputError(f"--task must be a YAML file or one of {', '.join(BUILTIN_TASKS)}, but got {quoted(name)}")
    return TaskSpec(name=name)
