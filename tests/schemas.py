"""Documents against the committed JSON schemas."""

import json
from functools import cache

from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

from allocsearch import json_schemas
from tests.commands import command_of


@cache
def validator(name):
    schema = json.loads(json_schemas.text(name))
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def check_output(arguments, stdout):
    """Holds what a command printed with `--json` against its schema."""
    command = command_of(arguments)
    found = best_match(validator(json_schemas.output_name(command)).iter_errors(json.loads(stdout)))
    assert found is None, f"{command} --json at {found.json_path}: {found.message}; after declaring it in allocsearch/outputs: .ci/schemas"
