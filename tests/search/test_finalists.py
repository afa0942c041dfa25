"""What follows a search: how many random trainings cost as much."""

from allocsearch.core.allocation import Allocation
from allocsearch.core.budget import Cost
from allocsearch.core.geometry import Routing
from allocsearch.core.trial import Assignment, Failed, Measured, RungScore, SeedScore, Stopped, Trial
from allocsearch.search.finalists import num_trainings

MEASURED = Measured((SeedScore(0, (True,), (0.5,)),), 1.0)


def trial(number, outcome, *, origin="tpe", seeds=(0, 1)):
    return Trial(Assignment(number, Allocation.parse("1"), Routing(), seeds), Cost(1, 1), origin, outcome=outcome)


def stopped(*steps):
    return Stopped(tuple(RungScore(0, step, 0.5, 0.7) for step in steps), 1.0)


def test_a_stopped_trial_counts_up_to_its_rung_of_its_first_seed():
    assert num_trainings([trial(0, MEASURED), trial(1, MEASURED)], 20) == 2
    halved = [trial(n, stopped(5, 10)) for n in range(4)]  # half of the first of two seeds: a quarter each
    assert num_trainings(halved, 20) == 1
    assert num_trainings([*halved, trial(4, MEASURED)], 20) == 2
    assert num_trainings([*halved, trial(4, stopped(5))], 20) == 2  # what is begun counts whole: the baseline gets no less


def test_only_proposals_count_and_failures_count_whole():
    trials = [trial(0, MEASURED, origin="uniform"), trial(1, Failed("why")), trial(2, None), trial(3, MEASURED)]
    assert num_trainings(trials, 20) == 3
    assert num_trainings([], 20) == 0
