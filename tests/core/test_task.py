"""Where a task's rows come from: every contradiction is refused in one line."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from allocsearch.core.errors import InputError
from allocsearch.core.task import BUILTIN_TASKS, TaskSource, template_columns

CHOICE = {"name": "t", "path": "rows.csv", "template": "{text}", "label_column": "y"}


def test_good_sources():
    assert TaskSource(name=BUILTIN_TASKS[0]).is_builtin
    assert not TaskSource(**CHOICE).is_builtin
    assert TaskSource(**CHOICE, choices=["a", "b"]).choices == ("a", "b")
    assert TaskSource(name="t", hub="x/y", split="a", test_split="b", template="{q}", answer_column="a").hub == "x/y"


BAD = [
    ({"name": "mine"}, "must give `hub` or `path`, or be one of sentence-polarity, but got 'mine' alone"),
    ({**CHOICE, "name": "a\n# b"}, "must be one line of printable characters, but got 'a\\n# b'"),
    ({**CHOICE, "name": "a\u202eb"}, "must be one line of printable characters"),
    ({**CHOICE, "name": " "}, "must be one line of printable characters"),
    ({**CHOICE, "hub": "x"}, "must have one origin"),
    *[
        ({**CHOICE, "path": None, "hub": hub}, "must be the id of a data set")
        for hub in ("/etc", "../x", "x/..", "~/x", "a/b/c", "", "s3://b")
    ],
    ({**CHOICE, "max_rows": 0}, "`max_rows >= 1` must hold"),
    ({**CHOICE, "config": "c"}, "`config` belongs to a task with `hub`"),
    ({**CHOICE, "revision": "c"}, "`revision` belongs to a task with `hub`"),
    ({**CHOICE, "test_split": "c"}, "`test_split` belongs to a task with `hub`"),
    ({"name": "t", "hub": "x", "template": "{a}", "label_column": "y", "test_path": "p"}, "`test_path` belongs to a task with `path`"),
    ({**CHOICE, "template": None}, "must have a template"),
    ({**CHOICE, "template": "Review:"}, "must show at least one column"),
    ({**CHOICE, "template": "{text"}, "braces must enclose column names"),
    ({**CHOICE, "template": "{}"}, "may only name columns"),
    ({**CHOICE, "template": "{0}"}, "may only name columns"),
    ({**CHOICE, "template": "{text!r}"}, "may only name columns"),
    ({**CHOICE, "template": "{text:>9}"}, "may only name columns"),
    ({**CHOICE, "template": "{text.__class__}"}, "may only name columns"),
    ({**CHOICE, "template": "{text[0]}"}, "may only name columns"),
    ({**CHOICE, "answer_column": "a"}, "either a `label_column` (choices) or an `answer_column`"),
    ({**CHOICE, "label_column": None}, "either a `label_column` (choices) or an `answer_column`"),
    ({**CHOICE, "choices": ("a", "b"), "choices_column": "c"}, "has both: remove one"),
    ({**CHOICE, "label_column": None, "answer_column": "a", "choices": ("a", "b")}, "a generation task has no choices"),
    ({**CHOICE, "choices": ("a",)}, "at least two distinct texts"),
    ({**CHOICE, "choices": ("a", "a")}, "at least two distinct texts"),
    ({**CHOICE, "choices": ("a", " ")}, "at least two distinct texts"),
]


@pytest.mark.parametrize(("fields", "says"), BAD)
def test_a_contradiction_is_refused(fields, says):
    with pytest.raises(InputError) as caught:
        TaskSource(**fields)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("template", "columns"), [("{a} and {b} and {a}", ("a", "b")), ("{{a}}", ()), ("{two words}", ("two words",)), ("", ())]
)
def test_the_columns_of_a_template(template, columns):
    assert template_columns(template) == columns


@given(st.text(alphabet="{}ab!:.[]0 ", max_size=12))
def test_any_template_has_columns_or_is_an_input_error(template):
    try:
        columns = template_columns(template)
    except InputError as error:
        assert "\n" not in str(error)
    else:
        assert template.format_map(dict.fromkeys(columns, "x")) is not None
