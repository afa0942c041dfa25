"""JSON lines: each parses, says of what it speaks, and holds nothing that JSON does not know."""

import json
import math

import pytest

from allocsearch import logs
from allocsearch.core.allocation import Allocation
from allocsearch.core.budget import Cost
from allocsearch.core.errors import InputError
from allocsearch.core.geometry import Routing
from allocsearch.core.trial import Assignment, Failed, Infeasible, Lost, Measured, RungScore, SeedScore, Stopped, Trial

RUNG = RungScore(seed=0, step=50, accuracy=0.5, nll=math.nan)
OUTCOMES = {
    "finished": Measured((SeedScore(0, (True, False), (0.5, 1.5)),), 2.5, "host/1"),
    "stopped": Stopped((RUNG,), 1.0, "host/2"),
    "infeasible": Infeasible("out of memory", 0.25, "host/4"),
    "failed": Failed('the loss must be finite: "nan"\nat step 3', 0.5, "host/3"),
    "lost": Lost("it died"),
    "running": None,
}


def trial_of(outcome, number=7):
    return Trial(Assignment(number, Allocation.parse("4x8*2"), Routing(), (0,)), Cost(100, 50), "tpe", 2, 1.0, outcome)


@pytest.fixture
def written(monkeypatch, capsys):
    monkeypatch.setenv("ALLOCSEARCH_LOG", "json")

    def read():
        out, err = capsys.readouterr()
        assert out == ""
        return [json.loads(line, parse_constant=pytest.fail) for line in err.splitlines()]

    return read


@pytest.mark.parametrize("state", OUTCOMES)
def test_a_trial_is_one_line_that_says_which_and_how(written, state):
    with logs.about(study="night-run"):
        logs.log_trial(trial_of(OUTCOMES[state]), stage="search", done=3, total=9)
    (line,) = written()
    said = "lost" if state == "running" else state  # what comes back without an end
    assert line.items() >= {
        "event": "trial", "level": "info", "study": "night-run", "stage": "search", "trial": 7, "state": said,
        "attempt": 2, "origin": "tpe", "trainable": 100, "active": 50, "allocation": "4x8*2", "done": 3, "total": 9,
    }.items()  # fmt: skip
    assert line["time"].endswith("Z")
    assert line.get("worker", "") == getattr(OUTCOMES[state], "worker", "")


def test_what_became_of_it_is_told(written):
    for state in ("finished", "stopped", "failed"):
        logs.log_trial(trial_of(OUTCOMES[state]), stage="search", done=1, total=1)
    finished, stopped, failed = written()
    assert (finished["accuracy"], finished["nll"], finished["seconds"]) == (0.5, 1.0, 2.5)
    assert (stopped["step"], stopped["accuracy"]) == (50, 0.5)
    assert failed["reason"] == 'the loss must be finite: "nan"\nat step 3'


def test_numbers_that_json_does_not_know_are_null(written):
    logs.log("note", value=math.nan, other=math.inf, fine=1.5)
    (line,) = written()
    assert (line["value"], line["other"], line["fine"]) == (None, None, 1.5)


def test_a_study_is_named_only_within(written):
    with logs.about(study="one"):
        logs.log("note", message="in")
    logs.log("note", message="out")
    assert [line.get("study") for line in written()] == ["one", None]


@pytest.mark.parametrize("value", ["yaml", "JSON", " json"])
def test_another_form_is_refused(monkeypatch, value):
    monkeypatch.setenv("ALLOCSEARCH_LOG", value)
    with pytest.raises(InputError, match="`text` or `json`"):
        logs.check()


@pytest.mark.parametrize(("value", "machines"), [("text", False), ("", False), ("json", True)])
def test_the_known_forms_are_not(monkeypatch, value, machines):
    monkeypatch.setenv("ALLOCSEARCH_LOG", value)
    logs.check()
    assert logs.as_json() is machines
