"""Tasks from every kind of source, and every way in which data can be wrong."""

import gzip
import hashlib
import os
import subprocess
import sys
from importlib.resources import files

import pytest

from allocsearch.core.errors import InputError
from allocsearch.core.task import TaskSource
from allocsearch.training.examples import Example, same_answer
from allocsearch.training.splits import normalised
from allocsearch.training.tasks import load_task
from tests.training.films import film_rows, film_source, write_rows

POLARITY = TaskSource(name="sentence-polarity")


@pytest.fixture(scope="module")
def polarity():
    return load_task(POLARITY)


def test_the_shipped_data_are_whole(polarity):
    packed = files("allocsearch.training").joinpath("data", "sentence_polarity.tsv.gz").read_bytes()
    assert hashlib.sha256(packed).hexdigest() == "cc287b43f991199811a1ba5437765b1fe5457729784789a1ccfcdd0f04cd90ad"
    assert [len(part) for part in (polarity.train, polarity.search, polarity.test)] == [8561, 1049, 1052]
    everything = polarity.train + polarity.search + polarity.test
    assert sum(example.answer == 1 for example in everything) == 5331
    assert "Pang" in files("allocsearch.training").joinpath("data", "README.md").read_text(encoding="utf-8")


def test_the_shipped_data_do_not_leak(polarity):
    parts = [{normalised(example.prompt) for example in part} for part in (polarity.train, polarity.search, polarity.test)]
    assert not parts[0] & (parts[1] | parts[2])
    assert not parts[1] & parts[2]


def test_the_shipped_task_reads_as_a_review(polarity):
    example = polarity.train[0]
    assert example.prompt.startswith("Review: ")
    assert example.prompt.endswith("\nSentiment:")
    assert example.completions == (" negative", " positive")
    assert (polarity.metric, polarity.num_leaked) == ("choice", 0)


def test_a_task_is_the_same_in_every_process(polarity):
    code = """if True:
        from allocsearch.core.task import TaskSource
        from allocsearch.training.tasks import load_task
        print(load_task(TaskSource(name="sentence-polarity")).digest)"""
    for seed in ("0", "1"):
        done = subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == polarity.digest == "57cf7f849526537b"


def test_a_built_in_task_takes_another_template():
    task = load_task(TaskSource(name="sentence-polarity", template="{text}\nFeeling: ", max_rows=1000))
    assert task.train[0].prompt.endswith("\nFeeling:")
    assert len(task.train) + len(task.search) + len(task.test) == 1000


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".json", ".jsonl", ".parquet"])
def test_every_format_gives_the_same_task(tmp_path, suffix):
    expected = load_task(film_source(write_rows(tmp_path / "reference.json", film_rows())))
    assert len(expected.train) + len(expected.search) + len(expected.test) == 60
    assert {(example.prompt, example.answer) for example in expected.train} <= {(f"the {n}th, film is", n % 2) for n in range(60)}
    assert load_task(film_source(write_rows(tmp_path / f"films{suffix}", film_rows()))) == expected


def test_text_formats_may_be_gzipped_and_carry_a_byte_order_mark(tmp_path):
    plain = write_rows(tmp_path / "films.csv", film_rows())
    expected = load_task(film_source(plain))
    content = b"\xef\xbb\xbf" + (tmp_path / "films.csv").read_bytes()
    (tmp_path / "films.csv.gz").write_bytes(gzip.compress(content))
    assert load_task(film_source(f"{plain}.gz")) == expected


def test_quotes_are_characters_in_tsv(tmp_path):
    path = tmp_path / "films.tsv"
    path.write_text("text\tlabel\n" + "".join(f'"unpaired {n}\t{n % 2}\n' for n in range(60)))
    assert load_task(film_source(path)).train[0].prompt.startswith('"unpaired')


@pytest.mark.parametrize("settings", [
    {"label_column": "word"},
    {"label_column": "word", "choices": None},
    {"label_column": "label"},
])  # fmt: skip
def test_labels_may_be_texts_or_indices(tmp_path, settings):
    path = write_rows(tmp_path / "films.jsonl", film_rows())
    assert load_task(film_source(path, **settings)) == load_task(film_source(path))


