"""The tutorial's blocks, as they stand on the page and in their order."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import Cli

TUTORIAL = Path(__file__).parent.parent.parent / "docs" / "tutorial.md"
BLOCK = re.compile(r"^<!-- (?P<what>run|file: (?P<name>[\w.-]+)) -->\n```(?P<kind>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.slow
def test_the_tutorial_runs_as_written(smollm2, tmp_path):
    cli = Cli(tmp_path / "home")
    (cli.home / "models").symlink_to(smollm2.parent)
    ran = []
    for block in BLOCK.finditer(TUTORIAL.read_text(encoding="utf-8")):
        if block["name"]:
            (cli.home / block["name"]).write_text(block["text"], encoding="utf-8")
        elif block["kind"] == "python":
            subprocess.run([sys.executable, "-W", "ignore", "-c", block["text"]], check=True, env=cli.env, cwd=cli.home)
            ran.append("python")
        else:
            ran += [typed(cli, line) for line in block["text"].splitlines()]
    assert ran == ["validate", "run", "run", "status", "front", "compare", "report", "export", "export", "python"]
    assert "first.html" in {path.name for path in cli.home.iterdir()}
    assert cli.json("validate", "best.yaml")["schema"] == "allocsearch/v1"
    assert len(cli.json("front", "first")["points"]) > 0


def typed(cli, line):
    """Runs what a user would type, in this process: ten programs would load torch ten times."""
    program, command, *rest = shlex.split(line, comments=True)
    assert program == "allocsearch"
    said = cli(command, *rest)
    assert said.stdout or said.stderr
    return command
