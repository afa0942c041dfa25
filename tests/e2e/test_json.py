"""Every command with `--json`, on one finished study: one document on stdout, which is what its schema says."""

import json

import pytest

from allocsearch import model_store
from allocsearch.outputs import OUTPUTS
from tests.commands import command_of
from tests.e2e.conftest import Cli
from tests.schemas import check_output

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

TYPED = (
    "calibrate mine.yaml --allocations 4 --seeds 2 --no-scores --inline",
    "compare mine",
    "compare unconfirmed",
    "confirm mine --candidates 1 --seeds 1 --random-trials 0 --inline",
    "cost --model smollm2-135m --allocation 4x8*30",
    "db check",
    "db upgrade",
    "doctor",
    "evaluate adapter --task mine.yaml --rows 20",
    "export mine",
    "front mine",
    "models",
    "models pull smollm2-135m",
    "resume unconfirmed --inline",
    "run mine.yaml --inline",
    "run mine.yaml --dry-run",
    "spaces",
    "status",
    "status mine",
    "studies",
    "train adapter --task mine.yaml --epochs 0.1 -o trained --evaluate",
    "validate mine.yaml",
)


@pytest.fixture(scope="module")
def cli(tmp_path_factory, write_study):
    """With a confirmed study, one that was not confirmed, and an adapter."""
    found = Cli(tmp_path_factory.mktemp("json") / "home")
    confirmation = {"candidates": 1, "seeds": 1, "random_trials": 0}
    write_study(found.home / "mine.yaml", name="mine", trials=2, confirmation=confirmation)
    write_study(found.home / "unconfirmed.yaml", name="unconfirmed", trials=2)
    for name in ("mine", "unconfirmed"):
        found("run", f"{name}.yaml", "--inline")
    found("export", "mine", "--format", "peft", "-o", "adapter")
    return found


@pytest.mark.parametrize("typed", TYPED)
def test_it_prints_one_document_that_its_schema_allows(cli, typed, tiny_model, monkeypatch):
    monkeypatch.setattr(model_store, "pull", lambda *_: tiny_model)  # as if it had been fetched
    words = [*typed.split(), "--json"]
    printed = cli(*words).stdout
    assert isinstance(json.loads(printed), dict)
    check_output(words, printed)


def test_no_command_with_a_document_is_missing_here():
    assert {command_of(typed.split()) for typed in TYPED} == set(OUTPUTS)
