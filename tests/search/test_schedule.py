"""Laws of successive halving at rungs, whatever the order in which reports come in."""

import math
import random
from itertools import pairwise
from statistics import fmean

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from allocsearch.core.allocation import Allocation
from allocsearch.core.budget import Cost
from allocsearch.core.front import Candidate, dominates
from allocsearch.core.geometry import Routing
from allocsearch.core.trial import Assignment, Failed, Measured, RungScore, SeedScore, Stopped, Trial
from allocsearch.scheduler_spec import SchedulerSpec
from allocsearch.search.schedule import Entry, Halving, best, fronts, halving, spread
from allocsearch.spec import StudySpec

STEPS = (5, 10, 20)
coarse = st.integers(0, 4)  # so that ties are common


@st.composite
def reports(draw, *, steps=STEPS, max_trials=14):
    """Reports in the order in which they come in; a trial has one size, and reports at a rung once."""
    sizes = draw(st.lists(coarse, min_size=1, max_size=max_trials))
    pairs = [(number, step) for number in range(len(sizes)) for step in steps]
    chosen = draw(st.permutations(pairs)) if draw(st.booleans()) else pairs
    scores = draw(st.lists(st.tuples(coarse, coarse), min_size=len(pairs), max_size=len(pairs)))
    return [
        (number, RungScore(0, step, right / 4, nll / 4), 10 ** sizes[number])
        for (number, step), (right, nll) in zip(chosen, scores, strict=True)
    ]


etas = st.integers(2, 5)
modes = st.fixed_dictionaries({"by_nll": st.booleans(), "pareto": st.booleans()})


def heard(coming, *, eta=3, first_rung=1, **options):
    """A scheduler that has heard reports, and its answers."""
    scheduler = Halving(seed=0, eta=eta, first_rung=first_rung, **options)
    return scheduler, [scheduler.go_on(number, rung, params=params) for number, rung, params in coming]


def kept(scheduler):
    return {step: scheduler.kept(step) for step in STEPS}


def candidate(number, rung, params, *, by_nll, pareto):
    return Candidate(number, -rung.nll if by_nll else rung.accuracy, params if pareto else 0, (0, 0))


@given(reports(), etas, modes, st.randoms(use_true_random=False))
def test_who_is_kept_does_not_depend_on_the_order_of_reports(coming, eta, mode, rng):
    shuffled = rng.sample(coming, len(coming))
    assert kept(heard(coming, eta=eta, **mode)[0]) == kept(heard(shuffled, eta=eta, **mode)[0])


@given(reports(), etas, modes)
def test_nothing_is_stopped_below_the_first_rung_or_on_another_seed(coming, eta, mode):
    _, answers = heard(coming, eta=eta, first_rung=10, **mode)
    assert all(answer for (_, rung, _), answer in zip(coming, answers, strict=True) if rung.step < 10)
    others = [(number, RungScore(7, rung.step, rung.accuracy, rung.nll), params) for number, rung, params in coming]
    scheduler, answers = heard(others, eta=eta, **mode)
    assert all(answers)
    assert kept(scheduler) == dict.fromkeys(STEPS, frozenset())


@given(reports(), etas, modes)
def test_fewer_than_eta_reports_decide_nothing(coming, eta, mode):
    _, answers = heard(coming, eta=eta, **mode)
    for i, (answer, (_, rung, _)) in enumerate(zip(answers, coming, strict=True)):
        assert answer or sum(other.step == rung.step for _, other, _ in coming[: i + 1]) >= eta


@given(reports(), etas, modes)
def test_only_a_dominated_trial_is_stopped_and_only_by_a_full_share(coming, eta, mode):
    scheduler = Halving(seed=0, eta=eta, first_rung=1, **mode)
    for i, (number, rung, params) in enumerate(coming):
        if scheduler.go_on(number, rung, params=params):
            continue
        at_rung = [candidate(*report, **mode) for report in coming[: i + 1] if report[1].step == rung.step]
        own = at_rung[-1]
        assert any(dominates(other, own) for other in at_rung)
        others_kept = scheduler.kept(rung.step) - {number}
        assert len(others_kept) >= math.ceil(len(at_rung) / eta)
        assert not any(dominates(own, other) for other in at_rung if other.number in others_kept)


