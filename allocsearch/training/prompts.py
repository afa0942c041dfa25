"""From a row of columns to a prompt and its completions."""

import string
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Final

from allocsearch.core.errors import InputError, shown
from allocsearch.core.task import TaskSource, template_columns
from allocsearch.training.examples import Example
from allocsearch.training.records import Records

_MAX_CLASSES: Final = 64
_LETTERS: Final = string.ascii_uppercase


def examples_of(records: Records, source: TaskSource, *, classes: Sequence[str] | None) -> list[Example]:
    """One example per row; `classes` are the texts that the labels of `label_column` stand for (see `classes_of`).

    Raises:
        InputError: for a column that is not there, and for a value that is no text, label or list of choices; it names the row.
    """
    template = source.template or ""
    columns = [*template_columns(template), *filter(None, (source.label_column, source.answer_column, source.choices_column))]
    _check_columns(columns, records)
    found = []
    for number, row in enumerate(records.rows, start=1):
        where = f"row {number} of {records.where}"
        for column in columns:
            if column not in row:
                raise InputError(f"each row must have the column {column!r}, but {where} has only {shown(row)}")
        if source.answer_column is not None:
            found.append(Example(_filled(template, row, where=where), (), _required_text(row, source.answer_column, where=where)))
        else:
            found.append(_choice(row, template, source, classes=classes, where=where))
    return found


def classes_of(records: Records, source: TaskSource) -> tuple[str, ...] | None:
    """The texts that labels stand for: those given, else the names that the data set gives, else the labels themselves, sorted.

    None for tasks without such a list: generation, and choices that each row brings along.

    Raises:
        InputError: where labels are numbers without names, or too many to be classes.
    """
    column = source.label_column
    if column is None or source.choices_column is not None:
        return None
    if source.choices is not None:
        return source.choices
    _check_columns([column], records)
    if column in records.label_names:
        return records.label_names[column]
    labels = {row.get(column) for row in records.rows if isinstance(row.get(column), str)}
    numeric = all(_as_index(label) is not None for label in labels)
    if numeric or not 1 < len(labels) <= _MAX_CLASSES:
        raise InputError(
            f"without `choices`, the labels must be 2 to {_MAX_CLASSES} texts, but column {column!r} of {records.where} has "
            f"{shown(sorted(map(str, {row.get(column) for row in records.rows})), limit=5) or 'none'}: give `choices` in label order"
        )
    return tuple(sorted(str(label) for label in labels))


def _choice(row: Mapping[str, Any], template: str, source: TaskSource, *, classes: Sequence[str] | None, where: str) -> Example:
    value = row[source.label_column or ""]
    if source.choices_column is None:
        choices = tuple(classes or ())
        return Example(_filled(template, row, where=where), choices, _index(value, choices, source, where=where))
    texts, labels = _own_choices(row[source.choices_column], column=source.choices_column, where=where)
    answer = _index(value, texts, source, where=where, labels=labels)
    if source.choices_column not in template_columns(template):
        return Example(_filled(template, row, where=where), texts, answer)
    lettered = "\n".join(f"{letter}. {text}" for letter, text in zip(_LETTERS, texts, strict=False))
    prompt = _filled(template, {**row, source.choices_column: lettered}, where=where)
    return Example(prompt, tuple(_LETTERS[: len(texts)]), answer)


def _own_choices(value: Any, *, column: str, where: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """A row's choices and the labels that the row gives them (letters where it gives none)."""
    texts = value.get("text") if isinstance(value, Mapping) else value
    labels = value.get("label") if isinstance(value, Mapping) else None
    if not isinstance(texts, list | tuple) or not all(isinstance(text, str) and text.strip() for text in texts):
        raise InputError(
            f"`choices_column` must hold a list of texts, or text and label lists, but {column!r} in {where} is {_short(value)}"
        )
    if not 1 < len(texts) <= len(_LETTERS):
        raise InputError(f"`2 <= choices <= {len(_LETTERS)}` must hold for each row, but {where} has {len(texts)}")
    if labels is None:
        return tuple(texts), ()
    if len(labels) != len(texts):
        raise InputError(f"each choice must have a label, but {where} has {len(texts)} choices and {len(labels)} labels")
    return tuple(texts), tuple(map(str, labels))


def _index(value: Any, choices: tuple[str, ...], source: TaskSource, *, where: str, labels: tuple[str, ...] = ()) -> int:
    """Which choice a label means: by the row's own labels if it has them, else by text, by index from 0, and by letter."""
    text = str(value).strip()
    if labels:
        if text in labels:
            return labels.index(text)
    else:
        folded = [choice.strip().casefold() for choice in choices]
        if isinstance(value, str | bool) and folded.count(text.casefold()) == 1:
            return folded.index(text.casefold())
        index = _as_index(value)
        ambiguous = isinstance(value, str) and any(_as_index(choice) is not None for choice in choices)  # "1": a text or an index?
        if index is not None and 0 <= index < len(choices) and not ambiguous:
            return index
        if source.choices_column is not None and len(text) == 1 and text in _LETTERS[: len(choices)]:
            return _LETTERS.index(text)
    allowed = f"one of {shown(labels)}" if labels else f"an index from 0 to {len(choices) - 1} or one of {shown(choices, limit=6)}"
    raise InputError(
        f"`label_column` must hold {allowed}, but {source.label_column!r} in {where} is {_short(value)}: remove rows without a label"
    )


def _as_index(value: Any) -> int | None:
    """A whole number, as a number, a bool or a text; None for anything else."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return int(number) if number.is_integer() else None


def _filled(template: str, row: Mapping[str, Any], *, where: str) -> str:
    """The prompt without spaces at its end, as the completion brings its own; a null is an empty text."""
    values = {column: _text(row[column], column=column, where=where) for column in template_columns(template)}
    prompt = template.format_map(values).rstrip(" \t")
    if not prompt.strip():
        raise InputError(f"a prompt must not be empty, but {where} gives an empty one: check the template {template!r}")
    return prompt


def _text(value: Any, *, column: str, where: str) -> str:
    if value is None:
        return ""
    if isinstance(value, str | int | float):
        return str(value)
    raise InputError(f"a template's column must hold text or a number, but {column!r} in {where} is {_short(value)}")


def _required_text(row: Mapping[str, Any], column: str, *, where: str) -> str:
    text = _text(row[column], column=column, where=where)
    if not text.strip():
        raise InputError(f"`answer_column` must hold a text, but {column!r} in {where} is empty: remove rows without an answer")
    return text


def _check_columns(columns: Sequence[str], records: Records) -> None:
    present = list(records.rows[0])
    for column in columns:
        if column not in present:
            nearest = get_close_matches(column, map(str, present), n=1, cutoff=0.0)
            raise InputError(
                f"a task's columns must be in its data, but {records.where} has no {column!r}: "
                f"it has {shown(present)}; the nearest is {nearest[0] if nearest else 'none'!r}"
            )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."  # noqa: PLR2004 - a line's worth
