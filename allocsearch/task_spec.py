"""A task as YAML."""

import re
from typing import Any, Final, Literal

from pydantic import ConfigDict, Field, model_validator

from allocsearch.core.task import TaskSource
from allocsearch.space_spec import Closed, Positive

TASK_SCHEMA: Final = "allocsearch/task/v1"
_ARGUMENT: Final = re.compile(r"^ {8}(\w+): (.+(?:\n {12}.+)*)", re.MULTILINE)


def _describe(schema: dict[str, Any]) -> None:
    """Put the core value's account of its arguments into the JSON schema."""
    for name, text in _ARGUMENT.findall(TaskSource.__doc__ or ""):
        schema["properties"][name]["description"] = " ".join(text.split())


class TaskSpec(Closed):
    """Where a task's rows come from and how they become prompts: a built-in `name`, a hub data set, or a local file."""

    model_config = ConfigDict(json_schema_extra=_describe)

    schema_version: Literal["allocsearch/task/v1"] = Field(default=TASK_SCHEMA, alias="schema")
    name: str
    hub: str | None = None
    config: str | None = None
    revision: str | None = None
    split: str = "train"
    test_split: str | None = None
    path: str | None = None
    test_path: str | None = None
    template: str | None = None
    choices: tuple[str, ...] | None = None
    choices_column: str | None = None
    label_column: str | None = None
    answer_column: str | None = None
    max_rows: Positive | None = None

    def source(self) -> TaskSource:
        """As a core value."""
        return TaskSource(**self.model_dump(exclude={"schema_version"}))

    @model_validator(mode="after")
    def _is_a_task(self) -> "TaskSpec":
        self.source()
        return self
