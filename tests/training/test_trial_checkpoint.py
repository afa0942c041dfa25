"""A trial that is broken off goes on from its checkpoint, to the very same result."""

import contextlib
import json
import shutil
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from allocsearch import spec as specs
from allocsearch.backends.artifact_store import artifact_store
from allocsearch.backends.artifacts import FolderArtifacts
from allocsearch.core.allocation import Allocation
from allocsearch.core.geometry import Routing
from allocsearch.core.trial import Assignment, Failed, Measured, Trial
from allocsearch.training import checkpoint, finetune, objective, proxy
from allocsearch.training.bench import forget
from allocsearch.training.finetune import ProxyEvaluator
from allocsearch.training.trial_checkpoint import identity

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
PROXY = {"train_rows": 48, "search_rows": 16, "batch_size": 8, "dtype": "float32", "weight_decay": 0.01, "seeds": [0, 1]}
NUM_STEPS = 6
ASSIGNMENT = Assignment(3, Allocation.parse("2x4*2 3x2*2"), Routing(), (0, 1), (2, 4), score_base=True)
KEPT = "t-trial-000003.checkpoint.safetensors"


@pytest.fixture(autouse=True)
def one_thread():
    """Sums over another number of threads are rounded differently."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def make(tmp_path, write_study):
    """An evaluator that keeps a trial after every step."""

    def evaluator(seconds=0.0, **proxy_changes):
        study = write_study(tmp_path / "study.yaml", proxy={**PROXY, **proxy_changes}, limits={"checkpoint_seconds": seconds})
        spec = specs.load(str(study))
        return ProxyEvaluator(spec, spec.model, FolderArtifacts(tmp_path / "kept"), prefix="t")

    return evaluator


def files(run):
    return sorted(path.name for path in run.artifacts.folder.iterdir())


@contextlib.contextmanager
def dying_at(step, monkeypatch):
    """As a kill does, which no `except` sees."""
    steps = iter(range(1, 100))
    original = objective.completion_loss

    def loss(*batch):
        if next(steps) == step:
            raise KeyboardInterrupt
        return original(*batch)

    with monkeypatch.context() as patch:
        patch.setattr(objective, "completion_loss", loss)
        with pytest.raises(KeyboardInterrupt):
            yield


@pytest.fixture
def reports():
    return []


def test_a_trial_that_is_broken_off_twice_ends_as_if_nothing_had_happened(make, monkeypatch, reports):
    """In its first seed between rungs, then in its second: outcome, rungs and weights are the same, bit for bit."""
    run = make()
    whole = run(ASSIGNMENT, lambda _: True)
    weights = (run.artifacts.folder / whole.artifact).read_bytes()
    assert files(run) == ["t-trial-000003.safetensors"], "nothing is left of a trial that ended"
    for number_of_steps in (4, 5):  # the fourth step of seed 0, then, from there, the second of seed 1
        with dying_at(number_of_steps, monkeypatch):
            run(ASSIGNMENT, lambda _: True)
        assert KEPT in files(run)
    again = run(replace(ASSIGNMENT, score_base=False), lambda rung: not reports.append(rung))
    assert isinstance(again, Measured)
    assert (again.scores, again.rungs, again.statistics) == (whole.scores, whole.rungs, whole.statistics)
    assert [(rung.seed, rung.step) for rung in again.rungs] == [(0, 2), (0, 4), (1, 2), (1, 4)]
    assert reports == list(again.rungs), "a new referee hears of every rung, and of none twice"
    assert (run.artifacts.folder / again.artifact).read_bytes() == weights
    assert files(run) == ["t-trial-000003.safetensors"]


def test_what_is_kept_is_used(make, monkeypatch):
    """Or the test above would pass by training anew."""
    run = make()
    with dying_at(6, monkeypatch):
        run(ASSIGNMENT, lambda _: True)
    passes = []
    original = objective.completion_loss
    monkeypatch.setattr(objective, "completion_loss", lambda *batch: passes.append(1) or original(*batch))
    run(ASSIGNMENT, lambda _: True)
    assert len(passes) == 2 * NUM_STEPS - 5


@pytest.mark.parametrize("damage", ["cut", "one bit", "other versions", "other model"])
def test_a_checkpoint_that_does_not_fit_is_passed_over_with_a_line(make, monkeypatch, capsys, damage):
    run = make()
    whole = run(ASSIGNMENT, lambda _: True)
    with dying_at(4, monkeypatch):
        run(ASSIGNMENT, lambda _: True)
    file = run.artifacts.folder / KEPT
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:-100])
    elif damage == "one bit":
        content = bytearray(file.read_bytes())
        content[-1000] ^= 1
        file.write_bytes(content)
    else:
        found = checkpoint.load(file)
        other = {**found.identity, "versions": {"torch": "0"}} if damage == "other versions" else found.identity
        tensors = {"parameter/weight": torch.ones(2)}
        checkpoint.save(file, tensors, step=4, identity=other, notes=found.notes)
    again = run(ASSIGNMENT, lambda _: True)
    assert again.scores == whole.scores
    assert not file.exists()
    said = capsys.readouterr().err
    assert said.count("is passed over, and the trial begins anew") == 1
    assert "Traceback" not in said


def test_other_weights_of_the_same_name_and_shapes_are_another_model(make, tiny_model, tmp_path, monkeypatch, capsys):
    """As where the nodes' folders of one name differ."""
    base = shutil.copytree(tiny_model, tmp_path / "base")
    run = replace(make(), model=str(base))
    with dying_at(4, monkeypatch):
        run(ASSIGNMENT, lambda _: True)
    weights = load_file(base / "model.safetensors")
    save_file({name: 1.1 * tensor for name, tensor in weights.items()}, base / "model.safetensors", metadata={"format": "pt"})
    forget()
    again = run(ASSIGNMENT, lambda _: True)
    assert capsys.readouterr().err.count("begins anew: it is of other work or other versions") == 1
    assert again.scores == run(ASSIGNMENT, lambda _: True).scores


