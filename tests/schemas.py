"""Documents against the committed JSON schemas."""

import json
from functools import cache

from jsonschema import Draft202012Validator

from allocsearch import json_schemas

_GROUPS = ("db", "models")


@cache
def validator(name):
    schema = json.loads(json_schemas.text(name))
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def command_of(arguments):
    """`db check` of `db check --json`, `run --dry-run` of `run study.yaml --dry-run`."""
    words = [str(argument) for argument in arguments]
    if words[0] in _GROUPS and words[1:2] and not words[1].startswith("-"):
        return " ".join(words[:2])
    return f"{words[0]} --dry-run" if "--dry-run" in words else words[0]


def check_output(arguments, stdout):
    """Holds what a command printed with `--json` against its schema."""
    validator(json_schemas.output_name(command_of(arguments))).validate(json.loads(stdout))
