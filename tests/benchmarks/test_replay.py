"""The replay on a made-up table of the same schema: what a search may see, what it pays, and that skill shows."""

import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import plotly.io
import pyarrow as pa
import pytest
import replay
import replay_page
import replay_race
import replay_search
from pyarrow import parquet
from replay_search import STRATEGIES, Setting, Strategy, search
from replay_table import load
from tabular_rows import SCHEMA

from allocsearch.core.allocation import Allocation
from allocsearch.core.budget import cost
from allocsearch.core.geometry import ModelShape, Routing, Site
from allocsearch.core.layout import Axis, PartSpace, Sharing
from allocsearch.core.space import SpaceTemplate
from tests.conformance.toy import spec_of

SHAPE = ModelShape("toy", ((Site("q", "attn", 16, 16), Site("up", "ffn", 16, 32)),) * 4, hidden_size=16, num_heads=2, num_parameters=10**5)
STEPS, TOKENS = (5, 10, 20), (500, 1000, 2000)
SPEC = spec_of(budget="5K-params", warm_starts=["uniform"])


def made_up(path: Path, *, num=40, seeds=(0, 1, 2), missing=(), noise=0.002):
    """Capacity in the bottom layers is worth most; rungs know half of it."""
    rng, rows = random.Random(0), []
    space = SpaceTemplate("made", (PartSpace("all", Axis((1, 2, 4, 8), Sharing(tie=1)), Axis((0, 1, 2, 4), Sharing(tie=1))),)).bind(
        SHAPE, Routing()
    )
    allocations = {"2x2*4": "uniform"}
    while len(allocations) < num:
        share = 1.0 if len(allocations) % 2 else rng.choice([0.3, 0.5, 0.7])
        allocations[str(space.decode(space.project_point(space.sample(rng), int(5000 * share))))] = "drawn"
    for number, (text, origin) in enumerate(allocations.items()):
        allocation = Allocation.parse(text)
        total = cost(allocation, SHAPE, Routing())
        worth = sum(np.log2(1 + sum(plan.sizes("q"))) / (i + 1) for i, plan in enumerate(allocation.layers)) / 40
        for seed in seeds:
            if (number, seed) in missing:
                continue
            for step, tokens in zip(STEPS, TOKENS, strict=True):
                accuracy = 0.7 + worth * step / STEPS[-1] + rng.gauss(0, noise)
                rows.append(
                    {
                        "number": number, "allocation": text, "origin": origin, "share": 1.0, "matched": total.trainable > 4950,
                        "trainable": total.trainable, "active": total.active, "seed": seed, "step": step, "final": step == STEPS[-1],
                        "train_tokens": tokens, "accuracy": accuracy, "nll": 1 - accuracy,
                        "test_accuracy": None, "test_nll": None, "seconds": 1.0,
                    }
                )  # fmt: skip
    about = {"spec": SPEC.to_json(), "spec_digest": "s", "task_digest": "t", "model_digest": "m", "versions": {}, "failed": []}
    metadata = {"allocsearch": json.dumps(about)}
    parquet.write_table(pa.Table.from_pylist(rows, schema=SCHEMA).replace_schema_metadata(metadata), path)
    return path


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return load(made_up(tmp_path_factory.mktemp("table") / "made.parquet"), SHAPE)


@pytest.fixture(scope="module")
def setting(table):
    return Setting.of(table, num_trainings=12, token_limit=12 * TOKENS[-1])


def test_rows_that_lack_a_seed_wait(tmp_path):
    found = load(made_up(tmp_path / "growing.parquet", missing={(3, 1), (7, 2)}), SHAPE)
    assert (len(found.rows), found.num_left_out) == (38, 2)
    assert {3, 7}.isdisjoint(row.number for row in found.rows)


def test_a_table_that_has_just_begun_is_refused(tmp_path):
    with pytest.raises(SystemExit, match="2 seeds and 8 complete allocations"):
        load(made_up(tmp_path / "one.parquet", seeds=(0,)), SHAPE)


def test_the_truth_is_of_the_seeds_that_the_search_did_not_see(table):
    row = table.rows[5]
    assert table.truth(row, 1) == pytest.approx((row.reports[0][-1].accuracy + row.reports[2][-1].accuracy) / 2)
    tested = replace(row, test={0: 0.1, 2: 0.3})
    assert table.truth(tested, 1) == pytest.approx(0.2)


def test_a_wish_is_met_by_itself_or_by_what_is_nearest_at_its_size(table):
    rows = list(table.rows)
    for row in rows[::5]:
        assert table.nearest(row.point, rows) is row
        other = table.nearest(row.point, [one for one in rows if one is not row])
        assert other is not row
        close = [one for one in rows if one is not row and abs(np.log(one.trainable / row.trainable)) <= 0.1]
        assert other in close or not close