def test_labels_of_other_forms(tmp_path):
    def answers(labels, **settings):
        path = write_rows(tmp_path / "films.json", [{"text": f"{n}", "label": labels[n % len(labels)]} for n in range(60)])
        return {int(example.prompt.split()[0]) % len(labels): example.answer for example in load_task(film_source(path, **settings)).train}

    assert answers([False, True]) == {0: 0, 1: 1}
    assert answers([False, True], choices=("true", "false")) == {0: 1, 1: 0}  # a bool that is among the texts is a text
    assert answers(["BAD ", "Good"]) == {0: 0, 1: 1}
    assert answers(["0", "1"]) == {0: 0, 1: 1}
    assert answers([1.0, 0.0]) == {0: 1, 1: 0}
    assert answers(["1", "2"], choices=("1", "2")) == {0: 0, 1: 1}  # texts first
    with pytest.raises(InputError, match=r"'label' in row 1 of .* is '0'"):
        answers(["0", "1"], choices=("1", "2"))  # a text that could be an index is never guessed


@pytest.mark.parametrize(("value", "labels"), [
    ({"text": ["sun", "moon", "sea"], "label": ["A", "B", "C"]}, ["A", "B", "C"]),
    ({"text": ["sun", "moon", "sea"], "label": ["1", "2", "3"]}, ["1", "2", "3"]),
    (["sun", "moon", "sea"], [0, 1, 2]),
    (["sun", "moon", "sea"], ["A", "B", "C"]),
    (["sun", "moon", "sea"], ["sun", "moon", "sea"]),
])  # fmt: skip
def test_a_rows_own_choices(tmp_path, value, labels):
    rows = [{"question": f"what {n}?", "choices": value, "key": labels[n % 3]} for n in range(90)]
    path = write_rows(tmp_path / "questions.jsonl", rows)
    plain = load_task(TaskSource(name="q", path=path, template="{question}\n", label_column="key", choices_column="choices"))
    for example in plain.train:
        assert example.completions == ("sun", "moon", "sea")
        assert example.answer == int(example.prompt.removeprefix("what ").removesuffix("?\n")) % 3
    lettered = load_task(
        TaskSource(name="q", path=path, template="{question}\n{choices}\nAnswer:", label_column="key", choices_column="choices")
    )
    assert lettered.train[0].prompt.endswith("?\nA. sun\nB. moon\nC. sea\nAnswer:")
    assert lettered.train[0].completions == (" A", " B", " C")


def test_generation_tasks_and_instruction_formats(tmp_path):
    rows = [{"instruction": f"add {n}", "input": None, "output": f"It is {n}"} for n in range(60)]
    path = write_rows(tmp_path / "sums.json", rows)
    task = load_task(TaskSource(name="sums", path=path, template="{instruction}{input}\n\n", answer_column="output"))
    assert task.metric == "exact_match"
    example = task.train[0]
    assert example.choices == ()
    assert example.completions == (example.answer,)
    assert example.prompt.endswith("\n\n")


@pytest.mark.parametrize(("generated", "answer", "same"), [
    ("Paris", "paris.", True),
    (" Paris\nIt is the capital", "Paris", True),
    ("1,000", "1000.0", True),
    ("$18", "18", True),
    ("17", "18", False),
    ("so 3 + 4 = 7\n#### 7\nmore", "three and four\n#### 7", True),
    ("7", "three and four\n#### 7", False),
    ("", "7", False),
])  # fmt: skip
def test_answers_are_compared_by_what_they_say(generated, answer, same):
    assert same_answer(generated, answer) is same


def test_test_rows_may_come_from_a_file_of_their_own(tmp_path, caplog):
    path, test_path = write_rows(tmp_path / "train.csv", film_rows()), write_rows(tmp_path / "test.csv", film_rows()[:4])
    with caplog.at_level("INFO", logger="allocsearch"):
        task = load_task(film_source(path, test_path=test_path))
    assert len(task.test) == task.num_leaked == 4
    assert len(task.train) + len(task.search) == 56
    assert "4 rows also stand in the test data" in caplog.text


