"""A `TaskSource` turned into a `Task`: read, made into examples, split."""

import logging
from dataclasses import dataclass, replace
from typing import Final

from allocsearch.core.task import TaskSource
from allocsearch.training.examples import Example, Metric, Task, digest_of, same_answer
from allocsearch.training.prompts import classes_of, examples_of
from allocsearch.training.records import Records, read_builtin, read_file, read_hub
from allocsearch.training.splits import batches, in_hash_order, select, split

__all__ = ["BUILTIN_TASKS", "Example", "Metric", "Task", "batches", "load_task", "same_answer", "select"]

_LOG: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BuiltinTask:
    """A data file that ships with the package, with how its rows are read."""

    file_name: str
    about: str
    attribution: str
    licence: str
    template: str
    choices: tuple[str, ...]
    label_column: str


BUILTIN_TASKS: Final = {
    "sentence-polarity": BuiltinTask(
        file_name="sentence_polarity.tsv.gz",
        about="10,662 snippets of film reviews, positive or negative",
        attribution="Bo Pang and Lillian Lee, sentence polarity dataset v1.0 (ACL 2005)",
        licence="CC-BY-4.0",
        template="Review: {text}\nSentiment:",
        choices=("negative", "positive"),
        label_column="label",
    ),
}


def load_task(source: TaskSource) -> Task:
    """Read the rows of `source`, make examples of them, and split them into train, search and test.

    Raises:
        InputError: where data, columns or labels are not what `source` says; the message names file, row and remedy.
    """
    source, pool, test = _read(source)
    classes = classes_of(pool, source)
    parts = split(
        _capped(examples_of(pool, source, classes=classes), source.max_rows),
        None if test is None else _capped(examples_of(test, source, classes=classes), source.max_rows),
    )
    if parts.num_leaked:
        _LOG.info("%s: %d rows also stand in the test data and were left out of train and search", source.name, parts.num_leaked)
    metric: Metric = "choice" if source.answer_column is None else "exact_match"
    return Task(
        name=source.name,
        train=parts.train,
        search=parts.search,
        test=parts.test,
        metric=metric,
        digest=digest_of(metric, parts.train, parts.search, parts.test),
        num_leaked=parts.num_leaked,
    )


def _read(source: TaskSource) -> tuple[TaskSource, Records, Records | None]:
    """The rows to split and the test rows, if they come apart; a built-in source with its blanks filled in."""
    if source.path is not None:
        return source, read_file(source.path), None if source.test_path is None else read_file(source.test_path)
    if source.hub is not None:
        return source, read_hub(source, source.split), None if source.test_split is None else read_hub(source, source.test_split)
    known = BUILTIN_TASKS[source.name]
    filled = replace(
        source,
        template=source.template or known.template,
        choices=source.choices or known.choices,
        label_column=known.label_column,
    )
    return filled, read_builtin(known.file_name), None


def _capped(examples: list[Example], max_rows: int | None) -> tuple[Example, ...] | list[Example]:
    return examples if max_rows is None else in_hash_order(examples)[:max_rows]
