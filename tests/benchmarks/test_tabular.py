"""Tables of trained allocations: which ones, that a killed builder goes on where it was, and what the Parquet file says."""

import json

import pytest
import tabular_build
from pyarrow import parquet
from tabular_pool import pool

from allocsearch import spec as specs
from allocsearch.core.allocation import Allocation
from allocsearch.core.budget import cost
from allocsearch.core.errors import InputError
from allocsearch.core.trial import Assignment
from allocsearch.planning import plan
from allocsearch.training.finetune import ProxyEvaluator

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

PROXY = {"train_rows": 16, "search_rows": 8, "test_rows": 8, "batch_size": 4, "dtype": "float32", "seeds": [3, 5], "rungs": [1, 2]}
PER_LAYER = {
    "schema": "allocsearch/space/v1",
    "name": "per-layer",
    "parts": {
        "all": {
            "experts": {"choices": [0, 1, 2, 4], "share": {"tie": 1}},
            "rank": {"choices": [1, 2, 3, 4, 5, 6, 7, 8], "share": {"tie": 1}},
        }
    },
}


@pytest.fixture
def study(tmp_path, write_study):
    return write_study(tmp_path / "study.yaml", proxy=PROXY, space=PER_LAYER, budget="40K-params")


def built(monkeypatch, *arguments):
    monkeypatch.setattr("sys.argv", ["tabular_build.py", *map(str, arguments)])
    tabular_build.main()


def test_a_pool_is_half_at_the_budget_distinct_and_the_same_for_everyone(study):
    planned = plan(specs.load(str(study)))
    entries = pool(planned, 24, seed=1)
    assert entries == pool(planned, 24, seed=1) != pool(planned, 24, seed=2)
    assert [entry.number for entry in entries] == list(range(24))
    assert len({entry.allocation for entry in entries}) == 24
    limit = planned.budget.max_trainable
    for entry in entries:
        total = cost(Allocation.parse(entry.allocation), planned.shape, planned.space.routing)
        assert (entry.trainable, entry.active) == (total.trainable, total.active)
        assert 0 < total.trainable <= limit
        assert entry.matched == (total.trainable >= 0.99 * limit)
    assert sum(entry.matched for entry in entries) == 12
    assert {"lora", "per-layer", "per-layer-thinned"} <= {entry.origin for entry in entries}


def test_a_pool_that_the_spaces_have_not_is_refused(study, monkeypatch):
    monkeypatch.setattr("tabular_pool._ATTEMPTS", 1)
    with pytest.raises(InputError, match=r"the spaces must offer 60 allocations, but got \d+: ask for fewer"):
        pool(plan(specs.load(str(study))), 60, seed=0)


def test_a_stopped_builder_goes_on_and_the_table_is_what_the_proxy_says(study, tmp_path, monkeypatch, capsys):
    out, target = tmp_path / "table", tmp_path / "table.parquet"
    command = [study, "--allocations", 8, "--out", out, "--test"]
    built(monkeypatch, *command, "--limit", 3)
    first = {file.name: file.read_bytes() for file in (out / "parts").iterdir()}
    assert sorted(first) == ["0000-3.json", "0000-5.json", "0001-3.json"]
    built(monkeypatch, *command)
    assert len(list((out / "parts").glob("*.json"))) == 16
    assert all((out / "parts" / name).read_bytes() == content for name, content in first.items()), "a finished training ran again"
    built(monkeypatch, study, "--out", out, "--combine", target)
    assert "48 rows of 16 trainings, 0 failed, 0 missing" in capsys.readouterr().out

    table = parquet.read_table(target)
    about = json.loads(table.schema.metadata[b"allocsearch"])
    spec = specs.load(str(study))
    assert (about["spec_digest"], about["failed"]) == (spec.digest, [])
    rows = [row for row in table.to_pylist() if (row["number"], row["seed"]) == (1, 5)]
    assert [row["step"] for row in rows] == [1, 2, 4]
    assert [row["final"] for row in rows] == [False, False, True]
    assert 0 < rows[0]["train_tokens"] < rows[1]["train_tokens"] < rows[2]["train_tokens"]
    allocation, routing = Allocation.parse(rows[0]["allocation"]), spec.routing.routing()
    evaluate = ProxyEvaluator(spec, spec.model)
    on = {
        split: evaluate(Assignment(0, allocation, routing, (5,), (1, 2), split=split), lambda _rung: True) for split in ("search", "test")
    }
    assert [row["nll"] for row in rows] == [*(rung.nll for rung in on["search"].rungs), on["search"].nll]
    assert [row["test_nll"] for row in rows] == [None, None, on["test"].nll]


def test_another_study_is_not_mixed_into_a_table(study, tmp_path, monkeypatch, write_study):
    out = tmp_path / "table"
    built(monkeypatch, study, "--allocations", 8, "--out", out, "--limit", 0)
    changed = write_study(tmp_path / "changed.yaml", proxy={**PROXY, "learning_rate": 0.01}, space=PER_LAYER, budget="40K-params")
    with pytest.raises(InputError, match="must have the study and pool that it began with"):
        built(monkeypatch, changed, "--allocations", 8, "--out", out)


def test_a_training_that_fails_has_no_rows_and_is_named(study, tmp_path, monkeypatch):
    out, target = tmp_path / "table", tmp_path / "table.parquet"
    monkeypatch.setattr("allocsearch.training.objective.completion_loss", lambda *_args: (_ for _ in ()).throw(ValueError("broken")))
    built(monkeypatch, study, "--allocations", 8, "--out", out, "--limit", 1)
    built(monkeypatch, study, "--out", out, "--combine", target)
    table = parquet.read_table(target)
    assert table.num_rows == 0
    (failed,) = json.loads(table.schema.metadata[b"allocsearch"])["failed"]
    assert (failed["number"], failed["seed"]) == (0, 3)
    assert "broken" in failed["failed"]


def test_an_unfinished_table_is_taken_up_from_its_parquet_alone(study, tmp_path, monkeypatch, capsys):
    first, second = tmp_path / "first", tmp_path / "second"
    partial, whole = tmp_path / "partial.parquet", tmp_path / "whole.parquet"
    command = [study, "--allocations", 8]
    built(monkeypatch, *command, "--out", first, "--limit", 15)
    built(monkeypatch, study, "--out", first, "--combine", partial)
    built(monkeypatch, *command, "--out", second, "--take-up", partial, "--limit", 1)
    assert "15 trainings taken over" in capsys.readouterr().out
    built(monkeypatch, study, "--out", second, "--combine", whole)
    before, after = parquet.read_table(partial).to_pylist(), parquet.read_table(whole).to_pylist()
    assert [row for row in after if row in before] == before
    assert len(after) == len(before) * 16 // 15
    with pytest.raises(ValueError, match="must have the same pool"):
        built(monkeypatch, *command, "--seed", 1, "--out", tmp_path / "third", "--take-up", partial)
