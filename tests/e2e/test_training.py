"""From an export to a trained adapter: killed and resumed without a trace, evaluated, and loaded by PEFT alone."""

import contextlib
import io
import json
import os
import re
import shlex
import signal
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from allocsearch.tuning import finetuning
from tests.e2e.conftest import Cli, scored_afresh

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """As many as the processes have that must give the same bits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def cli(tmp_path_factory):
    return Cli(tmp_path_factory.mktemp("training") / "home")


@pytest.fixture(scope="module")
def study(cli, write_study):
    path = write_study(cli.home / "study.yaml", trials=1, warm_starts=["uniform"])
    cli("run", path, "--inline")
    return path


@pytest.fixture(scope="module")
def config(cli, study):
    cli("export", "tiny", "-o", cli.home / "best.yaml")
    return cli.home / "best.yaml"


@pytest.fixture(scope="module")
def arguments(config, study):
    """Of one training; 320 rows in batches of 8 are about 40 steps an epoch."""
    return ["train", config, "--task", study, "--epochs", 2, "--checkpoint-steps", 2, "--learning-rate", 0.01]


@pytest.fixture(scope="module")
def trained(cli, arguments):
    done = cli("train", *arguments[1:], "-o", cli.home / "whole", "--evaluate", "--json")
    return cli.home / "whole", json.loads(done.stdout)


def test_a_librarys_error_does_not_hide_that_a_training_was_interrupted(cli, arguments, monkeypatch):
    """As where accelerate clears its processes away."""

    def train(*_):
        try:
            raise KeyboardInterrupt
        finally:
            raise ConnectionError("the other process is gone")

    monkeypatch.setattr(finetuning, "train", train)
    stopped = cli(*arguments, "-o", "never", code=130)
    words = shlex.join(map(str, [*arguments, "-o", "never", "--resume"]))
    assert f"interrupted; continue from the last checkpoint with: allocsearch {words}" in stopped.stderr


def test_a_training_leaves_an_adapter_its_evidence_and_a_card(trained, cli, config):
    folder, found = trained
    names = {path.name for path in folder.iterdir()}
    assert names == {"README.md", "adapter_config.json", "adapter_model.safetensors", "allocsearch.yaml", "training.json"}
    assert (folder / "allocsearch.yaml").read_text() == config.read_text()
    exported = yaml.safe_load(config.read_text())
    assert found["trainable"] == exported["parameters"]["trainable"]
    card = (folder / "README.md").read_text()
    assert f"{found['test']['accuracy']:.4f}" in card
    assert exported["score"]["interval_kind"] in card
    assert "biased upwards" in card
    assert "No confirmation on test rows." in card
    assert str(cli.home) not in card + (folder / "training.json").read_text()


def test_training_learns_the_task(trained):
    _, found = trained
    assert found["test"]["accuracy"] > 0.8


def test_a_killed_training_resumes_to_the_same_weights(cli, arguments, trained):
    folder = cli.home / "killed"
    process = cli.start(*arguments, "-o", folder)
    for line in process.stderr:
        at = re.match(r"step (\d+)/", line)
        if at and int(at[1]) >= 5:
            os.kill(process.pid, signal.SIGKILL)
            break
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert {path.name for path in folder.iterdir()} - {".checkpoint.safetensors.part"} == {"checkpoint.safetensors"}
    assert "continue with --resume" in cli(*arguments, "-o", folder, code=2).stderr
    other = cli(*arguments, "-o", folder, "--resume", "--seed", 7, code=2).stderr
    assert "seed: 0 → 7" in other
    cli(*arguments, "-o", folder, "--resume")
    whole, again = (load_file(place / "adapter_model.safetensors") for place in (trained[0], folder))
    assert whole.keys() == again.keys()
    assert all(torch.equal(whole[name], again[name]) for name in whole)
    assert "nothing is left to do" in cli(*arguments, "-o", folder, "--resume", code=2).stderr


def test_evaluate_and_a_fresh_process_give_the_trainings_accuracy(cli, study, trained, tiny_model, tmp_path):
    folder, found = trained
    measured = cli.json("evaluate", folder, "--task", study)
    assert {key: measured[key] for key in found["test"]} == found["test"]
    low, high = measured["interval"]
    assert low < measured["accuracy"] <= high + 1e-12
    assert f"on {measured['rows']} test rows of tiny-reviews" in cli("evaluate", folder, "--task", study).stdout
    assert cli.json("evaluate", folder, "--task", study, "--rows", 5)["rows"] == 5

    from allocsearch import spec
    from allocsearch.training.tasks import load_task

    rows = load_task(spec.load(str(study)).task.source()).test
    accuracy, nll = scored_afresh(cli, folder, base=tiny_model, rows=rows, scratch=tmp_path)
    assert accuracy == measured["accuracy"]
    assert nll == pytest.approx(measured["nll"], rel=1e-3)  # batches round otherwise


SERVING = Path(__file__).parent.parent.parent / "docs" / "serving.md"


def test_the_pages_code_serves_the_adapter(cli, study, trained, tmp_path):
    from allocsearch import spec
    from allocsearch.training.tasks import load_task

    (tmp_path / "adapter").symlink_to(trained[0])
    blocks = re.findall(r"<!-- tested -->\n```python\n(.*?)```", SERVING.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == SERVING.read_text(encoding="utf-8").count("```python") == 3
    served, printed = {}, io.StringIO()
    with contextlib.chdir(tmp_path), contextlib.redirect_stdout(printed):
        for block in blocks:
            exec(block, served)  # as a reader would paste it
    assert eval(printed.getvalue().splitlines()[-1]) in [[a, b] for a in ("negative", "positive") for b in ("negative", "positive")]

    task = spec.load(str(study)).task
    rows = load_task(task.source()).test
    prompts = [row.prompt for row in rows]
    found = served["classify"](prompts, template="{text}", choices=task.choices)
    alone = served["classify"](prompts, template="{text}", choices=task.choices, rows=1)
    assert sum(a == b for a, b in zip(found, alone, strict=True)) >= len(rows) - 1, "padding changes no answer, but for rounding"
    right = sum(choice == task.choices[row.answer] for choice, row in zip(found, rows, strict=True))
    measured = cli.json("evaluate", trained[0], "--task", study)["accuracy"]
    assert right / len(rows) == pytest.approx(measured, abs=1.5 / len(rows))  # bfloat16 here
    together, one = served["generate"](prompts[:3]), [served["generate"]([prompt])[0] for prompt in prompts[:3]]
    assert together == one


@pytest.fixture(scope="module")
def places(study, config, trained):
    return {"study": study, "config": config, "folder": trained[0]}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["train", "missing.yaml"], "must be an exported YAML file"),
        (["train", "{study}"], "must have the schema 'allocsearch/v1'"),
        (["train", "{config}"], "'tiny-reviews' is not built in"),
        (["train", "{config}", "--task", "nonsense"], "--task must be a YAML file or one of sentence-polarity"),
        (["train", "{config}", "--task", "missing.yaml"], "must be a file that is there"),
        (["train", "{config}", "--task", "{study}", "--gradient-accumulation", "3"], "must hold, but got 8 % (1 × 3)"),
        (["train", "{config}", "--task", "{study}", "-o", "{folder}"], "must be a new or empty folder"),
        (["train", "{config}", "--task", "{study}", "-o", "nowhere", "--resume"], "leave --resume out"),
        (["train", "{config}", "--task", "{study}", "-o", "x", "--report-to", "wandb"], "pip install wandb"),
        (["train", "{config}", "--task", "{study}", "--push-to-hub", "me/it"], "must name its base by a hub id"),
        (["evaluate", "missing", "--task", "{study}"], "must be a folder with an adapter_config.json"),
        (["evaluate", "{folder}"], "'tiny-reviews' is not built in"),
        (["evaluate", "{folder}", "--harness", "arc_easy"], "pip install 'allocsearch[harness]'"),
        (["evaluate", "{folder}", "--task", "{study}", "--model", "missing/model/folder"], "must be a folder, a hub id"),
    ],
)
def test_mistakes_give_one_line_with_the_remedy(cli, places, words, said, monkeypatch):
    from allocsearch.tuning import harness, tracking

    # As where they are not installed, whether or not they are.
    monkeypatch.setattr(tracking, "is_wandb_available", lambda: False)
    monkeypatch.setattr(harness, "find_spec", lambda _: None)
    refused = cli(*(word.format(**places) for word in words), code=2).stderr
    assert said in refused
    assert refused.count("error:") == 1
