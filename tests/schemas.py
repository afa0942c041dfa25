"""Documents against the committed JSON schemas."""

import json
from functools import cache

from jsonschema import Draft202012Validator

from allocsearch import json_schemas
from tests.commands import command_of


@cache
def validator(name):
    schema = json.loads(json_schemas.text(name))
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def check_output(arguments, stdout):
    """Holds what a command printed with `--json` against its schema."""
    validator(json_schemas.output_name(command_of(arguments))).validate(json.loads(stdout))
