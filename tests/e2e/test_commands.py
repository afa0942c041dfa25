"""The commands that need no study."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands import commands

LLAMA = Path(__file__).parent.parent / "fixtures" / "llama-2-7b" / "config.json"


@pytest.mark.parametrize(
    ("allocation", "trainable"),
    [
        ("2x8*8 4x8*8 6x8*8 8x8*8", 105_635_840),
        ("8x8*8 6x8*8 4x8*8 2x8*8", 105_635_840),
        ("8x8*32", 169_017_344),
        ("64*32", 159_907_840),
        ("2x2*8 4x4*8 6x6*8 8x8*8", 80_650_240),
        ("2x8*8 4x6*8 6x4*8 8x2*8", 55_664_640),
        ("2x4*8 4x8*8 6x12*8 8x16*8", 155_607_040),
    ],
)
def test_cost_gives_the_published_counts(cli, allocation, trainable):
    found = cli.json("cost", "--model", LLAMA, "--allocation", allocation)
    assert found["trainable"] == trainable
    assert sum(layer["trainable"] for layer in found["per_layer"]) == trainable
    assert sum(layer["active"] for layer in found["per_layer"]) == found["active"]


def test_cost_as_a_table(cli):
    assert "trainable 169,017,344" in cli("cost", "--model", LLAMA, "--allocation", "8x8*32").stdout


def test_cost_refuses_another_depth(cli):
    assert "32 layers" in cli("cost", "--model", LLAMA, "--allocation", "8x8*31", code=2).stderr


def test_dry_run_prints_a_plan_and_touches_nothing(cli, tiny_study):
    found = json.loads(cli("run", tiny_study(), "--dry-run", "--json").stdout)
    assert len(found["examples"]) >= 8
    assert all(example["trainable"] <= 20_000 for example in found["examples"])
    assert found["space"]["points"] > 1000
    assert found["estimated_seconds"] > 0
    assert {start["name"] for start in found["warm_starts"]} == {"uniform", "lora"}
    assert list(cli.home.iterdir()) == []


def test_dry_run_of_the_built_in_study_needs_no_weights(cli):
    found = json.loads(cli("run", "--budget", "8M-params", "--dry-run", "--json").stdout)
    assert found["model"]["layers"] == 30
    assert all(example["trainable"] <= 8_000_000 for example in found["examples"])
    assert "example 8" in cli("run", "--dry-run").stdout
    assert list(cli.home.iterdir()) == []


def test_lists_name_what_is_shipped(cli):
    assert {space["name"] for space in cli.json("spaces")["spaces"]} >= {"uniform", "mola", "hilo", "free"}
    assert "quickstart" in {study["name"] for study in cli.json("studies")["studies"]}
    assert cli.json("models")["models"][0]["here"] == "no"


def test_every_shipped_document_validates(cli):
    from allocsearch.documents import named

    for folder in ("studies", "search_spaces"):
        for path in named(folder).values():
            assert "valid" in cli("validate", path).stdout


def test_validate_prints_a_schema_or_their_names(cli):
    assert json.loads(cli("validate", "--schema", "study").stdout)["title"] == "allocsearch study"
    assert "output-db-check" in cli("validate", "--schema", "list").stdout.splitlines()
    assert "not both" in cli("validate", code=2).stderr
    assert "did you mean 'study'?" in cli("validate", "--schema", "studdy", code=2).stderr


@pytest.mark.parametrize("command", commands())
def test_every_command_has_help_with_an_example(cli, command):
    text = cli(*command.split(), "--help").stdout
    assert f"Example: allocsearch {command}" in text or not command


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("allocsearch ev", {"evaluate"}),
        ("allocsearch run qu", {"quickstart"}),
        ("allocsearch run --space mo", {"moa", "moa-sparse", "mola"}),
        ("allocsearch models pull m", {"minilm-l6"}),
    ],
)
def test_the_shell_completes(typed, offered):
    program = Path(sys.executable).parent / "allocsearch"
    asked = {"_ALLOCSEARCH_COMPLETE": "complete_bash", "COMP_WORDS": typed, "COMP_CWORD": str(len(typed.split()) - 1)}
    found = subprocess.run([program], capture_output=True, text=True, check=True, env={**os.environ, **asked})
    assert set(found.stdout.split()) == offered


def test_the_shell_completes_names_of_stored_studies_and_makes_no_storage(cli):
    asked = {"_ALLOCSEARCH_COMPLETE": "complete_bash", "COMP_WORDS": "allocsearch front fi", "COMP_CWORD": "2"}
    complete = [Path(sys.executable).parent / "allocsearch"]
    options = {"capture_output": True, "text": True, "env": {**cli.env, **asked}}
    assert subprocess.run(complete, check=True, **options).stdout.split() == []
    assert list(cli.home.iterdir()) == []
    import optuna

    for name in ("first", "second"):
        optuna.create_study(storage=f"sqlite:///{cli.home / 'studies.db'}", study_name=name)
    assert subprocess.run(complete, check=True, **options).stdout.split() == ["first"]


@pytest.mark.parametrize("asked", [{}, {"NO_COLOR": "1"}])
def test_a_terminal_has_colours_unless_nobody_wants_them(cli, asked):
    """Through a pseudo-terminal: what is none gets no colours anyway."""
    ours, theirs = os.openpty()
    wanted = {key: value for key, value in cli.env.items() if key not in {"NO_COLOR", "FORCE_COLOR"}} | {"TERM": "xterm-256color"} | asked
    subprocess.run([sys.executable, "-m", "allocsearch", "db", "check"], stdout=theirs, check=True, env=wanted)
    os.close(theirs)
    assert (b"\x1b[32m" in os.read(ours, 4096)) == (not asked)
    os.close(ours)


def test_version_names_the_engines(cli):
    text = cli("--version").stdout
    assert all(name in text for name in ("allocsearch", "torch", "ray", "optuna", "peft"))


def test_help_starts_without_the_engines():
    script = "import sys, allocsearch.cli; print([m for m in ('torch', 'ray', 'optuna', 'transformers') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_a_command_that_ends_looks_for_no_garbage():
    """The interpreter would, through all that PyTorch and Ray brought."""
    script = (
        "import atexit, gc, sys; atexit.register(lambda: print(gc.get_freeze_count() > 0)); "
        "sys.argv = ['allocsearch', '--version']; from allocsearch.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "True"