@given(reports(), etas, modes)
def test_what_is_kept_is_the_first_front_and_else_the_best_share(coming, eta, mode):
    scheduler, _ = heard(coming, eta=eta, **mode)
    for step in STEPS:
        at_rung = [candidate(*report, **mode) for report in coming if report[1].step == step]
        front = {c.number for c in at_rung if not any(dominates(other, c) for other in at_rung)}
        share = len(at_rung) if len(at_rung) < eta else math.ceil(len(at_rung) / eta)
        assert front <= scheduler.kept(step)
        assert len(scheduler.kept(step)) == max(share, len(front) if len(at_rung) >= eta else 0)
        for better in at_rung:
            for worse in at_rung:
                if dominates(better, worse) and worse.number in scheduler.kept(step):
                    assert better.number in scheduler.kept(step)


@given(reports(), etas, modes, st.data())
def test_a_report_that_comes_twice_counts_once(coming, eta, mode, data):
    scheduler, answers = heard(coming, eta=eta, **mode)
    before = kept(scheduler)
    at = data.draw(st.integers(0, len(coming) - 1))
    doubled = [*coming[: at + 1], coming[at], *coming[at + 1 :]]
    again, answers_again = heard(doubled, eta=eta, **mode)
    assert answers_again[at + 1] == answers_again[at]
    assert answers_again[: at + 1] + answers_again[at + 2 :] == answers
    number, rung, params = coming[at]
    late = scheduler.go_on(number, rung, params=params)
    assert late == (number in before[rung.step])
    assert kept(again) == kept(scheduler) == before


@given(reports(), etas, modes, st.tuples(coarse, coarse), st.data())
def test_a_trial_that_runs_again_replaces_what_it_reported(coming, eta, mode, first, data):
    at = data.draw(st.integers(0, len(coming) - 1))
    number, rung, params = coming[at]
    earlier = (number, RungScore(0, rung.step, first[0] / 4, first[1] / 4), params)
    assert kept(heard([earlier, *coming], eta=eta, **mode)[0]) == kept(heard(coming, eta=eta, **mode)[0])


@given(reports(), etas, modes)
def test_it_is_rebuilt_from_the_rungs_of_a_study(coming, eta, mode):
    """Trials that were stopped reported no more; those of failed and running trials are not in a study."""
    scheduler = Halving(seed=0, eta=eta, first_rung=1, **mode)
    told, ended = {}, set()
    for number, rung, params in sorted(coming, key=lambda report: report[1].step):
        if number not in ended:
            told.setdefault((number, params), []).append(rung)
            if not scheduler.go_on(number, rung, params=params):
                ended.add(number)
    trials = [trial(number, params, tuple(rungs), stopped=number in ended) for (number, params), rungs in told.items()]
    rebuilt = Halving(seed=0, eta=eta, first_rung=1, **mode)
    rebuilt.replay([*trials, *trials, trial(99, 1, None), trial(100, 1, ())])
    assert kept(rebuilt) == kept(scheduler)


def trial(number, params, rungs, *, stopped=False):
    outcome = Failed("why") if rungs is None else Measured((SeedScore(0, (True,), (0.5,)),), 1.0, rungs=rungs)
    if stopped:
        outcome = Stopped(rungs, 1.0)
    return Trial(Assignment(number, Allocation.parse("1"), Routing(), (0,)), Cost(params, params), "tpe", outcome=outcome)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_no_number_is_no_rival_and_goes_on(bad):
    scheduler, answers = heard([(0, RungScore(0, 5, 0.5, bad), 1), *[(i, RungScore(0, 5, 0.5, float(i)), 1) for i in (1, 2, 3, 4)]])
    assert answers == [True, True, True, False, False]
    assert scheduler.kept(5) == {1, 2}


def test_one_metric_alone_decides_with_ties_parted_by_nll():
    rungs = [RungScore(0, 5, accuracy, nll) for accuracy, nll in ((0.5, 0.2), (0.75, 0.9), (0.5, 0.1), (0.5, 0.3), (0.25, 0.0))]
    coming = [(number, rung, 10**number) for number, rung in enumerate(rungs)]
    assert heard(coming, pareto=False, by_nll=False)[0].kept(5) == {1, 2}
    assert heard(coming, pareto=False, by_nll=True)[0].kept(5) == {4, 2}


def test_a_share_of_one_is_refused():
    with pytest.raises(ValueError, match="`eta >= 2` must hold, but got 1"):
        Halving(seed=0, first_rung=1, eta=1)


