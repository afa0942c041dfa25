"""The short form of the fault matrix; the long one is `python -m tests.faults`."""

import os

import pytest

from tests.faults.__main__ import following, table
from tests.faults.bench import Bench
from tests.faults.matrix import MOMENTS, Fault, faults

SHORT = [
    Fault("driver", "kill", "telling", "inline"),
    Fault("driver", "restart", "confirming", "inline"),
    Fault("database", "kill", "rung", "inline"),
    Fault("database", "restart", "asking", "inline"),
]


@pytest.mark.parametrize("fault", SHORT, ids=str)
def test_a_struck_study_ends_as_an_undisturbed_one(fault, postgres, tmp_path):
    index = faults().index(fault)
    found = Bench(postgres, tmp_path / "bench", f"struck-{index}-{os.getpid()}", index=index).run(fault)
    assert found["struck"], "the moment to strike did not come"
    assert found["wrong"] == [], (tmp_path / "bench" / "log").read_text()


def line(fault, *, hit=True):
    return {"fault": str(fault), "hit": hit, "wrong": []}


def test_the_long_form_strikes_every_pair_and_goes_on_where_it_was_stopped():
    pairs = {(fault.whom, fault.how, fault.when) for fault in faults()}
    assert len(pairs) == 4 * 3 * len(MOMENTS)
    done = []
    while (fault := following(done, hits=100, rounds=1, where=["inline", "cluster", "local"])) is not None:
        assert fault in faults()
        done.append(line(fault, hit=len(done) % 10 != 0))
    struck = [line["fault"] for line in done if line["hit"]]
    assert len(struck) == 100
    assert set(struck) == set(map(str, faults()))


def test_a_fault_that_never_meets_its_moment_is_given_up():
    never = faults()[0]
    done = [line(never, hit=False)] * 6 + [line(fault) for fault in faults()[1:]]
    assert following(done, hits=1, rounds=1, where=["inline"]) is None
    assert "| driver | kill | inline | 0 | 1 | 1 | 1 | 1 | 6 | 0 |" in table(done)
