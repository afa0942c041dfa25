"""What follows a search: random allocations at equal compute, and fresh seeds on the test rows."""

import json
from collections import Counter

import optuna
import pytest
import yaml

from allocsearch.backends.catalog import Catalog
from tests.e2e.conftest import Cli


def _stored(cli, name):
    return optuna.load_study(study_name=name, storage=f"sqlite:///{cli.home}/studies.db").trials


@pytest.fixture(scope="module")
def cli(tmp_path_factory):
    return Cli(tmp_path_factory.mktemp("confirmation") / "home")


@pytest.fixture(scope="module")
def confirmed(cli, write_study):
    proxy = {"train_rows": 32, "search_rows": 24, "test_rows": 30, "batch_size": 8, "dtype": "float32", "learning_rate": 0.05}
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


def test_compare_speaks_of_the_test_rows_once_there_are_some(cli, confirmed):
    found = cli.json("compare", "tiny")
    assert (found["split"], found["winner"]["trial"]) == ("test", confirmed["winner"]["trial"])
    assert {one["baseline"]["label"] for one in found["comparisons"]} >= {"random, best of 2"}
    for one in found["comparisons"]:
        assert one["interval"][0] <= one["difference"] <= one["interval"][1]
        assert one["verdict"] == "not distinguishable" or one["p_adjusted"] < 0.05
        assert (one["rows"], one["covers_seeds"]) == (30, True)
    shown = cli("compare", "tiny").stdout
    assert "on the test rows" in shown
    assert "Holm" in shown


def test_a_margin_that_the_rows_cannot_resolve_is_said_to_be_one(cli, confirmed):
    found = cli.json("compare", "tiny", "--margin", 0.5)
    if found["smallest"] is None:  # the winner is the smallest of what was confirmed
        assert "no smaller allocation" in cli("compare", "tiny", "--margin", 0.5).stdout
    else:
        resolved = found["smallest"]["resolvable"] <= 0.005
        assert (found["smallest"]["remark"] is None) == resolved
        assert ("cannot be resolved" in cli("compare", "tiny", "--margin", 0.5).stdout) != resolved


def test_another_studys_winner_stands_beside_the_baselines(cli, confirmed, write_study):
    proxy = {"train_rows": 32, "search_rows": 24, "test_rows": 30, "batch_size": 8, "dtype": "float32"}
    moa = write_study(
        cli.home / "moa.yaml",
        name="tiny-moa",
        space="moa",
        trials=2,
        warm_starts=["moa-default"],
        proxy=proxy,
        confirmation={"candidates": 1, "seeds": 2, "random_trials": 0},
    )
    cli("run", moa, "--inline")
    found = cli.json("compare", "tiny", "--against", "tiny-moa")
    [other] = [one for one in found["comparisons"] if one["baseline"]["label"].startswith("tiny-moa: ")]
    assert other["rows"] == 30
    cli("compare", "tiny", "--against", "nowhere", code=2)


def test_a_study_without_results_on_the_test_rows_says_how_to_get_them(cli, write_study):
    cli("run", write_study(cli.home / "plain.yaml", name="plain", trials=2), "--inline")
    assert "allocsearch confirm plain" in cli("compare", "plain", "--margin", 1, code=3).stderr


def test_a_margin_given_to_the_search_is_kept_for_the_confirmation(cli, write_study):
    proxy = {"train_rows": 32, "search_rows": 24, "test_rows": 30, "batch_size": 8, "dtype": "float32"}
    study = write_study(cli.home / "kept.yaml", name="kept", trials=2, proxy=proxy)
    ran = cli("run", study, "--margin", 60, "--inline")
    [note] = [line for line in ran.stderr.splitlines() if line.startswith("note: ")]
    assert note.endswith("allocsearch confirm kept --inline")
    confirm = ["confirm", "kept", "--candidates", 2, "--seeds", 2, "--random-trials", 0, "--inline"]
    for options, margin in (([], 60), (["--margin", 50], 50), ([], 50)):
        cli(*confirm, *options)
        assert Catalog(f"sqlite:///{cli.home}/studies.db").record("kept").confirmation.margin == margin


def test_an_exported_config_carries_what_the_test_rows_said(cli, confirmed):
    exported = yaml.safe_load(cli("export", "tiny").stdout)
    proof, found = exported["confirmation"], cli.json("compare", "tiny")
    assert (proof["split"], proof["rows"], len(proof["seeds"])) == ("test", 30, 3)
    assert proof["accuracy"] == pytest.approx(found["winner"]["accuracy"])
    assert [one["verdict"] for one in proof["comparisons"]] == [one["verdict"] for one in found["comparisons"]]
    assert exported["score"]["selection_biased"] is True
    written = cli.home / "best.yaml"
    cli("export", "tiny", "-o", written)
    cli("validate", written)


def test_what_looks_best_races_over_further_seeds_and_the_winner_is_named_by_their_mean(cli, write_study):
    proxy = {"train_rows": 32, "search_rows": 24, "test_rows": 30, "batch_size": 8, "dtype": "float32", "learning_rate": 0.05}
    study = write_study(cli.home / "raced.yaml", name="raced", proxy=proxy, replication={"contenders": 3, "max_seeds": 3})
    ran = cli("run", study, "--inline", "--json")
    found = json.loads(ran.stdout)
    replicas = _stored(cli, "raced/replicas")
    assert {trial.user_attrs["split"] for trial in replicas} == {"search"}
    assert len({trial.user_attrs["allocation"] for trial in replicas}) == 3
    assert Counter(seed for trial in replicas for seed in trial.user_attrs["seeds"])[30_000] == 3, "everyone has the second seed"
    by_number = {trial.user_attrs["allocation"]: trial.number for trial in _stored(cli, "raced")}
    seeds = {by_number[trial.user_attrs["allocation"]]: 1 for trial in replicas}
    assert all(len(point["seeds"]) >= 2 for point in found["points"] if point["trial"] in seeds)
    [verdict] = [line for line in ran.stderr.splitlines() if " leads" in line]
    assert verdict.startswith("replicas: ")
    before = len(replicas)
    cli("resume", "raced", "--inline")
    assert len(_stored(cli, "raced/replicas")) == before, "a race that has ended is not run again"
