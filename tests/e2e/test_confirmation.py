"""What follows a search: random allocations at equal compute, and fresh seeds on the test rows."""

import json
from collections import Counter

import optuna
import pytest

from tests.e2e.conftest import Cli


def _stored(cli, name):
    return optuna.load_study(study_name=name, storage=f"sqlite:///{cli.home}/studies.db").trials


@pytest.fixture(scope="module")
def cli(tmp_path_factory):
    return Cli(tmp_path_factory.mktemp("confirmation") / "home")


@pytest.fixture(scope="module")
def confirmed(cli, write_study):
    proxy = {"train_rows": 32, "search_rows": 24, "test_rows": 30, "batch_size": 8, "dtype": "float32"}
    study = write_study(cli.home / "study.yaml", proxy=proxy, confirmation={"candidates": 2, "seeds": 2, "random_trials": 2})
    return json.loads(cli("run", study, "--inline", "--json").stdout)


def test_candidates_baselines_and_the_best_random_one_meet_fresh_seeds_and_the_test_rows(cli, confirmed):
    searched = {trial.user_attrs["allocation"] for trial in _stored(cli, "tiny")}
    drawn = {trial.user_attrs["allocation"]: trial.values[0] for trial in _stored(cli, "tiny/random")}
    assert len(drawn) == 2
    trials = _stored(cli, "tiny/confirmation")
    assert {trial.state.name for trial in trials} == {"COMPLETE"}
    assert {trial.user_attrs["split"] for trial in trials} == {"test"}
    assert {len(trial.user_attrs["rows"][0]["nll"]) for trial in trials} == {30}
    seeds = Counter(trial.user_attrs["allocation"] for trial in trials)
    assert set(seeds.values()) == {2}
    assert not {0} & {seed for trial in trials for seed in trial.user_attrs["seeds"]}, "the search has seen that seed"
    assert confirmed["winner"]["allocation"] in seeds
    assert {trial.user_attrs["origin"] for trial in trials} >= {"uniform", "lora", "random"}
    assert all(drawn[allocation] == max(drawn.values()) for allocation in set(seeds) - searched), "not the best of the random ones"


def test_a_study_lists_without_its_companions_and_a_second_run_has_nothing_to_do(cli, confirmed):
    assert cli.json("status")["studies"] == ["tiny"]
    before = len(_stored(cli, "tiny/confirmation"))
    again = cli("run", cli.home / "study.yaml", "--inline")
    assert "finished already" in again.stderr
    assert len(_stored(cli, "tiny/confirmation")) == before


def test_more_seeds_are_added_and_none_is_repeated(cli, confirmed):
    before = len(_stored(cli, "tiny/confirmation"))
    cli("confirm", "tiny", "--candidates", 2, "--seeds", 3, "--random-trials", 2, "--inline")
    trials = _stored(cli, "tiny/confirmation")
    assert len(trials) == before * 3 // 2
    done = Counter((trial.user_attrs["allocation"], *trial.user_attrs["seeds"]) for trial in trials)
    assert set(done.values()) == {1}


def test_an_earlier_study_warms_up_a_new_one(cli, confirmed, write_study):
    earlier = {point["allocation"] for point in confirmed["points"]}
    study = write_study(cli.home / "second.yaml", name="second", trials=5, warm_starts=["uniform"], budget="10K-params")
    cli("run", study, "--warm-from", "tiny", "--inline")
    origins = [trial.user_attrs["origin"] for trial in _stored(cli, "second")]
    assert origins[0] == "uniform"
    assert origins[1].startswith("from:tiny/")
    assert all(trial.params for trial in _stored(cli, "second")[1:]), "the sampler learns from what was transferred"
    assert {trial.user_attrs["trainable_params"] <= 10_000 for trial in _stored(cli, "second")} == {True}
    assert earlier
    compared = cli.json("compare", "second")
    assert {one["baseline"]["origin"] for one in compared["comparisons"]} <= {"uniform"}
    cli("run", study, "--name", "third", "--warm-from", "nowhere", "--inline", code=2)
