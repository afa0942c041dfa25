"""Files as a disk, an editor or a stranger may leave them: whatever is read, it is read, or one line says what is wrong.

`ALLOCSEARCH_FUZZ_EXAMPLES=20000` runs each for long.
"""

import io
import json
import os
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from allocsearch import spec
from allocsearch.core.errors import InputError
from allocsearch.core.task import TaskSource
from allocsearch.training.tasks import load_task
from allocsearch.tuning.sources import exported_config
from tests.e2e.conftest import Cli

EXAMPLES = int(os.environ.get("ALLOCSEARCH_FUZZ_EXAMPLES", "10"))
ROOT = Path(__file__).parents[1]
STUDY = (ROOT / "studies" / "quickstart.yaml").read_bytes()
SPACE = (ROOT / "search_spaces" / "hilo.yaml").read_bytes()
TASK = b"name: films\npath: rows.csv\ntemplate: '{text}'\nchoices: [bad, good]\nlabel_column: label\n"
ROWS = [{"text": f"film {i}", "label": i % 2} for i in range(12)]
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.sampled_from([10**400, -1, 0, 2**63, 1e308, float("nan"), float("inf")]),
    st.text(max_size=8), st.sampled_from(["50M-params", "{text}", "../..", "/", "\x00", "'", "🙂", "a: b", "=1+1"]), st.binary(max_size=4),
)  # fmt: skip
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3), max_leaves=6
)


def deep(levels):
    value = 1
    for _ in range(levels):
        value = [value]
    return value


@st.composite
def damaged_bytes(draw, content):
    """Bytes exchanged, left out or put in; the end cut off; or something else altogether."""
    changed = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(changed) - 1)))
        changed[at : at + draw(st.integers(0, 3))] = draw(st.binary(max_size=3))
    cut = draw(st.none() | st.integers(0, len(changed)))
    return draw(st.just(bytes(changed[:cut])) | st.binary(max_size=40))


@st.composite
def damaged_document(draw, content):
    """A document in which values have become others, keys have gone, and lists are nested ever deeper."""
    document = yaml.safe_load(content)
    for _ in range(draw(st.integers(1, 3))):
        place = document
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            if not keys:
                break
            key = draw(st.sampled_from(keys))
            if isinstance(place[key], dict | list) and draw(st.booleans()):
                place = place[key]
                continue
            place[key] = draw(VALUES | st.builds(deep, st.sampled_from([3, 60, 5000])))
            break
    try:
        return yaml.safe_dump(document, allow_unicode=True).encode("utf-8", "surrogatepass")
    except RecursionError:
        return b"a: " + b"[" * 5000


def refused_in_one_line(read):
    """Whether `read` refuses; it may do nothing else but succeed."""
    try:
        read()
    except InputError as error:
        assert str(error)
        assert "\n" not in str(error)


def fuzz(test):
    checks = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example]
    return settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=checks)(test)


@pytest.mark.parametrize("kind", ["study", "space", "task"])
@fuzz
@given(st.data())
def test_documents(tmp_path, kind, data):
    whole = {"study": STUDY, "space": SPACE, "task": TASK}[kind]
    path = tmp_path / "document.yaml"
    path.write_bytes(data.draw(damaged_bytes(whole) | damaged_document(whole)))
    read = {"study": spec.load, "space": spec.load_space}
    refused_in_one_line(lambda: read.get(kind, lambda name: spec.task_document(name, beside=None))(str(path)))


@pytest.fixture(scope="module")
def export(tmp_path_factory, write_study):
    """What `export` writes."""
    cli = Cli(tmp_path_factory.mktemp("export") / "home")
    cli("run", write_study(cli.home / "study.yaml", trials=1, warm_starts=["uniform"]), "--inline")
    cli("export", "tiny", "-o", "best.yaml")
    assert exported_config(cli.home / "best.yaml").study.name == "tiny"
    return (cli.home / "best.yaml").read_bytes()


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
@fuzz
@given(st.data())
def test_exports(tmp_path, export, data):
    path = tmp_path / "best.yaml"
    path.write_bytes(data.draw(damaged_bytes(export) | damaged_document(export) | st.just(STUDY)))
    refused_in_one_line(lambda: exported_config(path))


def parquet():
    import pyarrow as pa
    import pyarrow.parquet as pq

    stream = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(ROWS), stream)
    return stream.getvalue()


def data_files():
    csv = "text,label\n" + "".join(f"{row['text']},{row['label']}\n" for row in ROWS)
    lines = "\n".join(json.dumps(row) for row in ROWS)
    return {"rows.csv": csv.encode(), "rows.jsonl": lines.encode(), "rows.json": json.dumps(ROWS).encode(), "rows.parquet": parquet()}


@pytest.mark.parametrize("name", ["rows.csv", "rows.jsonl", "rows.json", "rows.parquet"])
@fuzz
@given(st.data())
def test_data_sets(tmp_path, name, data):
    path = tmp_path / name
    damaged = damaged_bytes(data_files()[name])
    if name in {"rows.jsonl", "rows.json"}:
        rows = data.draw(st.lists(st.dictionaries(st.sampled_from(["text", "label"]), VALUES.filter(_is_json), max_size=2), max_size=3))
        exchanged = st.just("\n".join(map(json.dumps, rows)).encode() if name == "rows.jsonl" else json.dumps(rows).encode())
        damaged = damaged | exchanged
    path.write_bytes(data.draw(damaged))
    source = TaskSource(name="films", path=str(path), template="{text}", choices=("bad", "good"), label_column="label")
    refused_in_one_line(lambda: load_task(source))


def _is_json(value):
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return False
    return True
