"""A whole search on the tiny model, through the command line."""

import json

import optuna
import pytest
import yaml

from tests.e2e.conftest import Cli


@pytest.fixture(scope="module")
def cli(tmp_path_factory):
    """One home for the file: its tests read one study, and the last of them extends it."""
    return Cli(tmp_path_factory.mktemp("run") / "home")


@pytest.fixture(scope="module")
def study_file(cli):
    return cli.home / "study.yaml"


@pytest.fixture(scope="module")
def finished(cli, study_file, write_study):
    """A study that has ended, run inline: one process, so it is quick."""
    return json.loads(cli("run", write_study(study_file), "--inline", "--json").stdout)


def test_run_reaches_its_target_and_names_a_winner_with_its_interval(finished):
    assert finished["study"] == "tiny"
    assert finished["points"]
    assert all(point["trainable"] <= 20_000 for point in finished["points"])
    low, high = finished["winner"]["interval"]
    assert low <= finished["winner"]["accuracy"] <= high
    assert "biased" in finished["why"]


def test_anyone_can_read_the_study_with_plain_optuna(cli, finished):
    study = optuna.load_study(study_name="tiny", storage=f"sqlite:///{cli.home}/studies.db")
    assert study.metric_names == ["accuracy", "trainable_params"]
    assert {"spec", "spec_hash", "versions", "budget"} <= study.user_attrs.keys()
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 6
    assert [trial.user_attrs["origin"] for trial in study.trials[:2]] == ["uniform", "lora"]
    for trial in study.trials:
        assert {
            "allocation",
            "routing",
            "trainable_params",
            "active_params",
            "nll",
            "accuracy_per_million_params",
        } <= trial.user_attrs.keys()
        assert {
            "gain_per_million_params",
            "rungs",
            "seeds",
            "seconds",
            "worker",
            "origin",
            "attempt",
            "artifact",
        } <= trial.user_attrs.keys()
        assert len(trial.user_attrs["rows"][0]["nll"]) == 24


def test_a_run_leaves_graphs_and_a_note_for_the_dashboard(cli, finished):
    from optuna_dashboard import get_note

    study = optuna.load_study(study_name="tiny", storage=f"sqlite:///{cli.home}/studies.db")
    attrs = study._storage.get_study_system_attrs(study._study_id)
    assert {"front", "capacity", "budget"} <= {key.split(":")[2].removeprefix("allocsearch-") for key in attrs if "plot_data" in key}
    assert "6 finished; target 6" in get_note(study)
    assert "allocsearch confirm tiny" in get_note(study)


def _trials(cli, name):
    return optuna.load_study(study_name=name, storage=f"sqlite:///{cli.home}/studies.db").trials


def test_front_and_status_agree_with_the_run(cli, finished):
    assert cli.json("front", "tiny")["points"] == finished["points"]
    status = cli.json("status", "tiny")
    assert status["counts"]["finished"] == 6
    assert status["missing_trials"] == 0
    assert status["frozen_base"]["accuracy"] > 0
    assert cli.json("status")["studies"] == ["tiny"]
    assert "Pareto front" in cli("front", "tiny").stdout


def test_compare_does_not_call_noise_a_winner(cli, finished):
    found = cli.json("compare", "tiny")
    assert {c["baseline"]["origin"] for c in found["comparisons"]} <= {"uniform", "lora"}
    assert found["comparisons"]
    for one in found["comparisons"]:
        assert one["difference"] == pytest.approx(found["winner"]["accuracy"] - one["baseline"]["accuracy"])
        assert one["interval"][0] <= one["difference"] <= one["interval"][1]
        assert one["p_value"] <= one["p_adjusted"] <= 1
    text = cli("compare", "tiny", "--metric", "nll").stdout
    assert "One seed cannot show its own noise" in text
    assert "winner is better " not in text.replace("winner is better with this seed", "")


def test_only_the_fronts_weights_are_kept(cli, finished):
    kept = {path.name for path in (cli.home / "artifacts" / "tiny").iterdir()}
    assert kept == {f"tiny-trial-{point['trial']:06d}.safetensors" for point in finished["points"]}


def test_a_finished_study_of_the_same_spec_shows_its_result_again(cli, finished, study_file):
    again = cli("run", study_file, "--inline", "--json")
    assert json.loads(again.stdout)["winner"] == finished["winner"]


