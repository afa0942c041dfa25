"""A task as YAML."""

from typing import Final, Literal

from pydantic import Field, model_validator

from allocsearch.core.task import TaskSource
from allocsearch.space_spec import Closed, Positive

TASK_SCHEMA: Final = "allocsearch/task/v1"


class TaskSpec(Closed):
    """Where a task's rows come from and how they become prompts: a built-in `name`, a hub data set, or a local file."""

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
