"""A search that keeps its weights in a bucket instead of a folder."""

import shlex

import pytest

from tests.e2e.conftest import Cli

PLACE = ["--artifacts", "s3://weights/adapters"]


@pytest.fixture(scope="module")
def cli(tmp_path_factory):
    """One home for the file: its tests read one study."""
    return Cli(tmp_path_factory.mktemp("bucket") / "home")


@pytest.fixture(scope="module")
def finished(cli, write_study, s3):
    """With a checkpoint at every training step, all of which are to be gone at the end."""
    file = write_study(cli.home / "study.yaml", trials=2, limits={"checkpoint_seconds": 0.001})
    return cli("run", file, "--inline", *PLACE)


def weights(folder):
    return (folder / "adapter_model.safetensors").read_bytes()


def test_the_same_weights_are_kept_as_in_a_folder_and_come_back(cli, finished, s3):
    points = cli.json("front", "tiny")["points"]
    kept = {each["Key"] for each in s3.list_objects_v2(Bucket="weights", Prefix="adapters/")["Contents"]}
    assert kept == {f"adapters/tiny/tiny-trial-{point['trial']:06d}.safetensors" for point in points}
    assert not (cli.home / "artifacts").exists()
    cli("run", cli.home / "study.yaml", "--inline", "--name", "beside")
    cli("export", "tiny", "--format", "peft", "-o", "a", *PLACE)
    cli("export", "beside", "--format", "peft", "-o", "b")
    assert weights(cli.home / "a") == weights(cli.home / "b")


def test_the_commands_that_are_told_name_the_bucket(cli, finished):
    [line] = [line for line in finished.stdout.splitlines() if line.startswith("next: ")]
    assert line.endswith(shlex.join(PLACE))


def test_a_mistake_about_the_bucket_is_one_line_before_anything_is_written(cli, finished):
    before = cli.json("status")["studies"]
    for place, hint in (("s3://nobodys/of", "NoSuchBucket"), ("s3://me:hunter2@weights", "without credentials"), ("gs://weights", "s3://")):
        for words in (["run", cli.home / "study.yaml", "--name", "other", "--inline"], ["export", "tiny", "--format", "peft", "-o", "c"]):
            said = [line for line in cli(*words, "--artifacts", place, code=2).stderr.splitlines() if not line.startswith("loading ")]
            assert len(said) == 1
            assert hint in said[0]
            assert "hunter2" not in said[0]
    assert cli.json("status")["studies"] == before
    assert not (cli.home / "c").exists()
