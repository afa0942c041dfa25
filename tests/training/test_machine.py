"""What keeps a machine from running any trial is not the trial's failure: it is told in one line, and the trial runs again."""

import resource
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from allocsearch import spec as specs
from allocsearch.backends.artifact_store import artifact_store
from allocsearch.backends.artifacts import FolderArtifacts
from allocsearch.backends.evaluation import outcome_of
from allocsearch.core.allocation import Allocation
from allocsearch.core.geometry import Routing
from allocsearch.core.trial import Assignment, Lost, Measured
from allocsearch.training.bench import forget
from allocsearch.training.finetune import ProxyEvaluator

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
PROXY = {"train_rows": 8, "search_rows": 8, "batch_size": 8, "dtype": "float32"}
ASSIGNMENT = Assignment(0, Allocation.parse("4x8*4"), Routing(), (0,))


@pytest.fixture
def run(tmp_path, write_study, tiny_model):
    """On a base of its own, which may be broken."""
    forget()
    base = shutil.copytree(tiny_model, tmp_path / "base")
    spec = specs.load(str(write_study(tmp_path / "study.yaml", model=str(base), proxy=PROXY)))
    yield ProxyEvaluator(spec, spec.model, FolderArtifacts(tmp_path / "kept"), prefix="t")
    forget()


def one_line(outcome):
    assert isinstance(outcome, Lost)
    assert outcome.by_machine
    assert "\n" not in outcome.reason
    return outcome.reason


def test_weights_that_cannot_be_written(run, tmp_path):
    """The system refuses, as on a full disk: files above a limit. safetensors' own error for that is no OSError."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        reason = one_line(outcome_of(run, ASSIGNMENT, lambda _: True))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "the weights of a trial must be written, but on " in reason
    assert "File too large" in reason
    assert "make room in " in reason
    assert list(tmp_path.glob("kept/*")) == [], "no half of a file stays"
    assert isinstance(outcome_of(run, ASSIGNMENT, lambda _: True), Measured)


def test_a_bucket_that_is_not_there(run, s3, capsys):
    """It is asked for a checkpoint before anything is trained; the driver, which only removes, goes on."""
    run = replace(run, artifacts=artifact_store("s3://vanished", "tiny"))
    reason = one_line(outcome_of(run, ASSIGNMENT, lambda _: True))
    assert "the bucket of weights must serve " in reason
    assert "NoSuchBucket" in reason
    run.discard("t-trial-000000.safetensors")
    [line] = capsys.readouterr().err.splitlines()
    assert "t-trial-000000.safetensors could not be removed, and stays where the artifacts are: the bucket" in line
    s3.create_bucket(Bucket="vanished")
    assert isinstance(outcome_of(run, ASSIGNMENT, lambda _: True), Measured)
    assert [each["Key"] for each in s3.list_objects_v2(Bucket="vanished")["Contents"]] == ["tiny/t-trial-000000.safetensors"]


def test_a_base_that_does_not_load(run):
    weights = Path(run.model) / "model.safetensors"
    weights.write_bytes(b"")
    reason = one_line(outcome_of(run, ASSIGNMENT, lambda _: True))
    assert "the base and the data must load on " in reason
    assert "must hold safetensors weights and a tokenizer, but loading fails" in reason
