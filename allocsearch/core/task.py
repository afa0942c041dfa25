"""`TaskSource`: where a task's rows come from and how a row becomes a prompt with its answer. A value; reading is `training`'s."""

import re
import string
from dataclasses import dataclass
from typing import Final

from allocsearch.core.errors import InputError, quoted, shown

BUILTIN_TASKS: Final = ("sentence-polarity",)
"""Names that need neither a hub data set nor a file."""
_HUB_ID: Final = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?", re.ASCII)  # no path of a machine


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSource:
    """A task as its author states it.

    Rows come from a built-in task (`name` alone), a hub data set (`hub`) or a local file (`path`: CSV, TSV, JSON, JSONL, Parquet).
    A row is one of three kinds: a *choice* among fixed texts (`label_column`, and `choices` unless the labels are texts themselves), a
    *choice* among the row's own texts (`label_column` and `choices_column`), or a *generation* with a text answer (`answer_column`).

    Attributes:
        name: what tables and reports call the task: one line.
        hub: id of a data set on the Hugging Face hub.
        config: the hub data set's configuration, such as `ARC-Easy`.
        revision: the hub data set's branch, tag or commit.
        split: the hub split that train and search rows come from; test rows too where there is no `test_split`.
        test_split: the hub split of the test rows.
        path: the file with the rows.
        test_path: a file with the test rows; without one they are split off `path`.
        template: the prompt, with columns in braces: `Review: {text} Sentiment:`. The completion follows after one space, or at once
            where the prompt ends in a newline. Doubled braces stand for themselves. A template that shows the `choices_column` lists
            the choices with letters, and the letters are what is scored.
        choices: the texts that labels stand for, in the order of integer labels from 0.
        choices_column: a column with the row's own choices: a list of texts, or `{"text": […], "label": […]}`.
        label_column: a column with the right choice: its index from 0, its text, or its letter.
        answer_column: a column with the text to generate. Where it holds `####`, only what follows that is compared.
        max_rows: at most so many rows of the data and of the test data, chosen by hash.
    """

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
    max_rows: int | None = None

    def __post_init__(self) -> None:
        if self.choices is not None:
            object.__setattr__(self, "choices", tuple(self.choices))
        if self.max_rows is not None and self.max_rows < 1:
            raise InputError(f"`max_rows >= 1` must hold, but got {self.max_rows}")
        if not self.name.strip() or not self.name.isprintable():
            raise InputError(f"a task's name must be one line of printable characters, but got {self.name!r}")
        self._check_origin()
        if self.template is not None and not template_columns(self.template):
            raise InputError(f"a template must show at least one column, such as {{text}}, but got {self.template!r}")
        if not self.is_builtin:
            self._check_kind()

    @property
    def is_builtin(self) -> bool:
        """Whether the rows come with the package."""
        return self.hub is None and self.path is None

    def _check_origin(self) -> None:
        if self.hub is not None and not _HUB_ID.fullmatch(self.hub):
            raise InputError(f"`hub` must be the id of a data set, such as allenai/ai2_arc, but {self.name!r} has {quoted(self.hub)}")
        if self.hub is not None and self.path is not None:
            raise InputError(f"a task must have one origin, but {self.name!r} has hub {self.hub!r} and path {self.path!r}: remove one")
        if self.is_builtin and self.name not in BUILTIN_TASKS:
            raise InputError(f"a task must give `hub` or `path`, or be one of {shown(BUILTIN_TASKS)}, but got {self.name!r} alone")
        for field, origin in (("config", "hub"), ("revision", "hub"), ("test_split", "hub"), ("test_path", "path")):
            if getattr(self, field) is not None and getattr(self, origin) is None:
                raise InputError(f"`{field}` belongs to a task with `{origin}`, but {self.name!r} has none: remove it")

    def _check_kind(self) -> None:
        if self.template is None:
            raise InputError(f"a task must have a template, such as 'Review: {{text}}\\nSentiment:', but {self.name!r} has none")
        if (self.label_column is None) == (self.answer_column is None):
            raise InputError(
                f"a task must have either a `label_column` (choices) or an `answer_column` (generation), but {self.name!r} has "
                f"label_column {self.label_column!r} and answer_column {self.answer_column!r}"
            )
        if self.choices is not None and self.choices_column is not None:
            raise InputError(f"a task must have `choices` or a `choices_column`, but {self.name!r} has both: remove one")
        if self.answer_column is not None and (self.choices is not None or self.choices_column is not None):
            raise InputError(f"a generation task has no choices, but {self.name!r} has: give a `label_column` instead of `answer_column`")
        if self.choices is not None and not _distinct_texts(self.choices):
            raise InputError(f"`choices` must be at least two distinct texts, but {self.name!r} has {list(self.choices)}")


def _distinct_texts(choices: tuple[str, ...]) -> bool:
    return len(choices) > 1 and len(set(choices)) == len(choices) and all(choice.strip() for choice in choices)


def template_columns(template: str) -> tuple[str, ...]:
    """The columns that `template` shows, each once, in order.

    Raises:
        InputError: for braces that do not pair, and for anything in them but a column's name.
    """
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError as error:
        raise InputError(
            f"a template's braces must enclose column names, but got {template!r} ({error}): double those that are text"
        ) from error
    names = [name for _, name, _, _ in parts if name is not None]
    plain = all(not form and not conversion for _, name, form, conversion in parts if name is not None)
    if not plain or any(not name.strip() or name.isdecimal() or "." in name or "[" in name for name in names):
        raise InputError(
            f"a template may only name columns, as in {{text}}, but got {template!r}: no numbers, formats, attributes or indices"
        )
    return tuple(dict.fromkeys(names))
