"""Two processes train as one does, with the model replicated (DDP) or sharded (FSDP2), and one takes up what the others broke off."""

import contextlib
import os
import shutil
import socket
from dataclasses import replace

import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file
from torch import multiprocessing

from allocsearch.core.errors import InputError
from allocsearch.training import checkpoint
from allocsearch.tuning import folder, sharding, sources
from allocsearch.tuning.finetuning import Request, train
from allocsearch.tuning.settings import Settings
from tests.e2e.conftest import Cli

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

SETTINGS = Settings(0.1, 8, 4, 0.01, 32, gradient_checkpointing=False, dtype="float32", seed=0)
HALVES = replace(SETTINGS, gradient_accumulation=2, gradient_checkpointing=True)
CHECKPOINT = checkpoint.FILE
load = checkpoint.load


def run(request, lines):
    """Train, and keep a copy of each checkpoint, which a training removes at its end."""
    AcceleratorState._reset_state(reset_partial_state=True)
    save = checkpoint.save

    def keep(path, tensors, **rest):
        save(path, tensors, **rest)
        shutil.copy(path, path.parent.with_name(f"{path.parent.name}-{rest['step']}"))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "save", keep)
        return train(request, lines.append)


def work(rank, jobs):
    launched = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1"}
    asked = {"ACCELERATE_USE_CPU": "true", "FSDP_VERSION": 2, "FSDP_CPU_RAM_EFFICIENT_LOADING": "true"}
    os.environ |= {name: str(value) for name, value in (launched | asked).items()}
    torch.set_num_threads(1)
    for port, request, how in jobs:
        os.environ |= {"MASTER_PORT": str(port), "ACCELERATE_USE_FSDP": str(how == "sharded over")}
        lines = []
        assert run(request, lines).is_main == (rank == 0)
        assert rank or any(f"{how} 2 processes" in line for line in lines)


def free_ports(number):
    with contextlib.ExitStack() as held:
        found = [held.enter_context(socket.socket()) for _ in range(number)]
        for free in found:
            free.bind(("127.0.0.1", 0))
        return [free.getsockname()[1] for free in found]


def assert_close(found, expected):
    found, expected = load_file(found), load_file(expected)
    assert found.keys() == expected.keys()
    for name, weight in expected.items():
        torch.testing.assert_close(found[name], weight, rtol=1e-3, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}")


def test_two_processes_train_as_one_and_go_on_from_its_checkpoint(tmp_path, write_study):
    study = write_study(tmp_path / "study.yaml", trials=1, warm_starts=["uniform"])
    home = Cli(tmp_path / "home")
    home("run", study, "--inline")
    home("export", "tiny", "-o", tmp_path / "best.yaml")
    found = sources.exported_config(tmp_path / "best.yaml")
    task = sources.task_of(str(study), found)
    alone = run(Request(found, task, SETTINGS, tmp_path / "alone", evaluate=True), [])
    assert alone.num_steps == 4
    half = {"dtype": "bfloat16"}  # the frozen base alone: two types meet in each sharded layer
    run(Request(found, task, replace(SETTINGS, **half), tmp_path / "half-alone"), [])

    (tmp_path / "on").mkdir()
    shutil.copy(tmp_path / "alone-2", tmp_path / "on" / CHECKPOINT)
    jobs = [
        (Request(found, task, HALVES, tmp_path / "copies"), "replicated on"),
        (Request(found, task, HALVES, tmp_path / "shards", evaluate=True), "sharded over"),
        (Request(found, task, HALVES, tmp_path / "on", resume=True), "sharded over"),
        (Request(found, task, replace(HALVES, **half), tmp_path / "half"), "sharded over"),
    ]
    jobs = [(port, *job) for port, job in zip(free_ports(len(jobs)), jobs, strict=True)]
    multiprocessing.spawn(work, args=(jobs,), nprocs=2)
    for step in (1, 2, 4):
        assert_close(tmp_path / f"shards-{step}", tmp_path / f"alone-{step}")
    assert not (tmp_path / "on-2").exists()
    assert_close(tmp_path / "on-4", tmp_path / "alone-4")
    for name in ("copies", "shards", "on"):
        assert_close(tmp_path / name / folder.WEIGHTS, tmp_path / "alone" / folder.WEIGHTS)
    assert_close(tmp_path / "half" / folder.WEIGHTS, tmp_path / "half-alone" / folder.WEIGHTS)
    with pytest.raises(AssertionError):
        assert_close(tmp_path / "half" / folder.WEIGHTS, tmp_path / "alone" / folder.WEIGHTS)
    assert alone.test is not None
    assert f"{alone.test.accuracy:.4f}" in (tmp_path / "shards" / "README.md").read_text()

    (tmp_path / "back").mkdir()
    shutil.copy(tmp_path / "shards-2", tmp_path / "back" / CHECKPOINT)
    loads = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "load", lambda path: loads.append(path) or load(path))
        run(Request(found, task, SETTINGS, tmp_path / "back", resume=True), [])
    assert loads == [tmp_path / "back" / CHECKPOINT], "once, as it may have gigabytes"
    assert_close(tmp_path / "back" / folder.WEIGHTS, tmp_path / "alone" / folder.WEIGHTS)


@pytest.mark.parametrize(
    ("asked", "remedy"),
    [
        ({}, "launch with --fsdp_version 2"),
        ({"FSDP_VERSION": "2", "FSDP_OFFLOAD_PARAMS": "true"}, "leave fsdp_offload_params out"),
        ({"FSDP_VERSION": "2", "FSDP_ACTIVATION_CHECKPOINTING": "true"}, "ask for --gradient-checkpointing"),
    ],
)
def test_what_would_be_passed_over_is_refused(monkeypatch, asked, remedy):
    for name, value in {"ACCELERATE_USE_FSDP": "true", **asked}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=remedy):
        sharding.is_asked_for()