def test_builds_of_one_version_go_on_from_each_others_checkpoints(monkeypatch):
    """A cluster's nodes with and without GPUs, as it takes them for equal when they join."""

    def own(version):
        monkeypatch.setattr(metadata, "distribution", lambda _: SimpleNamespace(version=version))
        return identity(ASSIGNMENT, study="s", model="m", weights="w")

    assert own("2.13.0+cpu") == own("2.13.0+cu130") == own("2.13.0") != own("2.13.1")


def test_the_weights_are_read_through_for_a_checkpoint_alone(make, monkeypatch):
    """A base may have many gigabytes, and most trials are too short to be kept."""
    monkeypatch.setattr(finetune, "model_digest", None)
    assert isinstance(make(120.0)(ASSIGNMENT, lambda _: True), Measured)


def test_short_trials_and_those_that_may_not_be_kept_write_none(make, monkeypatch):
    for seconds in (None, 120.0):
        run = make(seconds)
        with dying_at(5, monkeypatch):
            run(ASSIGNMENT, lambda _: True)
        assert not run.artifacts.folder.exists() or files(run) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the one place on Linux where every disk is full")
def test_a_full_disk_costs_the_checkpoint_and_not_the_trial(make, monkeypatch, capsys):
    run = make()
    original = FolderArtifacts.write

    def write(store, name, file):
        if "checkpoint" in name:
            Path("/dev/full").write_bytes(file.read_bytes())
        original(store, name, file)

    monkeypatch.setattr(FolderArtifacts, "write", write)
    assert isinstance(run(ASSIGNMENT, lambda _: True), Measured)
    assert "could not be written: [Errno 28] No space left on device; the trial goes on without" in capsys.readouterr().err


def test_a_bucket_that_refuses_costs_the_checkpoint_and_not_the_trial(make, s3, capsys):
    statement = {"Effect": "Deny", "Principal": "*", "Action": "s3:PutObject", "Resource": "arn:aws:s3:::weights/*/*checkpoint*"}
    s3.put_bucket_policy(Bucket="weights", Policy=json.dumps({"Version": "2012-10-17", "Statement": [statement]}))
    run = replace(make(), artifacts=artifact_store("s3://weights", "tiny"))
    assert isinstance(run(ASSIGNMENT, lambda _: True), Measured)
    assert "could not be written: the bucket of weights must serve " in capsys.readouterr().err
    assert [each["Key"] for each in s3.list_objects_v2(Bucket="weights")["Contents"]] == ["tiny/t-trial-000003.safetensors"]


@pytest.mark.parametrize("runs_out", [False, True])
def test_a_bucket_that_lets_nothing_be_removed_costs_no_trial(make, s3, monkeypatch, capsys, runs_out):
    """A trial that had ended would be trained again, until its attempts are used up."""
    bucket = f"keeping-{runs_out}".lower()
    statement = {"Effect": "Deny", "Principal": "*", "Action": "s3:DeleteObject", "Resource": f"arn:aws:s3:::{bucket}/*"}
    s3.create_bucket(Bucket=bucket)
    s3.put_bucket_policy(Bucket=bucket, Policy=json.dumps({"Version": "2012-10-17", "Statement": [statement]}))
    run = replace(make(), artifacts=artifact_store(f"s3://{bucket}", "tiny"))
    if runs_out:
        run_out_of_memory(monkeypatch, step=3)
    assert isinstance(run(ASSIGNMENT, lambda _: True), Measured)
    assert capsys.readouterr().err.count(f"{KEPT} could not be removed, and stays where the artifacts are: the bucket") == 1 + runs_out


def run_out_of_memory(monkeypatch, *, step):
    """At that step, where a batch is trained in one pass."""
    steps = iter(range(1, 100))
    original = proxy.Training._backward

    def backward(training, batch):
        if training._num_passes == 1 and next(steps) == step:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return original(training, batch)

    monkeypatch.setattr(proxy.Training, "_backward", backward)


def test_memory_that_runs_out_later_begins_anew_in_smaller_passes(make, monkeypatch):
    run = make()
    whole = run(ASSIGNMENT, lambda _: True)
    run_out_of_memory(monkeypatch, step=3)
    again = run(ASSIGNMENT, lambda _: True)
    assert again.statistics["micro_batch"] == 1
    assert [(rung.seed, rung.step) for rung in again.rungs] == [(rung.seed, rung.step) for rung in whole.rungs]
    assert files(run) == ["t-trial-000003.safetensors"]


def test_the_driver_forgets_what_a_dead_worker_kept(make, monkeypatch):
    run = make()
    with dying_at(4, monkeypatch):
        run(ASSIGNMENT, lambda _: True)
    trial = Trial(ASSIGNMENT, None, "random", outcome=Failed("its worker died 3 times"))
    run.forget(replace(trial, outcome=None))
    assert files(run) == [KEPT]
    run.forget(trial)
    assert files(run) == []
