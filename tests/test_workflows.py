"""The jobs that run elsewhere: with the least rights, and actions that cannot change under us."""

import re
from pathlib import Path

import pytest
import yaml

FOLDER = Path(__file__).parents[1] / ".github" / "workflows"
WORKFLOWS = {path.name: yaml.safe_load(path.read_text(encoding="utf-8")) for path in FOLDER.glob("*.yml")}


def test_dependencies_are_audited_on_a_schedule():
    triggers = WORKFLOWS["audit.yml"][True]  # YAML 1.1 takes `on` for a truth value
    assert triggers["schedule"]
    steps = "\n".join(step.get("run", "") for step in WORKFLOWS["audit.yml"]["jobs"]["dependencies"]["steps"])
    assert "pip-audit --strict" in steps


@pytest.mark.parametrize("name", WORKFLOWS)
def test_jobs_have_the_least_rights_and_an_end(name):
    assert WORKFLOWS[name]["permissions"] == {}
    for job in WORKFLOWS[name]["jobs"].values():
        assert job["permissions"] == {"contents": "read"}
        assert job["timeout-minutes"] <= 60


@pytest.mark.parametrize("name", WORKFLOWS)
def test_actions_are_pinned_by_commit_and_keep_no_credentials(name):
    steps = [step for job in WORKFLOWS[name]["jobs"].values() for step in job["steps"]]
    for step in steps:
        assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", step.get("uses", f"a/b@{'0' * 40}"))
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False
