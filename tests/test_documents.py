"""Reading YAML files: whatever they hold, one line says what is wrong and where."""

import os

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from allocsearch import documents, spec
from allocsearch.core.errors import InputError
from tests import strategies as _  # noqa: F401 - loads the Hypothesis profile


def refusal(path):
    with pytest.raises(InputError) as caught:
        documents.read(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert message.count(str(path)) == 1
    assert "\n" not in message
    return message.removeprefix(f"{path}: ")


@pytest.fixture
def write(tmp_path):
    def to(content):
        path = tmp_path / "document.yaml"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return to


def test_a_document_is_a_mapping(write):
    assert documents.read(write("a: 1\nb: [x, {c: 2}]\n")) == {"a": 1, "b": ["x", {"c": 2}]}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("a: 1\nb: 2\na: 3\n", "line 3: the key `a` is given twice"),
        ("a:\n  b: 1\n  c: 2\n  b: 3\n", "line 4: the key `b` is given twice"),
        ("a: [1, {x: 1, x: 2}]\n", "line 1: the key `x` is given twice"),
        ("a: [1, 2\nb: 3\n", "line 2: "),
        ("a: 1\n\tb: 2\n", "line 2: "),
        ("a: *nothing\n", "line 1: found undefined alias 'nothing'"),
        ("a: !!python/object:os.system x\n", "line 1: could not determine a constructor"),
        ("&a [*a]\n", "must be a mapping of keys to values, but it is list"),
        ("&a {x: *a}\n", "line 1: found unconstructable recursive node"),
        ("", "must be a mapping of keys to values, but it is empty"),
        ("# nothing\n", "must be a mapping of keys to values, but it is empty"),
        ("- 1\n", "must be a mapping of keys to values, but it is list"),
        ("just text\n", "must be a mapping of keys to values, but it is str"),
        ("a: 1\n2: b\n", "line 2: each key must be text, but got '2'"),
        ("a: 1\nyes: b\n", "line 2: each key must be text, but got 'yes'"),
        ("a: 2020-99-99\n", "the file must be one YAML document in UTF-8, but: month must be in 1..12"),
        ("a: !!int ''\n", "the file must be one YAML document in UTF-8, but: "),
        ("a: !!bool maybe\n", "the file must be one YAML document in UTF-8, but: "),
        ("a: !!timestamp x\n", "the file must be one YAML document in UTF-8, but: "),
        ("a: " + "9" * 5000, "the file must be one YAML document in UTF-8, but: "),
        ("[" * 20_000, "the file must be one YAML document in UTF-8, but: "),
        (b"\xff\xfe\x00", "the file must be one YAML document in UTF-8, but: 'utf-8' codec can't decode byte 0xff in position 0"),
        (b"a: \x07", "the file must be one YAML document in UTF-8, but: "),
        ("a: 1\n---\nb: 2\n", "line 2: but found another document"),
        ("x: &a [1, 2, 3]\n" + "y: " + "1" * 4_100_000, "a document must be at most 4,000,000 bytes, but it has 4,100,019"),
    ],
)
def test_a_file_that_is_no_document_says_what_and_where(write, content, says):
    assert says in refusal(write(content))


def test_a_mapping_may_be_merged_into_another(write):
    assert documents.read(write("a: &a {x: 1, y: 2}\nb:\n  <<: *a\n  y: 3\n"))["b"] == {"x": 1, "y": 3}


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    assert refusal(tmp_path / "absent.yaml") == "the file must be readable, but: No such file or directory"
    assert refusal(tmp_path) == "the file must be readable, but: Is a directory"


def test_a_bomb_of_aliases_is_as_large_as_its_text(write):
    """Aliases share what they name, so nothing grows."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]", *(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 30))]
    document = documents.read(write("\n".join(lines)))
    assert len(document) == 30
    assert document["a29"][0] is document["a29"][8]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200))
@example(b"a: !!float ''")
@example(b"? [1]\n: 2")
@example(b"a: !!binary \xc3\xa9")
def test_any_bytes_are_a_mapping_or_an_input_error(write, content):
    path = write(content)
    try:
        document = documents.read(path)
    except InputError as error:
        assert "\n" not in str(error)
        assert str(error).startswith(str(path))
    else:
        assert isinstance(document, dict)


yaml_texts = st.text(alphabet="ab:-?[]{}!&*#|>'\"%@` \n\t,.0159<=~", max_size=60)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
@given(yaml_texts)
def test_any_text_is_a_mapping_or_an_input_error(write, content):
    path = write(content)
    try:
        assert isinstance(documents.read(path), dict)
    except InputError as error:
        assert "\n" not in str(error)


def test_names_come_before_paths_and_hints_name_the_nearest(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert documents.find("hilo", "search_spaces").name == "hilo.yaml"
    with pytest.raises(InputError, match=r"search_spaces: 'hillo' must be a file or one of .*: did you mean 'hilo'\?"):
        documents.find("hillo", "search_spaces")
    (tmp_path / "mine.yaml").touch()
    assert documents.find("mine.yaml", "studies") == documents.find(str(tmp_path / "mine.yaml"), "studies").relative_to(tmp_path)
    assert documents.find("mine.yaml", "studies", beside=documents.Beside(tmp_path)) == tmp_path / "mine.yaml"


@pytest.mark.parametrize("source", ["", ".", "x" * 300, "a\0b", "~no-such-user-here/x.yaml", "/", "nowhere/x.yaml", "a\nb"])
def test_what_is_neither_a_name_nor_a_file_is_an_input_error(source):
    with pytest.raises(InputError) as caught:
        documents.find(source, "studies")
    assert "must be a file or one of" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_every_shipped_document_is_valid():
    spaces, studies = documents.named("search_spaces"), documents.named("studies")
    assert {"mola", "hilo", "hilo-monotone", "uniform", "free"} <= set(spaces)
    assert "quickstart" in studies
    for name in spaces:
        loaded = spec.load_space(name)
        assert loaded.name == name
        assert loaded.about
    for name in studies:
        assert spec.load(name).name == name


def test_shipped_documents_are_short_of_tabs_and_aliases():
    """They are read by people first."""
    for path in [*documents.named("search_spaces").values(), *documents.named("studies").values()]:
        text = path.read_text(encoding="utf-8")
        assert "\t" not in text
        assert text.endswith(os.linesep)
        assert not any(isinstance(token, yaml.AliasToken) for token in yaml.scan(text))
