"""A tiny search through real Ray, real SQLite and the real SmolLM2 weights; its export in a fresh process gives the same numbers."""

import json
import subprocess
import sys

import optuna
import pytest
import torch
import yaml

from tests.e2e.conftest import Cli, scored_afresh

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),  # PEFT asks under the old name
]

PROMPTS = ["Review: a gripping , funny film .\nSentiment:", "Review: dull .\nSentiment:"]

# Nothing of the search: what a user who was handed the folder would write.
LOAD = """
import json, sys, torch
import allocsearch.moelora
from peft import AutoPeftModelForCausalLM
from transformers import AutoTokenizer
folder, base, prompts, out = sys.argv[1], sys.argv[2], json.loads(sys.argv[3]), sys.argv[4]
torch.set_num_threads(1)
model = AutoPeftModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval()
tokenizer = AutoTokenizer.from_pretrained(base)
from safetensors.torch import save_file
with torch.inference_mode():
    save_file({str(i): model(**tokenizer(p, return_tensors="pt")).logits for i, p in enumerate(prompts)}, out)
"""


@pytest.fixture(scope="module")
def cli(smollm2, tmp_path_factory):
    """A home of its own that shares the pulled model."""
    found = Cli(tmp_path_factory.mktemp("smollm2") / "home")
    (found.home / "models").symlink_to(smollm2.parent)
    return found


@pytest.fixture(scope="module")
def searched(cli):
    document = {
        "schema": "allocsearch/study/v1",
        "name": "real",
        "model": "smollm2-135m",
        "task": "sentence-polarity",
        "space": "hilo",
        "budget": "3M-params",
        "trials": 3,
        "warm_starts": ["uniform"],
        "proxy": {"train_rows": 16, "search_rows": 24, "batch_size": 8},
        "replication": {"contenders": 0},
        "confirmation": {"candidates": 0},
    }
    path = cli.home / "real.yaml"
    path.write_text(yaml.safe_dump(document))
    return json.loads(cli.process("run", path, "--workers", 2, "--json").stdout)


def test_the_search_reaches_its_target_through_ray_tune_workers(cli, searched):
    study = optuna.load_study(study_name="real", storage=f"sqlite:///{cli.home}/studies.db")
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 3
    assert len({trial.user_attrs["worker"] for trial in study.trials}) <= 2
    assert all(trial.values[1] <= 3_000_000 for trial in study.trials)
    assert 0.4 < study.user_attrs["frozen_base"]["accuracy"] < 1


def test_the_exported_folder_gives_identical_logits_in_a_fresh_process(cli, searched, smollm2, tmp_path):
    from peft import PeftModel
    from safetensors.torch import load_file

    from allocsearch.models import load_base

    cli("export", "real", "--format", "peft", "-o", tmp_path / "best")
    names = {path.name for path in (tmp_path / "best").iterdir()}
    assert names >= {"adapter_config.json", "adapter_model.safetensors", "allocsearch.yaml"}
    assert not [name for name in names if name.endswith((".bin", ".pt", ".pkl"))]

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    base = load_base(smollm2, dtype="bfloat16")
    model = PeftModel.from_pretrained(base.model, tmp_path / "best").eval()
    out = tmp_path / "logits.safetensors"
    script = [sys.executable, "-W", "ignore", "-c", LOAD, str(tmp_path / "best"), str(smollm2), json.dumps(PROMPTS), str(out)]
    subprocess.run(script, check=True, env=cli.env)
    fresh = load_file(out)
    with torch.inference_mode():
        for i, prompt in enumerate(PROMPTS):
            logits = model(**base.tokenizer(prompt, return_tensors="pt")).logits
            torch.testing.assert_close(fresh[str(i)], logits, rtol=0, atol=0)
    torch.set_num_threads(threads)


def test_the_kept_weights_are_those_that_were_scored(cli, searched, smollm2, tmp_path):
    from peft import PeftModel

    from allocsearch.models import load_base
    from allocsearch.spec import load
    from allocsearch.training.collate import encode
    from allocsearch.training.evaluate import score
    from allocsearch.training.tasks import load_task

    cli("export", "real", "--format", "peft", "-o", tmp_path / "again")
    spec = load(str(cli.home / "real.yaml"))
    base = load_base(smollm2, dtype="bfloat16")
    model = PeftModel.from_pretrained(base.model, tmp_path / "again")
    rows = load_task(spec.task.source()).search[: spec.proxy.search_rows]
    found = score(model, base.tokenizer, rows, encode(rows, base.tokenizer, max_tokens=256), metric="choice", seed=0, max_new_tokens=1)
    study = optuna.load_study(study_name="real", storage=f"sqlite:///{cli.home}/studies.db")
    stored = study.trials[searched["winner"]["trial"]].user_attrs["rows"][0]
    assert found.nll == pytest.approx(stored["nll"], abs=0.02)  # threads may round bfloat16 sums otherwise
    assert found.accuracy == pytest.approx(stored["correct"].count("1") / len(rows), abs=1 / len(rows))


def test_from_the_search_to_a_trained_adapter_that_scores_the_same_elsewhere(cli, searched, smollm2, tmp_path):
    from safetensors.torch import load_file

    from allocsearch.core.task import TaskSource
    from allocsearch.training.tasks import load_task

    cli("export", "real", "--format", "peft", "-o", tmp_path / "best")
    steps = ["--epochs", 0.002, "--batch-size", 8, "--learning-rate", 0.002]
    trained = cli.json("train", tmp_path / "best", *steps, "-o", tmp_path / "adapter")
    assert trained["steps"] == 2
    found = cli.json("evaluate", tmp_path / "adapter", "--rows", 24, "--dtype", "float32")
    one, other = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("best", "adapter"))
    assert one.keys() == other.keys()
    assert not any(torch.equal(one[name], other[name]) for name in one), "trained anew, not the search's"
    rows = load_task(TaskSource(name="sentence-polarity")).test[:24]
    accuracy, nll = scored_afresh(cli, tmp_path / "adapter", base=smollm2, rows=rows, scratch=tmp_path)
    assert accuracy == found["accuracy"]
    assert nll == pytest.approx(found["nll"], rel=1e-3)  # batches round otherwise
