"""A tiny study of every system that a space can name, to its front and its exported weights."""

import json

import optuna
import pytest

from allocsearch.core.allocation import Allocation


def trials(cli, name="tiny"):
    return optuna.load_study(study_name=name, storage=f"sqlite:///{cli.home}/studies.db").trials


@pytest.mark.parametrize(
    ("space", "router", "origins"),
    [
        ("moa", "sigmoid", ["moa-default"]),
        ("moa-sparse", "threshold", ["moa-default"]),
        ("hilo-adapter", "topk", ["uniform", "lora"]),
        ("mola", "dense", ["uniform", "lora"]),
    ],
)
def test_a_study_runs_to_its_end(cli, tiny_study, space, router, origins):
    changes = {"routing": {"router": "dense"}} if router == "dense" else {}  # the spaces of MoA name their router themselves
    file = tiny_study(space=space, trials=4, budget="30K-params", warm_starts=["uniform", "lora", "moa-default"], **changes)
    found = json.loads(cli("run", file, "--inline", "--json").stdout)
    ended = trials(cli)
    assert [trial.state.name for trial in ended] == ["COMPLETE"] * 4
    assert [trial.user_attrs["origin"] for trial in ended[: len(origins)]] == origins  # the others mean nothing under this router
    assert {trial.user_attrs["routing"]["router"] for trial in ended} == {router}
    assert all(0 < trial.user_attrs["trainable_params"] <= 30_000 for trial in ended)
    assert found["points"]
    cli("export", "tiny", "--format", "peft", "-o", cli.home / "adapter")
    config = json.loads((cli.home / "adapter" / "adapter_config.json").read_text())
    assert config["router"] == router
    assert Allocation.parse(config["allocation"]) == Allocation.parse(found["winner"]["allocation"])


def test_ranks_differ_within_a_layer_and_between_attention_and_ffn(cli, tiny_study):
    plan = cli.json("run", tiny_study(space="hilo-adapter", budget="60K-params"), "--dry-run")
    layers = [layer for example in plan["examples"] for layer in Allocation.parse(example["allocation"])]
    assert any(len(set(sizes)) > 1 for layer in layers for _, sizes in layer.parts)
    assert any(layer.sizes("q") != layer.sizes("up") for layer in layers)


def test_moa_is_planned_with_its_own_router_and_start(cli, tiny_study):
    plan = cli.json("run", tiny_study(warm_starts=["uniform", "moa-default"], budget="60K-params"), "--space", "moa", "--dry-run")
    assert [start["name"] for start in plan["warm_starts"]] == ["moa-default"]
    assert plan["oversized_warm_starts"] == []
    assert len(plan["examples"]) >= 8
    assert any("parallel:" in example["allocation"] for example in plan["examples"])


@pytest.mark.parametrize(("space", "noted"), [("moa-sparse", "skipped_share"), ("hilo-adapter", "expert_similarity")])
def test_router_statistics_are_kept_where_asked_for(cli, tiny_study, space, noted):
    proxy = {"train_rows": 16, "search_rows": 8, "batch_size": 8, "dtype": "float32", "seeds": [0, 1]}
    plain = cli.json("run", tiny_study(space=space, trials=2, warm_starts=[], proxy=proxy), "--inline", "--name", "plain")
    proxy["router_statistics"] = True
    watched = cli.json("run", tiny_study(space=space, trials=2, warm_starts=[], proxy=proxy), "--inline", "--name", "watched")
    of_routers = {"load_imbalance", "entropy", "dead_experts", noted}
    assert not any(of_routers & trial.user_attrs["statistics"].keys() for trial in trials(cli, "plain"))
    found = [trial.user_attrs["statistics"] for trial in trials(cli, "watched")]
    assert all({"load_imbalance", "entropy", "dead_experts"} <= statistics.keys() for statistics in found)
    assert any(noted in statistics for statistics in found)
    assert all(isinstance(statistics[name], float) for statistics in found for name in of_routers & statistics.keys())
    assert [point["nll"] for point in watched["points"]] == [point["nll"] for point in plain["points"]]  # watching changes nothing