@pytest.mark.parametrize(("objective", "metric", "by_nll"), [
    ("pareto", None, True), ("pareto", "accuracy", False), ("accuracy", None, False), ("accuracy", "nll", True), ("nll", None, True),
])  # fmt: skip
def test_a_spec_says_how_trials_are_compared(objective, metric, by_nll):
    asked = {"kind": "halving", "eta": 4, "first_rung": 10, "metric": metric}
    spec = StudySpec.from_json(
        {"schema": "allocsearch/study/v1", "name": "toy", "model": "toy", "task": "sentence-polarity", "budget": "8K-params",
         "space": {"schema": "allocsearch/space/v1", "name": "toy", "parts": {"all": {"rank": {"choices": [1, 2]}}}},
         "objective": objective, "proxy": {"rungs": [5, 10], "seeds": [3, 1]}, "scheduler": asked}, where="the test",
    )  # fmt: skip
    found = halving(spec)
    assert (found.seed, found.first_rung, found.eta) == (3, 10, 4)
    assert (found.by_nll, found.pareto) == (by_nll, objective == "pareto")
    assert halving(spec.model_copy(update={"scheduler": SchedulerSpec()})) is None


entries = st.lists(st.tuples(coarse, coarse, coarse), min_size=1, max_size=20).map(
    lambda rows: [Entry(i, score, 10**size, nll / 4) for i, (score, size, nll) in enumerate(rows)]
)


@given(entries)
def test_fronts_are_what_peeling_gives(given_entries):
    left, peeled = list(given_entries), []
    while left:
        points = {e.number: Candidate(e.number, e.score, e.params, (0, 0)) for e in left}
        front = {number for number, own in points.items() if not any(dominates(other, own) for other in points.values())}
        peeled.append(front)
        left = [entry for entry in left if entry.number not in front]
    assert [{entry.number for entry in front} for front in fronts(given_entries)] == peeled


@given(entries)
def test_a_front_is_spread_from_its_ends_inwards(given_entries):
    front = fronts(given_entries)[0]
    order = spread(front)
    assert sorted(order, key=lambda e: e.number) == sorted(front, key=lambda e: e.number)
    assert order[0].score == max(entry.score for entry in front)
    assume(len({entry.params for entry in front}) > 1)
    assert order[1].params == min(entry.params for entry in front)
    unit = _scaled(front)
    gaps = [min(math.dist(unit[e.number], unit[o.number]) for o in order[:i]) for i, e in enumerate(order) if i]
    assert all(later <= earlier + 1e-12 for earlier, later in pairwise(gaps))


def _scaled(front):
    scores, sizes = [e.score for e in front], [math.log(e.params) for e in front]

    def unit(value, values):
        return (value - min(values)) / (max(values) - min(values)) if max(values) > min(values) else 0.0

    return {e.number: (unit(e.score, scores), unit(math.log(e.params), sizes)) for e in front}


@given(entries, st.integers(1, 20))
def test_the_best_are_a_larger_set_for_a_larger_limit(given_entries, limit):
    fewer, more = best(given_entries, limit), best(given_entries, limit + 1)
    assert {entry.number for entry in fewer} <= {entry.number for entry in more}


def simulated(rng, *, num_trials, noise, pareto):
    """Trials of ten sizes whose true NLL falls with size, and what one rung shows of it. Returns truths and answers."""
    scheduler = Halving(seed=0, first_rung=1, pareto=pareto)
    truths, answers = [], []
    for number in range(num_trials):
        params = rng.randint(1, 10) * 10**6
        true = rng.gauss(0.5 - (0.05 * math.log(params / 10**6) if pareto else 0), 0.03)
        truths.append((true, params))
        answers.append(scheduler.go_on(number, RungScore(0, 1, 0.0, rng.gauss(true, noise)), params=params))
    return truths, answers


def test_on_one_metric_little_more_than_the_share_goes_on():
    """The early ones are judged by few: n reports keep ceil(n / 3), so sum(ceil(n / 3) / n) of 90 go on, 36 % or so."""
    rng = random.Random(5)
    runs = [simulated(rng, num_trials=90, noise=0.0, pareto=False)[1] for _ in range(100)]
    expected = fmean([1.0, 1.0, *(math.ceil(n / 3) / n for n in range(3, 91))])
    assert fmean(fmean(answers) for answers in runs) == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("pareto", [False, True])
def test_many_are_stopped_and_those_on_the_true_front_seldom(pareto):
    """With a rung that ranks trials as well as a correlation of 0.95 does."""
    rng = random.Random(6)
    stopped, front_lost = [], []
    for _ in range(100):
        truths, answers = simulated(rng, num_trials=60, noise=0.01, pareto=pareto)
        points = [Candidate(i, -nll, params if pareto else 0, (0, 0)) for i, (nll, params) in enumerate(truths)]
        front = [c.number for c in points if not any(dominates(other, c) for other in points)]
        stopped.append(1 - fmean(answers))
        front_lost.append(1 - fmean(answers[number] for number in front))
    assert fmean(stopped) > 0.5
    assert fmean(front_lost) < (0.06 if pareto else 0.03)
