"""The shape of the code: layers, sizes, a light import, and what the wheel carries."""

import subprocess
import sys
from pathlib import Path

import allocsearch

MAX_LINES = 300


def test_no_module_is_longer_than_an_idea():
    package = Path(allocsearch.__file__).parent
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in package.rglob("*.py")}
    assert len(lengths) > 50
    assert {str(path): length for path, length in lengths.items() if length > MAX_LINES} == {}


def test_importing_the_package_stays_light():
    script = "import sys, allocsearch; print([m for m in ('torch', 'ray', 'optuna', 'transformers', 'pydantic') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_every_public_name_can_be_had():
    assert all(getattr(allocsearch, name) is not None for name in allocsearch.__all__)


def test_the_package_finds_what_ships_with_it():
    from allocsearch.documents import named

    assert {"uniform", "mola", "hilo", "free", "moa"} <= named("search_spaces").keys()
    assert "quickstart" in named("studies")


def test_imports_run_one_way():
    found = subprocess.run(["lint-imports", "--no-cache"], capture_output=True, text=True, check=False, env=_path())
    assert found.returncode == 0, found.stdout


def _path():
    import os

    return {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