def test_hub_data_use_the_data_sets_own_label_names(monkeypatch):
    import datasets

    asked = []
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["bad", "good"])})

    def load(name, config, **options):
        asked.append((name, config, options))
        rows = film_rows(60) if options["split"] == "train" else [{"text": "unseen", "label": 1}]
        return datasets.Dataset.from_list([{"text": row["text"], "label": row["label"]} for row in rows], features=features)

    monkeypatch.setattr(datasets, "load_dataset", load)
    monkeypatch.setattr("allocsearch.training.records.hub_reachable", lambda: True)
    source = TaskSource(
        name="films", hub="owner/films", config="plain", revision="v1", test_split="test", template="{text} is", label_column="label"
    )
    task = load_task(source)
    assert task.train[0].choices == ("bad", "good")
    assert [example.prompt for example in task.test] == ["unseen is"]
    assert asked == [("owner/films", "plain", {"split": split, "revision": "v1"}) for split in ("train", "test")]


def test_a_folder_is_not_read_for_a_hub_data_set_of_that_name(tmp_path, monkeypatch):
    (tmp_path / "films").mkdir()
    (tmp_path / "films" / "private.csv").write_text("text,label\nsecret,0\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="must be the id of a data set, but 'films' lies here"):
        load_task(TaskSource(name="films", hub="films", template="{text} is", label_column="label"))
    (tmp_path / "films" / "private.csv").rename(tmp_path / "private.csv")
    for form in ("csv", "text", "pandas"):  # the client would look for such files here
        with pytest.raises(InputError, match=f"must be the id of a data set, but '{form}' is a format"):
            load_task(TaskSource(name="films", hub=form, template="{text} is", label_column="label"))


def test_a_hub_data_set_without_a_network_is_one_line_at_once(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    source = TaskSource(name="films", hub="no-such-owner-here/films", template="{text} is", label_column="label")
    with pytest.raises(InputError, match=r"'no-such-owner-here/films/train' cannot be loaded .*give a `path`") as caught:
        load_task(source)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("settings", "message"), [
    ({"name": "no-such-task"}, "must give `hub` or `path`, or be one of sentence-polarity"),
    ({"hub": "a/b"}, "one origin"),
    ({"hub": "a/b", "path": None, "test_path": "c"}, "`test_path` belongs to a task with `path`"),
    ({"test_split": "test"}, "`test_split` belongs to a task with `hub`"),
    ({"template": None}, "must have a template"),
    ({"template": "no column"}, "at least one column"),
    ({"template": "{text"}, "braces must enclose"),
    ({"template": "{text.__class__}"}, "may only name columns"),
    ({"template": "{text!r}"}, "may only name columns"),
    ({"template": "{text:>9}"}, "may only name columns"),
    ({"template": "{}"}, "may only name columns"),
    ({"label_column": None}, "either a `label_column`"),
    ({"answer_column": "text"}, "either a `label_column`"),
    ({"answer_column": "text", "label_column": None}, "a generation task has no choices"),
    ({"choices_column": "options"}, "has both"),
    ({"choices": ("one",)}, "at least two distinct texts"),
    ({"choices": ("one", "one")}, "at least two distinct texts"),
    ({"choices": ("one", " ")}, "at least two distinct texts"),
    ({"max_rows": 0}, "`max_rows >= 1`"),
])  # fmt: skip
def test_a_source_that_contradicts_itself_is_refused(settings, message):
    base = {} if "name" in settings else {"path": "films.csv"}
    given = {"name": "films", "template": "{text}", "label_column": "label", "choices": ("bad", "good"), **base, **settings}
    with pytest.raises(InputError, match=message):
        TaskSource(**given)


def test_an_example_checks_its_answer():
    for choices, answer in ((("a", "b"), 2), (("a", "b"), "a"), ((), 1)):
        with pytest.raises(InputError):
            Example("prompt", choices, answer)