@pytest.mark.parametrize("mode", ["budget", "pareto"])
@pytest.mark.parametrize("name", STRATEGIES)
def test_a_search_pays_for_what_it_trains_and_trains_nothing_twice(table, setting, name, mode):
    ended = search(table, STRATEGIES[name], setting, mode=mode, repetition=1)
    assert len({trial.row.number for trial in ended}) == len(ended)
    before = 0
    for trial in ended:
        paid = trial.ended_at - before
        before = trial.ended_at
        assert paid == TOKENS[-1] if trial.accuracy is not None else paid in TOKENS[:-1]
        if trial.accuracy is not None:
            assert trial.accuracy == trial.row.reports[table.seeds[1]][-1].accuracy
    assert ended[-1].ended_at >= setting.token_limit or len(ended) == len(table.rows)
    assert search(table, STRATEGIES[name], setting, mode=mode, repetition=1) == ended
    stops = any(trial.accuracy is None for trial in ended)
    assert stops is (STRATEGIES[name].halving is not None)


def test_warm_starts_come_first(table, setting):
    ended = search(table, Strategy("tpe", warm=True), setting, mode="pareto", repetition=0)
    assert ended[0].row.origin == "uniform"


def test_halving_starts_at_the_first_rung_that_ranks_like_the_end(table):
    setting = Setting.of(table, num_trainings=12, token_limit=1)
    assert list(setting.agreement) == list(STEPS[:-1])
    assert setting.first_rung == min(step for step, value in setting.agreement.items() if value >= replay_search.INFORMATIVE)


def test_a_standing_is_in_true_values(table):
    truth = {row.number: table.truth(row, 0) for row in table.rows}
    best = max((row for row in table.rows if row.trainable <= 5000), key=lambda row: truth[row.number])
    trials = [replay_search.Ended(row, row.reports[0][-1].accuracy, i) for i, row in enumerate(table.rows)]
    whole = replay_page.standing(table, trials, truth, mode="pareto")
    assert whole["tried"] == pytest.approx(0.0)
    assert whole["selection"] == pytest.approx(whole["regret"])
    assert 50 < whole["hypervolume"] <= 100
    lucky = [replay_search.Ended(table.rows[0], 9.9, 0), replay_search.Ended(best, 0.1, 1)]
    assert replay_page.standing(table, lucky, truth, mode="budget")["regret"] == pytest.approx(
        100 * (truth[best.number] - truth[0]), abs=1e-4
    )
    nothing = replay_page.standing(table, [], truth, mode="pareto")
    assert nothing["hypervolume"] == 0
    assert nothing["regret"] == pytest.approx(100 * (truth[best.number] - min(truth.values())), abs=1e-4)


def test_a_race_names_the_best_mean_of_two_seeds_and_helps_where_seeds_are_noisy(tmp_path):
    noisy = load(made_up(tmp_path / "noisy.parquet", seeds=(0, 1, 2, 3, 4), noise=0.03), SHAPE)
    setting = Setting.of(noisy, num_trainings=16, token_limit=16 * TOKENS[-1])
    contenders = [replay_search.Ended(row, 0.0, 0) for row in noisy.rows[:4]]
    named = replay_race._winner(noisy, contenders, (1, 3))
    means = {row.number: row.reports[1][-1].accuracy + row.reports[3][-1].accuracy for row in noisy.rows[:4]}
    assert means[named.number] >= max(means.values()) - 2 / SPEC.proxy.search_rows
    found = replay_race.ablation(noisy, setting, 20)
    assert np.mean([one["with"] for one in found]) < np.mean([one["without"] for one in found])


def test_the_whole_replay_writes_its_page_and_figure(tmp_path, monkeypatch):
    path = made_up(tmp_path / "made.parquet", num=32)
    monkeypatch.setattr(replay, "load", lambda found: load(found, SHAPE))
    monkeypatch.setattr("sys.argv", ["replay.py", str(path), "--repetitions", "2", "--out", str(tmp_path)])
    replay.main()
    found = json.loads((tmp_path / "replay.json").read_text())
    assert len(found["tables"][0]["cases"]) == 2 * len(STRATEGIES)
    page = (tmp_path / "replay.md").read_text()
    assert all(f"| {name} |" in page for name in STRATEGIES)
    traces = plotly.io.read_json(str(tmp_path / "replay_figure.json")).data
    assert len(traces) == 4 * len(STRATEGIES), "a band and a line in each of two modes"
