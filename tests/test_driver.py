"""What a resume makes of a study's file that was edited meanwhile."""

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from allocsearch import driver
from allocsearch import spec as specs
from allocsearch.backends.study_record import StudyRecord
from allocsearch.core.errors import InputError

QUICKSTART = yaml.safe_load((Path(__file__).parents[1] / "studies" / "quickstart.yaml").read_text(encoding="utf-8"))


@pytest.fixture
def edited(tmp_path):
    """The record of a study and its spec as resumed, after its file was given other limits."""
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(QUICKSTART), encoding="utf-8")
    spec = specs.load(str(path))
    record = StudyRecord("s", spec, {"source": driver.source_of(str(path), {}, spec)}, (), frozenset(), None)

    def resumed(say=lambda _: None, num_trials=spec.trials, changes=(), **limits):
        path.write_text(yaml.safe_dump({**QUICKSTART, **dict(changes), "limits": limits}), encoding="utf-8")
        return record.spec, driver._unchanged(record, num_trials, say)

    return resumed


@pytest.mark.parametrize("seconds", [7.0, None])
def test_how_often_trials_are_kept_may_change_and_is_heeded(edited, seconds):
    before, after = edited(checkpoint_seconds=seconds)
    assert before.limits.checkpoint_seconds == 120.0
    assert after.limits.checkpoint_seconds == seconds
    assert after.digest == before.digest


def test_what_is_no_part_of_the_result_is_read_anew(edited):
    before, after = edited(changes={"resources": {"gpus": 2, "threads": 3}}, max_hours=99)
    assert (before.resources.gpus, before.limits.max_hours) == (None, None)
    assert (after.resources.gpus, after.resources.threads, after.limits.max_hours) == (2, 3, 99)
    assert after.digest == before.digest


def test_of_a_file_and_an_option_the_one_that_changed_last_holds(edited, tmp_path):
    """The file that stays as it was says nothing; neither does one that is gone, and it takes nothing back."""
    said = []
    before, after = edited(max_hours=99)
    record = StudyRecord("s", before, {}, (), frozenset(), None)
    assert driver._refiled(record, after, said.append) == {"max_hours": 99}
    read = replace(record, attrs={driver._FILED: {"max_hours": 99}, "source": {"file": str(tmp_path / "gone.yaml")}})
    assert driver._refiled(read, after, said.append) == {}
    assert driver._refiled(read, driver._unchanged(read, 1, said.append), said.append) == {}
    assert driver._refiled(read, before, said.append) == {"max_hours": None}
    assert [line.partition(":")[0] for line in said] == [
        "`limits.max_hours` in the study's file is 99.0 now",
        "`limits.max_hours` in the study's file is no longer set",
    ]


def test_what_a_resume_does_not_read_again_is_named_with_its_option(edited):
    said = []
    changes = {"trials": 50, "confirmation": {"candidates": 7, "seeds": 9}}
    edited(said.append, changes=changes)
    [line] = said
    for part in ("trials: 14 → 50", "confirmation.seeds: ", "--trials", "allocsearch confirm"):
        assert part in line
    edited(said.append, num_trials=50, changes={"trials": 50})
    edited(said.append, num_trials=20)
    assert said == [line], "what an option has said already is no news, and a file that stays as it was neither"


def test_a_resume_from_another_folder_and_without_leave_reads_what_the_study_began_with(tmp_path, monkeypatch):
    """The study's file names data elsewhere, which was allowed then, and the user named a model by a relative path."""
    there, rows = tmp_path / "there", {"name": "rows", "path": "../rows.csv", "template": "{text}", "label_column": "y"}
    (there / "model").mkdir(parents=True)
    (there / "study.yaml").write_text(yaml.safe_dump({**QUICKSTART, "task": rows}), encoding="utf-8")
    monkeypatch.setenv("ALLOCSEARCH_FOLDERS", str(tmp_path))
    monkeypatch.chdir(there)
    overrides = {"model": "./model", "budget": "1%", "name": None}
    spec = specs.load("study.yaml", overrides)
    record = StudyRecord("s", spec, {"source": driver.source_of("study.yaml", overrides, spec)}, (), frozenset(), None)
    monkeypatch.delenv("ALLOCSEARCH_FOLDERS")
    monkeypatch.chdir(tmp_path)
    assert driver._unchanged(record, spec.trials, print) == spec


def test_what_would_change_results_is_refused(edited):
    with pytest.raises(InputError, match=r"has changed \(limits.max_attempts: 3 → 9\): undo that"):
        edited(max_attempts=9)
