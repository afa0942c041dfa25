"""A search that ends trials early, on the tiny model, through the command line."""

import json

import optuna
import pytest

SCHEDULER = {"kind": "halving", "eta": 2, "first_rung": 2}


@pytest.fixture
def halved(cli, tiny_study):
    """The study's file, and what a run of it said."""
    proxy = {"train_rows": 32, "search_rows": 24, "batch_size": 8, "dtype": "float32", "rungs": [1, 2]}
    file = tiny_study(trials=9, objective="nll", sampler="random", proxy=proxy, scheduler=SCHEDULER)
    return file, cli("run", file, "--inline")


def test_stopped_trials_are_counted_shown_and_never_exported(cli, halved, tmp_path):
    file, ran = halved
    plan = json.loads(cli("run", file, "--name", "other", "--dry-run", "--json").stdout)
    assert (plan["rungs"], plan["scheduler"]) == ([1, 2], {**SCHEDULER, "metric": None})
    trials = optuna.load_study(study_name="tiny", storage=f"sqlite:///{cli.home}/studies.db").trials
    stopped = [trial for trial in trials if trial.state.name == "PRUNED"]
    assert stopped
    assert all(trial.user_attrs["origin"] == "random" for trial in stopped)
    assert all([rung[1] for rung in trial.user_attrs["rungs"]] == [1, 2] for trial in stopped)
    assert all("artifact" not in trial.user_attrs for trial in stopped)
    status = cli.json("status", "tiny")
    assert status["stopped_at"] == {"2": len(stopped)}
    assert f"stopped at step 2: {len(stopped)}" in cli("status", "tiny").stdout
    counts = status["counts"]
    assert counts == {"finished": 9 - len(stopped), "stopped": len(stopped), "infeasible": 0, "failed": 0, "running": 0, "waiting": 0}
    for trial in stopped:
        (line,) = [line for line in ran.stderr.splitlines() if line.startswith(f"trial {trial.number:>3} ")]
        assert f"stopped at step 2  accuracy {trial.user_attrs['rungs'][-1][2]:.3f}" in line
        refused = cli("export", "tiny", "--trial", trial.number, "-o", tmp_path / "out.yaml", code=2)
        assert f"must have finished, but trial {trial.number} of 'tiny' has not" in refused.stderr
        assert not (tmp_path / "out.yaml").exists()
    cli("resume", "tiny", "--inline")
    assert cli.json("status", "tiny")["counts"] == counts
