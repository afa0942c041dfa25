"""The notebook of the documentation: its cells run, here on a tiny model, and what is saved in it names no machine."""

import ast
import contextlib
import io
import json
from pathlib import Path

import pytest

import allocsearch

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

NOTEBOOK = Path(__file__).parent.parent / "docs" / "notebook.ipynb"


@pytest.fixture(scope="module")
def cells():
    return [cell for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]


def value_of(source, names):
    """What a notebook would show: the value of a cell's last expression."""
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "cell", "exec"), names)
    return None if last is None else eval(compile(ast.Expression(last.value), "cell", "eval"), names)


def test_every_cell_runs(cells, write_study, tmp_path, monkeypatch):
    search, study = allocsearch.run, str(write_study(tmp_path / "study.yaml"))
    monkeypatch.setenv("ALLOCSEARCH_HOME", str(tmp_path / "home"))
    for name in ("ALLOCSEARCH_STORAGE", "ALLOCSEARCH_STORAGE_FILE"):
        monkeypatch.delenv(name, raising=False)

    def run(_, *, budget, proxy, trials, **given):
        assert (budget, trials) == ("3M-params", 6)
        return search(study, trials=3, proxy={**proxy, "search_rows": 24, "dtype": "float32"}, quiet=True, **given)

    monkeypatch.setattr(allocsearch, "run", run)
    names, printed = {}, io.StringIO()
    with contextlib.chdir(tmp_path), contextlib.redirect_stdout(printed):
        shown = [value_of("".join(cell["source"]), names) for cell in cells]
    assert "Study notebook" in shown[1]._repr_html_()
    assert {type(one).__name__ for one in shown[2:]} >= {"DataFrame", "Figure", "PosixPath"}
    assert [line.split(":")[0] for line in printed.getvalue().splitlines()] == ["best", "knee", "smallest"]
    assert (tmp_path / "best.yaml").is_file()


def test_it_was_run_as_it_stands_and_names_no_machine(cells):
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert not [out for cell in cells for out in cell["outputs"] if out["output_type"] == "error"]
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert len(text) < 200_000
    assert not [place for place in ("/home/", "/root", "/tmp", "/Users/") if place in text]
