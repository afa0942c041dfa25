"""What samplers make of stopped trials, which have no values to learn from."""

from statistics import fmean

import pytest

from allocsearch.core.trial import RungScore, Stopped
from tests.conformance.toy import allocation, measured


@pytest.fixture
def url(sqlite_url):
    return sqlite_url


def test_only_baselines_may_not_be_stopped(desk):
    study = desk.create(trials=3)
    study.enqueue(allocation("2x2*4"), "uniform")
    study.enqueue(allocation("1*4"), "from:earlier/7")
    assignments = [study.ask() for _ in range(3)]
    assert [assignment.stoppable for assignment in assignments] == [False, True, True]
    assert [assignment.params for assignment in assignments] == [trial.cost.trainable for trial in study.trials()]


def _late_share(desk, sampler, seed):
    """Of the last half of 40 trials, the share with three experts or more at the bottom, all of which are stopped."""
    desk.name = f"{desk.name}-{sampler}-{seed}"
    study = desk.create(sampler=sampler, trials=40, seed=seed)
    wide = []
    while (assignment := study.ask()) is not None:
        wide.append(len(assignment.allocation.layers[0].sizes("q")) > 2)
        study.tell(assignment.number, Stopped((RungScore(0, 10, 0.5, 0.7),), 0.1, "here") if wide[-1] else measured(assignment))
    assert len(wide) == 40
    return fmean(wide[20:])


def test_tpe_turns_away_from_what_was_stopped(desk):
    late = {sampler: fmean(_late_share(desk, sampler, seed) for seed in range(2)) for sampler in ("tpe", "random")}
    assert late["tpe"] < late["random"] - 0.1
