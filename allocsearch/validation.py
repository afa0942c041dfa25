"""Checking a YAML file of any of our schemas."""

from pathlib import Path
from typing import Final

from pydantic import BaseModel

from allocsearch import documents
from allocsearch import spec as specs
from allocsearch.core.errors import InputError, shown
from allocsearch.exported import SCHEMA, ExportedConfig

_MODELS: Final[dict[str, type[BaseModel]]] = {
    specs.SPACE_SCHEMA: specs.SpaceSpec,
    specs.TASK_SCHEMA: specs.TaskSpec,
    SCHEMA: ExportedConfig,
}


def validate(path: Path) -> str:
    """The schema that `path` is a valid document of.

    Raises:
        InputError: one line with file, line, key and remedy.
    """
    data = documents.read(path)
    schema = data.get("schema")
    if schema == specs.STUDY_SCHEMA:
        specs.load(str(path.absolute()))  # a study also names other documents
        return specs.STUDY_SCHEMA
    if schema not in _MODELS:
        known = shown([specs.STUDY_SCHEMA, *_MODELS])
        raise InputError(f"{path}: the key `schema` must be one of {known}, but it is {schema!r}")
    documents.validated(_MODELS[schema], data, where=str(path), path=path)
    return str(schema)