def test_an_existing_name_with_another_spec_is_refused_with_the_difference(cli, finished, tiny_study):
    refused = cli("run", tiny_study(budget="10K-params"), "--inline", code=2)
    assert "budget: 20K-params → 10K-params" in refused.stderr
    assert "allocsearch resume tiny" in refused.stderr


def test_exports_say_why_and_validate(cli, finished):
    path = cli.home / "best.yaml"
    result = cli("export", "tiny", "--pick", "smallest", "-o", path)
    assert "95 % interval" in result.stderr
    document = yaml.safe_load(path.read_text())
    assert document["schema"] == "allocsearch/v1"
    assert document["score"]["selection_biased"] is True
    assert sum(row["trainable"] for row in document["layers"]) == document["parameters"]["trainable"]
    assert cli.json("validate", path)["schema"] == "allocsearch/v1"
    assert yaml.safe_load(cli("export", "tiny").stdout)["study"]["trial"] == finished["winner"]["trial"]


def test_an_edited_export_is_found_out(cli, finished):
    path = cli.home / "best.yaml"
    cli("export", "tiny", "-o", path)
    document = yaml.safe_load(path.read_text())
    document["layers"][0]["plan"] = "9x9"
    path.write_text(yaml.safe_dump(document))
    assert "one of them was edited" in cli("validate", path, code=2).stderr


def test_weights_that_were_not_kept_are_not_exported(cli, finished):
    front = {point["trial"] for point in finished["points"]}
    loser = next(number for number in range(6) if number not in front)
    assert "only the front's are kept" in cli("export", "tiny", "--trial", loser, "--format", "peft", "-o", cli.home / "x", code=2).stderr
    assert not (cli.home / "x").exists()


def test_a_peft_export_needs_a_new_folder(cli, finished):
    (cli.home / "there").mkdir()
    (cli.home / "there" / "mine.txt").write_text("mine")
    assert "new or empty" in cli("export", "tiny", "--format", "peft", "-o", cli.home / "there", code=2).stderr
    assert (cli.home / "there" / "mine.txt").read_text() == "mine"


def test_weights_that_cannot_be_read_are_not_told_as_a_place_that_cannot_be_written(cli, finished):
    trial = finished["winner"]["trial"]
    weights = cli.home / "artifacts" / "tiny" / f"tiny-trial-{trial:06d}.safetensors"
    aside = weights.rename(cli.home / "aside")
    weights.mkdir()
    [line] = cli("export", "tiny", "--format", "peft", "-o", cli.home / "never", code=2).stderr.splitlines()[-1:]
    weights.rmdir()
    aside.rename(weights)
    assert f"the weights '{weights.name}' must be there to be copied, but: [Errno 21] Is a directory" in line
    assert not (cli.home / "never").exists()


def test_two_runs_with_one_seed_find_the_same(cli, tiny_study):
    first = cli.json("run", tiny_study(), "--inline", "--name", "a")
    second = cli.json("run", tiny_study(), "--inline", "--name", "b")
    keys = ("trial", "allocation", "accuracy", "nll")
    assert [[p[k] for k in keys] for p in first["points"]] == [[p[k] for k in keys] for p in second["points"]]


def test_resume_refuses_an_edited_file_and_says_what_changed(cli, finished, study_file, write_study):
    write_study(study_file, seed=7)
    assert "seed: 0 → 7" in cli("resume", "tiny", "--inline", code=2).stderr
    write_study(study_file)


def test_a_space_that_runs_out_says_so(cli, tiny_study):
    result = cli("run", tiny_study(budget="500-params", trials=30, warm_starts=[]), "--inline", "--name", "small")
    assert "no further allocation" in result.stderr
    assert len({trial.user_attrs["allocation"] for trial in _trials(cli, "small")}) == len(_trials(cli, "small"))


def test_resume_refuses_edited_data(cli, tiny_study, tmp_path, tiny_rows):
    rows = tmp_path / "rows.jsonl"
    rows.write_text(tiny_rows.read_text())
    task = {"name": "r", "path": str(rows), "template": "{text}", "choices": ["negative", "positive"], "label_column": "label"}
    cli("run", tiny_study(task=task, trials=2), "--inline", "--name", "data")
    rows.write_text(tiny_rows.read_text().replace("film", "plot"))
    assert "the task of a resumed study" in cli("resume", "data", "--inline", "--trials", 3, code=2).stderr


def test_resume_extends_to_a_new_target(cli, finished):
    cli("resume", "tiny", "--inline", "--trials", 8)
    assert cli.json("status", "tiny")["counts"]["finished"] == 8
