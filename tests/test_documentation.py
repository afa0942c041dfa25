"""The documentation keeps its word: every page can be found, every link into the repository holds, every example is valid."""

import re
import shlex
import tomllib
from importlib import import_module
from pathlib import Path

import pytest
import typer
import yaml

import allocsearch

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
REPOSITORY = "https://github.com/allocsearch/allocsearch/blob/main/"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
BUILT = ("reference/",)

BLOCK = re.compile(r"^```(?P<kind>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?P<target>[^)\s]+)\)")


def blocks(kind):
    found = [(page, match["text"]) for page in PAGES for match in BLOCK.finditer(page.read_text(encoding="utf-8")) if match["kind"] == kind]
    return [pytest.param(text, id=f"{page.stem}-{i}") for i, (page, text) in enumerate(found)]


def named(entry):
    """The pages of a part of the navigation."""
    parts = entry.values() if isinstance(entry, dict) else entry
    return [entry] if isinstance(entry, str) else [page for part in parts for page in named(part)]


def in_the_repository(path):
    """Where the package is tested as installed, its files lie there and not beside the documentation."""
    top, _, rest = path.partition("/")
    return Path(allocsearch.__file__).parent / rest if top == "allocsearch" else ROOT / path


def test_every_page_stands_in_the_navigation():
    assert [page.name for page in PAGES if "\n<<<<<<< " in page.read_text(encoding="utf-8")] == [], "a merge was left undone"
    nav = named(tomllib.loads((ROOT / "zensical.toml").read_text(encoding="utf-8"))["project"]["nav"])
    assert sorted(page for page in nav if not page.startswith(BUILT)) == sorted(path.name for path in DOCS.glob("*.md"))


def test_the_reference_shows_every_public_name():
    """A name that moved would break the site; one that is new would be missing on it."""
    page = (DOCS / "python.md").read_text(encoding="utf-8")
    shown = {name: getattr(import_module(home), name) for home, name in re.findall(r"^::: (\S+)\.(\w+)$", page, re.MULTILINE)}
    assert {name: shown.get(name) for name in allocsearch.__all__ if not name.startswith("__")}.items() <= shown.items()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_a_page_links_to_in_the_repository_is_there(page):
    targets = [match["target"].partition("#")[0] for match in LINK.finditer(page.read_text(encoding="utf-8"))]
    places = [in_the_repository(target.removeprefix(REPOSITORY)) for target in targets if target.startswith(REPOSITORY)]
    near = [page.parent / target for target in targets if target and "://" not in target and not target.startswith(BUILT)]
    assert [str(place) for place in [*places, *near] if not place.exists()] == []
    # What lies outside docs/ is not on the site.
    assert page.parent == ROOT or all(place.resolve().is_relative_to(DOCS) for place in near)


@pytest.mark.parametrize("text", [block for block in blocks("yaml") if "schema:" in block.values[0]])
def test_every_document_shown_is_valid(text, tmp_path):
    from allocsearch.validation import validate

    path = tmp_path / "shown.yaml"
    path.write_text(text, encoding="utf-8")
    assert validate(path) == yaml.safe_load(text)["schema"]


@pytest.mark.parametrize("text", blocks("sh"))
def test_every_command_shown_is_one(text):
    from allocsearch.cli import app

    for line in text.replace("\\\n", " ").splitlines():
        for part in re.split(r"&&|\||>", line):
            words = shlex.split(part, comments=True)
            if not words or Path(words[0]).name != "allocsearch" or "…" in words:
                continue
            command, rest = typer.main.get_command(app), words[1:]
            while rest and rest[0] in getattr(command, "commands", {}):
                command, rest = command.commands[rest[0]], rest[1:]
            if rest[:1] not in (["--version"], ["--install-completion"]):
                command.make_context("allocsearch", rest)


RUN = re.compile(r"^<!-- run -->\n```python\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", [page for page in PAGES if page.stem != "tutorial" and RUN.search(page.read_text(encoding="utf-8"))])
def test_python_that_is_marked_to_run_does(page, tmp_path, monkeypatch):
    """The tutorial's blocks need its files: tests/e2e/test_tutorial.py runs them."""
    monkeypatch.setenv("ALLOCSEARCH_HOME", str(tmp_path))
    for block in RUN.finditer(page.read_text(encoding="utf-8")):
        exec(block["text"], {})
