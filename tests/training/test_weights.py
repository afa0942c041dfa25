"""Which weights a worker trains on: the driver's, wherever it runs and whenever it fetches them."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub import constants

from allocsearch import workplace
from allocsearch.core.errors import MachineError
from allocsearch.options import Options
from allocsearch.training import finetune
from allocsearch.training.finetune import ProxyEvaluator
from allocsearch.workplace import prepare
from tests.conformance.toy import spec_of


def prepared(monkeypatch, model, *, place, digest, say=print):
    monkeypatch.setattr(workplace, "load_task", lambda _: SimpleNamespace(digest="rows"))
    monkeypatch.setattr(workplace, "resolve", lambda *_: place)
    monkeypatch.setattr(workplace, "model_digest", lambda *_: digest)
    evaluator, digests = prepare(spec_of(model=model), "toy", Options(artifacts=Path("kept")), say=say)
    assert digests == {"task_digest": "rows", "model_digest": digest}
    return evaluator


def test_a_hub_model_is_pinned_to_the_commit_that_the_driver_saw(monkeypatch):
    evaluator = prepared(monkeypatch, "owner/name", place="owner/name", digest="commit:abc123")
    assert (evaluator.model, evaluator.spec.revision) == ("owner/name", "abc123")


def test_a_built_in_model_is_looked_for_in_each_nodes_own_home(monkeypatch):
    evaluator = prepared(monkeypatch, "smollm2-135m", place=Path("/home/driver/models/smollm2-135m"), digest="abc123")
    assert (evaluator.model, evaluator.weights, evaluator.spec.revision) == ("smollm2-135m", "abc123", None)


def test_a_folder_stays_one(monkeypatch):
    assert prepared(monkeypatch, "/shared/llama", place=Path("/shared/llama"), digest="abc123").model == "/shared/llama"


def test_long_waits_before_the_first_trial_are_announced(monkeypatch, tmp_path):
    said = []
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    folder = tmp_path / "models--owner--name" / "snapshots" / "abc123"
    folder.mkdir(parents=True)
    (folder / "config.json").touch()
    prepared(monkeypatch, "owner/name", place="owner/name", digest="commit:abc123", say=said.append)
    assert said == ["the weights of owner/name are not in this machine's cache: each machine fetches those it lacks before its first trial"]
    (folder / "model.safetensors").touch()
    prepared(monkeypatch, "owner/name", place="owner/name", digest="commit:abc123", say=said.append)
    prepared(monkeypatch, "/shared/llama", place=folder, digest="abc123", say=said.append)
    assert len(said) == 1
    with (folder / "model.safetensors").open("wb") as file:
        file.truncate(14_000_000_000)  # a hole: no disk is filled
    prepared(monkeypatch, "/shared/llama", place=folder, digest="abc123", say=said.append)
    assert said[1:] == [f"reading the 14 GB of weights in {folder}, to tell them from others"]


def test_other_weights_of_the_same_name_are_refused(monkeypatch):
    monkeypatch.setattr(finetune, "model_digest", lambda _: "b" * 64)
    with pytest.raises(MachineError, match="'smollm2-135m' is bbbbbbbbbbbb here and aaaaaaaaaaaa at its driver"):
        _ = ProxyEvaluator(spec_of(model="smollm2-135m"), "smollm2-135m", weights="a" * 64).bench
