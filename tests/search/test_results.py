"""Views of a study's trials: points, picks, counts, pace."""

import time

import pytest

from allocsearch.core.allocation import Allocation
from allocsearch.core.budget import Cost
from allocsearch.core.errors import InputError
from allocsearch.core.front import wilson_interval
from allocsearch.core.geometry import Routing
from allocsearch.core.trial import Assignment, Failed, Measured, SeedScore, Stopped, Trial
from allocsearch.search import results
from allocsearch.search.finalists import finalists

ROWS = 100


def trial(number, outcome, *, params=1000, origin="tpe"):
    return Trial(Assignment(number, Allocation.parse("1"), Routing(), (0,)), Cost(params, params), origin, outcome=outcome)


def scored(right, *, seconds=1.0, seeds=(0,)):
    row = tuple(i < right for i in range(ROWS))
    return Measured(tuple(SeedScore(seed, row, (0.5,) * ROWS) for seed in seeds), seconds)


TRIALS = [
    trial(0, scored(70), params=1_000, origin="uniform"),
    trial(1, scored(90), params=10_000),
    trial(2, Failed("why", 3.0)),
    trial(3, Stopped((), 2.0)),
    trial(4, None),
    trial(5, None),
    trial(6, scored(60), params=5_000, origin="random"),
    trial(7, scored(91), params=90_000),
    trial(8, scored(86), params=2_000, origin="mola-2468"),
]


def test_points_are_the_measured_trials_with_their_intervals():
    found = results.points(TRIALS)
    assert [point.trial.number for point in found] == [0, 1, 6, 7, 8]
    assert found[0].interval == wilson_interval(0.7, ROWS)
    assert found[0].num_rows == ROWS


def test_the_front_is_smallest_first():
    assert [point.trial.number for point in results.pareto(TRIALS)] == [0, 8, 1, 7]
    assert results.pareto([trial(0, None)]) == []


def test_baselines_are_what_no_sampler_proposed():
    assert [point.trial.number for point in results.baselines(TRIALS)] == [0, 8]


@pytest.mark.parametrize(("pick", "number"), [("best", 7), ("knee", 8), ("smallest", 8)])
def test_picks(pick, number):
    chosen = results.picked(TRIALS, pick)
    assert chosen.trial.number == number
    line = results.reason(pick, chosen, TRIALS)
    assert f"{chosen.measured.accuracy:.3f} in [" in line
    assert "over 100 rows, seeds 0" in line
    assert "\n" not in line


def test_a_pick_says_what_it_was_weighed_against():
    def why(pick, trials):
        return results.reason(pick, results.picked(trials, pick), trials)

    assert "highest accuracy of 5 trials" in why("best", TRIALS)
    assert "of 4 on the front" in why("knee", TRIALS)
    assert "2% of those of the best, trial 7" in why("smallest", TRIALS)
    alone = TRIALS[:1]
    assert "a front of 1 has no knee" in why("knee", alone)
    assert "no smaller one is inside its 95 % interval" in why("smallest", alone)


@pytest.mark.parametrize("pick", ["best", "knee", "smallest"])
def test_there_is_nothing_to_pick_before_the_first_finish(pick):
    with pytest.raises(InputError, match="at least one finished trial must exist to pick from"):
        results.picked([trial(0, None), trial(1, Failed("x"))], pick)


def test_progress_counts_every_trial_once():
    progress = results.progress(TRIALS, frozenset({5}), num_trials=20)
    assert progress.counts == {"finished": 5, "stopped": 1, "failed": 1, "infeasible": 0, "running": 1, "waiting": 1}
    assert sum(progress.counts.values()) == len(TRIALS)
    assert progress.seconds_spent == 5 * 1.0 + 3.0 + 2.0
    assert progress.best.trial.number == 7
    assert progress.num_trials == 20
    assert results.progress([], frozenset(), num_trials=1).best is None


def test_pace(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    pace = results.Pace()
    now[0] += 60
    assert (pace.trials_per_hour, pace.seconds_left(5)) == (0.0, None)
    pace.count()
    pace.count()
    assert pace.trials_per_hour == 120
    assert pace.seconds_left(5) == 150


def by_seed(**right):
    """Rows right by seed, as in `s0=80`."""
    scores = [SeedScore(int(name[1:]), tuple(i < n for i in range(ROWS)), (1 - n / ROWS,) * ROWS) for name, n in right.items()]
    return Measured(tuple(scores), 1.0)


def test_a_hard_further_seed_does_not_count_against_those_who_had_it():
    # The second seed costs 10 rows on average; the first trial loses 5 only, so it gains on the others.
    raced = [trial(0, by_seed(s0=70, s9=65)), trial(1, by_seed(s0=74, s9=59), params=2000)]
    points = results.points([*raced, trial(2, by_seed(s0=74), params=3000)])
    assert [point.accuracy for point in points] == pytest.approx([(0.70 + 0.75) / 2, (0.74 + 0.69) / 2, 0.74])
    assert [point.nll for point in points] == pytest.approx([(0.30 + 0.25) / 2, (0.26 + 0.31) / 2, 0.26])
    assert points[0].interval == pytest.approx(wilson_interval(0.725, ROWS))


def test_one_seed_cannot_win_against_those_that_raced():
    raced = [trial(0, by_seed(s0=70, s9=65)), trial(1, by_seed(s0=74, s9=59), params=2000)]
    lucky = trial(2, by_seed(s0=99), params=3000)
    assert results.picked([*raced, lucky], "best").trial.number == 0
    assert results.picked([*raced, lucky], "smallest").trial.number == 0
    assert results.picked([raced[0], lucky, trial(3, by_seed(s0=98, s9=90), params=4000)], "best").trial.number == 3


def test_trials_without_a_common_seed_are_taken_as_they_are():
    points = results.points([trial(0, by_seed(s1=70)), trial(1, by_seed(s2=60))])
    assert [point.accuracy for point in points] == [0.7, 0.6]


def test_a_study_of_nll_is_ranked_by_nll():
    likelier = Measured((SeedScore(0, (True,) * 70 + (False,) * 30, (0.2,) * ROWS),), 1.0)
    trials = [trial(0, scored(90), params=5_000), trial(1, likelier, params=9_000), trial(2, scored(60), params=6_000)]
    assert results.picked(trials, "best").trial.number == 0
    best = results.picked(trials, "best", "nll")
    assert best.trial.number == 1
    assert [point.trial.number for point in results.pareto(trials, "nll")] == [0, 1]  # trial 2 is as likely as 0 and larger
    assert results.progress(trials, frozenset(), num_trials=3, metric="nll").best == best
    assert "lowest NLL of 3 trials" in results.reason("best", best, trials, "nll")
    assert [point.trial.number for point in finalists(trials, 3, "nll")] == [1, 0, 2]


def test_the_smallest_by_nll_lies_within_the_interval_of_the_best():
    def spread(low, high):  # half of the rows each
        return Measured((SeedScore(0, (True,) * ROWS, (low, high) * (ROWS // 2)),), 1.0)

    trials = [trial(0, spread(0.0, 1.0), params=9_000), trial(1, spread(0.05, 1.05), params=100), trial(2, spread(0.2, 1.2), params=10)]
    low, high = results.points(trials)[0].nll_interval
    half = 1.96 * 0.5 * (ROWS / (ROWS - 1)) ** 0.5 / ROWS**0.5  # of the standard deviation with n - 1
    assert (low, high) == pytest.approx((0.5 - half, 0.5 + half))
    assert results.picked(trials, "smallest", "nll").trial.number == 1  # 0.55 is inside 0.5 ± 0.098, and 0.7 is not
