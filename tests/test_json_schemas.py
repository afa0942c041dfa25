"""Schemas for editors and for programs: current, and true of what is shipped."""

import json
from pathlib import Path

import jsonschema
import pytest
import yaml

import allocsearch
from allocsearch import json_schemas
from allocsearch.core.errors import InputError
from allocsearch.documents import named
from allocsearch.outputs import OUTPUTS
from tests.commands import commands
from tests.schemas import check_output, validator

COMMITTED = Path(allocsearch.__file__).parent / "schemas"
SHIPPED = [(kind, path) for kind, folder in (("study", "studies"), ("space", "search_spaces")) for path in named(folder).values()]


def test_the_committed_schemas_are_current():
    """After a change: .ci/schemas .venv/bin/python."""
    assert {path.stem: path.read_text(encoding="utf-8") for path in COMMITTED.glob("*.json")} == json_schemas.generated()


@pytest.mark.parametrize(("kind", "path"), SHIPPED, ids=lambda value: getattr(value, "stem", value))
def test_what_is_shipped_fits_its_schema(kind, path):
    validator(kind).validate(yaml.safe_load(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    ("kind", "document", "where"),
    [
        ("study", {"trails": 3}, "trails"),
        ("study", {"warm_starts": ["mola-9999"]}, "mola-9999"),
        ("study", {"sampler": "gp"}, "gp"),
        ("space", {"parts": {"head": {"rank": {"choices": [1]}}}}, "head"),
        ("task", {"name": "t", "lable_column": "label"}, "lable_column"),
    ],
)
def test_an_editor_would_mark_a_mistake(kind, document, where):
    whole = {
        "study": {"schema": "allocsearch/study/v1", "name": "a", "model": "m", "task": "t", "space": "hilo", "budget": "1%"},
        "space": {"schema": "allocsearch/space/v1", "name": "a"},
        "task": {},
    }[kind]
    with pytest.raises(jsonschema.ValidationError, match=where):
        validator(kind).validate({**whole, **document})


def test_every_command_that_prints_json_has_a_schema():
    printing = {path for path, command in commands().items() if any("--json" in parameter.opts for parameter in command.params)}
    assert printing | {"run --dry-run"} == set(OUTPUTS)


def test_an_output_with_a_key_that_nobody_declared_is_refused():
    fine = {"name": "m", "path": "/m", "sha256": "0"}
    check_output(["models", "pull", "m", "--json"], json.dumps(fine))
    with pytest.raises(AssertionError, match="digest"):
        check_output(["models", "pull", "m", "--json"], json.dumps({**fine, "digest": "0"}))


def test_an_unknown_schema_names_the_nearest():
    with pytest.raises(InputError, match="'study'"):
        json_schemas.text("studdy")
