"""Every way in which a data file can be wrong is one clear line."""

import gzip

import pytest

from allocsearch.core.errors import InputError
from allocsearch.training import records
from allocsearch.training.tasks import load_task
from tests.training.films import film_rows, film_source, write_rows

BROKEN = {
    "empty.csv": (b"", "at least one row"),
    "header.csv": (b"text,label\n", "at least one row"),
    "empty.jsonl": (b"\n\n", "at least one row"),
    "empty.json": (b"[]", "at least one row"),
    "latin.csv": (b"text,label\ncaf\xe9,1\n", r"must be UTF-8, but .* has byte 0xe9 at offset 14"),
    "utf16.tsv": ("text\tlabel\na\t1\n".encode("utf-16"), "must be UTF-8"),
    "ragged.csv": (b"text,label\na,1\nb,c,1\n", "header's 2 fields, but line 3 .* has 3"),
    "quote.csv": (b'text,label\n"a,1\n', "line 2 .* is not"),
    "twice.csv": (b"text,text\na,b\n", "distinct names"),
    "cut.json": (b'[{"text": "a"', "is not JSON"),
    "object.json": (b'{"text": "a"}', "list of objects"),
    "cut.jsonl": (b'{"text": "a", "label": 1}\n{"text"', "line 2 of .* is not JSON"),
    "numbers.jsonl": (b"1\n2\n", "line 1 of .* is int"),
    "uneven.jsonl": (b'{"text": "a", "label": 1}\n{"label": 1}', r"row 2 of .* has only label"),
    "cut.parquet": (b"PAR1cut", "no Parquet file"),
    "cut.csv.gz": (gzip.compress(b"text,label\n" * 999)[:-9], "damaged gzip"),
    "no.csv.gz": (b"text,label\n", "damaged gzip"),
    "films.xlsx": (b"", r"must end in one of \.csv"),
    "films": (b"", r"must end in one of \.csv"),
    "null.json": (b'[{"text": "a", "label": null}]', "`label_column` must hold"),
    "hidden.csv": (b"text,label\na,-1\n", "'label' in row 1 .* is '-1'"),
    "nested.json": (b'[{"text": {"a": 1}, "label": 1}]', "must hold text or a number"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_are_one_clear_line(tmp_path, name):
    content, message = BROKEN[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        load_task(film_source(tmp_path / name))
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_a_folder_are_one_clear_line(tmp_path):
    with pytest.raises(InputError, match="No such file or directory"):
        load_task(film_source(tmp_path / "nothing.csv"))
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(InputError, match="must be readable"):
        load_task(film_source(tmp_path / "folder.csv"))


@pytest.mark.parametrize("settings", [
    {"template": "{txet} is"},
    {"label_column": "lable"},
    {"label_column": None, "choices": None, "answer_column": "txet"},
    {"choices": None, "label_column": "lable"},
])  # fmt: skip
def test_a_missing_column_names_those_there_are_and_the_nearest(tmp_path, settings):
    path = write_rows(tmp_path / "films.csv", film_rows())
    with pytest.raises(InputError, match=r"it has id, text, label, word; the nearest is '(text|label)'"):
        load_task(film_source(path, **settings))


def test_wrong_values_name_the_row(tmp_path):
    def load(rows, **settings):
        return load_task(film_source(write_rows(tmp_path / "rows.json", rows), **settings))

    good = {"text": "a", "label": 1, "options": ["x", "y"]}
    own = {"choices": None, "choices_column": "options"}
    with pytest.raises(InputError, match="`2 <= choices <= 26` must hold for each row, but row 2"):
        load([good, {**good, "options": ["x"]}], **own)
    with pytest.raises(InputError, match=r"must hold a list of texts, or text and label lists, but 'options' in row 1 .* is 'x'"):
        load([{**good, "options": "x"}], **own)
    with pytest.raises(InputError, match="2 choices and 1 labels"):
        load([{**good, "options": {"text": ["x", "y"], "label": ["A"]}}], **own)
    with pytest.raises(InputError, match=r"one of A, B, but 'label' in row 1 .* is 1"):
        load([{**good, "options": {"text": ["x", "y"], "label": ["A", "B"]}}], **own)
    with pytest.raises(InputError, match="a prompt must not be empty, but row 2"):
        load([good, {"text": None, "label": 1}], template="{text}")
    with pytest.raises(InputError, match=r"'text' in row 1 .* is empty"):
        load([{"text": "", "label": 1}], choices=None, label_column=None, template="{label}", answer_column="text")
    with pytest.raises(
        InputError, match=r"without `choices`, the labels must be 2 to 64 texts, but column 'label' .* has 0, 1: give `choices`"
    ):
        load(film_rows(), choices=None)


def test_a_data_file_that_breaks_its_reader_without_a_word_is_still_told_in_a_line(monkeypatch):
    """A first line was taken of texts that may have none."""
    from pyarrow import parquet

    def read_table(_):
        raise OSError

    monkeypatch.setattr(parquet, "read_table", read_table)
    with pytest.raises(InputError, match=r"'rows.parquet' is no Parquet file \(OSError\)"):
        records._parquet(b"", where="rows.parquet")
