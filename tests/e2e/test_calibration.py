"""`calibrate` on the tiny model, and the line that `run` says when its plan cannot resolve what it looks for."""

import pytest

from allocsearch.search.calibration import Calibration
from tests.e2e.conftest import Cli


@pytest.fixture(scope="module")
def cli(tmp_path_factory):
    return Cli(tmp_path_factory.mktemp("calibration") / "home")


@pytest.fixture(scope="module")
def study(cli, write_study):
    # A rate at which allocations end apart: where all answer alike, nothing is left to resolve.
    proxy = {"train_rows": 64, "search_rows": 24, "batch_size": 16, "dtype": "float32", "learning_rate": 0.05}
    return write_study(cli.home / "study.yaml", proxy=proxy)


@pytest.fixture(scope="module")
def found(cli, study):
    return cli.json("calibrate", study, "--allocations", 5, "--seeds", 2, "--inline", "--one-shot")


def test_noise_and_ranks_are_measured_on_the_users_own_proxy(found):
    calibration = found["calibration"]
    assert (calibration["num_allocations"], len(calibration["seeds"]), calibration["num_rows"]) == (5, 2, 24)
    assert calibration["num_steps"] == 4
    for metric in ("accuracy", "nll"):
        signal = calibration[metric]
        assert set(signal["rungs"]) == {"1", "2", "3"}
        assert set(signal["scores"]) >= {"alphalora", "gradient", "eva", "complexity", "one-shot"}
        for agreement in (signal["noise_ceiling"], signal["parameters"], *signal["rungs"].values(), *signal["scores"].values()):
            assert -1 <= agreement["spearman"]["low"] <= agreement["spearman"]["high"] <= 1
        assert signal["row_sd"]["value"] > 0
    assert found["recommendation"]["difference"] == pytest.approx(0.01)


def test_it_is_resumed_rather_than_repeated_and_shown_as_tables(cli, study, found):
    again = cli("calibrate", study, "--allocations", 5, "--seeds", 2, "--inline", "--metric", "nll")
    assert "trainings" not in again.stderr, "everything was trained already"
    assert "mnat" in again.stdout
    assert "another seed's end" in again.stdout
    more = cli("calibrate", study, "--allocations", 6, "--seeds", 2, "--inline", "--no-scores")
    assert "calibration: 2 trainings" in more.stderr


def test_a_run_whose_plan_cannot_resolve_a_point_says_so_in_one_line(cli, study, found):
    again = cli.json("calibrate", study, "--allocations", 5, "--seeds", 2, "--inline", "--no-scores")
    ran = cli("run", study, "--inline")
    lines = [line for line in ran.stderr.splitlines() if line.startswith("note: ")]
    # A random model may answer alike whatever it is trained to; then nothing is left to resolve.
    unresolved = Calibration.from_json(again["calibration"]).resolvable(1, 24) > 0.01
    assert ["resolve" in line for line in lines] == [True] * unresolved
    other = cli("run", study, "--inline", "--name", "other")
    assert "note: " not in other.stderr, "nothing was measured for a study of that name"
    assert cli.json("status")["studies"] == ["other", "tiny"]


def test_one_shot_on_a_router_per_block_is_refused_before_anything_is_trained(cli, tiny_study):
    study = tiny_study(name="blocks", space="moa", warm_starts=[])
    ran = cli("calibrate", study, "--allocations", 4, "--seeds", 2, "--inline", "--one-shot", code=2)
    assert "a router per block: leave `--one-shot` out" in ran.stderr
    assert not [name for name in cli.json("status")["studies"] if name.startswith("blocks")]
