"""JSON schemas: of the documents that users write, for completion in an editor, and of what commands print with `--json`.

They are generated from the pydantic models by `.ci/schemas` and committed in `schemas/`, so that an editor can use them from a checkout, an
installed package and a URL alike.
"""

import json
from collections.abc import Mapping
from difflib import get_close_matches
from importlib.resources import files
from typing import Any, Final

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

from allocsearch.core.errors import InputError, quoted, shown
from allocsearch.exported import ExportedConfig
from allocsearch.outputs import OUTPUTS
from allocsearch.spec import SpaceSpec, StudySpec, TaskSpec

_DRAFT: Final = "https://json-schema.org/draft/2020-12/schema"
_DOCUMENTS: Final[Mapping[str, Any]] = {"study": StudySpec, "space": SpaceSpec, "task": TaskSpec, "export": ExportedConfig}


def names() -> list[str]:
    """`study`, `space`, `task`, `export`, and `output-COMMAND` for each command with `--json`."""
    return [*_DOCUMENTS, *map(output_name, OUTPUTS)]


def output_name(command: str) -> str:
    """The schema's name for a command such as `db check`."""
    return "output-" + command.replace(" --", "-").replace(" ", "-")


def text(name: str) -> str:
    """The committed schema of that name.

    Raises:
        InputError: where there is none, with the nearest name.
    """
    if name not in names():
        near = get_close_matches(name, names(), n=1)
        hint = f"did you mean {near[0]!r}?" if near else "--schema list names them"
        raise InputError(f"--schema must be one of {shown(names())}, but got {quoted(name)}: {hint}")
    return files("allocsearch").joinpath("schemas", f"{name}.json").read_text(encoding="utf-8")


def generated() -> dict[str, str]:
    """Every schema as text, by name."""
    models = {**_DOCUMENTS, **{output_name(command): model for command, model in OUTPUTS.items()}}
    return {name: _text(name, model) for name, model in models.items()}


class _Plain(GenerateJsonSchema):
    """Without a title for each key: editors show the key itself."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002 - the generator's hook
        return False


def _text(name: str, model: Any) -> str:
    schema = TypeAdapter(model).json_schema(schema_generator=_Plain)
    return json.dumps({"$schema": _DRAFT, **schema, "title": f"allocsearch {name}"}, indent=1, ensure_ascii=False) + "\n"
