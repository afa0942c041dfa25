"""What a resume makes of a study's file that was edited meanwhile."""

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

    def resumed(**limits):
        path.write_text(yaml.safe_dump({**QUICKSTART, "limits": limits}), encoding="utf-8")
        return record.spec, driver._unchanged(record)

    return resumed


@pytest.mark.parametrize("seconds", [7.0, None])
def test_how_often_trials_are_kept_may_change_and_is_heeded(edited, seconds):
    before, after = edited(checkpoint_seconds=seconds)
    assert before.limits.checkpoint_seconds == 120.0
    assert after.limits.checkpoint_seconds == seconds
    assert after.digest == before.digest


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
    assert driver._unchanged(record) == spec


def test_what_would_change_results_is_refused(edited):
    with pytest.raises(InputError, match=r"has changed \(limits.max_attempts: 3 → 9\): undo that"):
        edited(max_attempts=9)
