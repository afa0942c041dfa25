"""Exports in the formats of other projects, and warm starts by score, through the command line."""

import json
import os
import shlex
from pathlib import Path

import optuna
import pytest
from peft import AutoPeftModelForCausalLM

from allocsearch.core.allocation import Allocation
from allocsearch.core.budget import Budget, cost
from allocsearch.formats.guilomo import allocation_from_guilomo
from allocsearch.models import model_shape
from tests.e2e.conftest import Cli

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

SCORED = ["alphalora", "gradient", "eva", "complexity"]


@pytest.fixture(scope="module")
def cli(tmp_path_factory, write_study):
    """A study of a uniform allocation, plain LoRA and the scored starts."""
    found = Cli(tmp_path_factory.mktemp("formats") / "home")
    found("run", write_study(found.home / "study.yaml", warm_starts=["uniform", "lora", *SCORED]), "--inline")
    return found


@pytest.fixture(scope="module")
def stored(cli):
    return optuna.load_study(study_name="tiny", storage=f"sqlite:///{cli.home}/studies.db")


def test_mola_arguments_go_to_stdout(cli, stored):
    words = shlex.split(cli("export", "tiny", "--trial", 0, "--format", "mola").stdout)
    assert words[:2] == ["--number_experts", "5,5,5,5"]
    assert words[2:4] == ["--top_k", "2,2,2,2"]
    cli("export", "tiny", "--trial", 0, "--format", "mola", "-o", cli.home / "mola.txt")
    assert shlex.split((cli.home / "mola.txt").read_text()) == words
    notes = cli.json("export", "tiny", "--trial", 0, "--format", "mola")["notes"]
    assert notes == []


def test_guilomo_files_read_back(cli, stored, tiny_model):
    cli("export", "tiny", "--trial", 0, "--format", "guilomo", "-o", cli.home / "guilomo")
    shape = model_shape(tiny_model)
    files = [cli.home / "guilomo" / name for name in ("expert.json", "rank.json")]
    assert str(allocation_from_guilomo(*files, shape)) == stored.trials[0].user_attrs["allocation"]
    assert "new or empty" in cli("export", "tiny", "--trial", 0, "--format", "guilomo", "-o", cli.home / "guilomo", code=2).stderr


def test_a_kept_lora_loads_with_peft_alone(cli, stored):
    cli("export", "tiny", "--trial", 1, "--format", "lora", "-o", cli.home / "lora")
    config = json.loads((cli.home / "lora" / "adapter_config.json").read_text())
    assert config["peft_type"] == "LORA"
    if (cli.home / "lora" / "adapter_model.safetensors").is_file():  # kept where the trial is on the front
        model = AutoPeftModelForCausalLM.from_pretrained(cli.home / "lora")
        rank = int(stored.trials[1].user_attrs["allocation"].split("*")[0])
        assert model.peft_config["default"].r == rank


def test_what_a_format_cannot_say_is_bad_input(cli):
    assert "needs the router sigmoid or threshold" in cli("export", "tiny", "--trial", 0, "--format", "moa", code=2).stderr
    assert "has 5: export it with --format peft" in cli("export", "tiny", "--trial", 0, "--format", "lora", code=2).stderr


@pytest.mark.parametrize(
    ("words", "there"),
    [
        (["export", "tiny"], "a folder"),
        (["export", "tiny"], "a pipe"),
        (["export", "tiny", "--format", "mola", "--trial", "0"], "a pipe"),
        (["export", "tiny", "--format", "peft"], "a pipe"),
        (["export", "tiny", "--format", "peft"], "a file above it"),
        (["report", "tiny", "--format", "md"], "a pipe"),
    ],
)
def test_what_stands_in_the_way_of_an_output_stays(cli, tmp_path, words, there):
    """A pipe here, a device elsewhere: as root, a draft would take its place."""
    taken = tmp_path / "taken"
    {"a folder": Path.mkdir, "a pipe": os.mkfifo, "a file above it": Path.touch}[there](taken)
    before = taken.lstat()
    refused = cli(*words, "-o", taken / "below" if there == "a file above it" else taken, code=2).stderr.splitlines()
    assert len(refused) == 1
    assert str(taken) in refused[0]
    assert (taken.lstat().st_ino, taken.lstat().st_mode) == (before.st_ino, before.st_mode)
    assert list(tmp_path.iterdir()) == [taken]


def test_moa_flags(tmp_path, write_study):
    space = tmp_path / "kinds.yaml"
    space.write_text(
        "schema: allocsearch/space/v1\nname: kinds\nparts:\n  q: {rank: {choices: [2, 3]}}\n  parallel: {rank: {choices: [2]}}\n"
    )
    home = Cli(tmp_path / "home")
    study = write_study(tmp_path / "study.yaml", space=str(space), routing={"router": "sigmoid"}, trials=1, warm_starts=SCORED)
    home("run", study, "--inline")
    words = shlex.split(home("export", "tiny", "--format", "moa").stdout)
    assert words[:2] == ["--lora_layers", "0-4"]
    assert words[words.index("--p_adapter_size") + 1] == "2"


def test_scored_starts_run_inside_the_budget(cli, stored, tiny_model):
    origins = {trial.user_attrs["origin"]: trial for trial in stored.trials}
    assert list(origins)[:2] == ["uniform", "lora"]
    found = {start["name"]: start for start in stored.user_attrs["scored_starts"]}
    assert list(found) == SCORED
    for name, start in found.items():
        assert len(start["scores"]) == 4
        assert start["seconds"] > 0
        assert origins[name].user_attrs["allocation"] == start["allocation"]
        total = cost(Allocation.parse(start["allocation"]), model_shape(tiny_model))
        assert not Budget(20_000).excess(total)
        assert total.trainable > 18_000, "the budget is used up"


def test_a_resumed_study_does_not_score_again(cli, monkeypatch):
    from allocsearch.scores import starts

    def fail(*_, **__):
        raise AssertionError("a resumed study must take the stored scores")

    monkeypatch.setattr(starts, "load_base", fail)
    cli("resume", "tiny", "--inline", "--trials", 7)
    again = optuna.load_study(study_name="tiny", storage=f"sqlite:///{cli.home}/studies.db")
    assert [trial.user_attrs["origin"] for trial in again.trials[2:6]] == SCORED
    assert len(again.trials) == 7


def test_an_unknown_start_is_refused_with_the_known_ones(cli, write_study):
    refused = cli("run", write_study(cli.home / "other.yaml", name="other", warm_starts=["alfalora"]), "--dry-run", code=2)
    assert "alphalora" in refused.stderr
    plan = cli.json("run", write_study(cli.home / "other.yaml", name="other", warm_starts=["eva", "uniform"]), "--dry-run")
    assert plan["scored_warm_starts"] == ["eva"]
    assert [start["name"] for start in plan["warm_starts"]] == ["uniform"]
