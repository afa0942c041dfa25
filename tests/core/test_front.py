"""The front against brute force, the hypervolume against a grid, picks and intervals against known values."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from allocsearch.core.front import Candidate, best, dominates, hypervolume, knee, pareto_front, smallest_within, wilson_interval


def candidates(*, least=0, most=14):
    points = st.tuples(st.integers(0, 8).map(lambda n: n / 8), st.integers(0, 12), st.floats(0, 0.3))
    return st.lists(points, min_size=least, max_size=most).map(
        lambda found: [Candidate(i, score, params, (score - w, score + w)) for i, (score, params, w) in enumerate(found)]
    )


@given(candidates())
def test_the_front_is_what_no_other_dominates(found):
    undominated = {(c.score, c.params) for c in found if not any(dominates(other, c) for other in found)}
    front = pareto_front(found)
    assert {(c.score, c.params) for c in front} == undominated
    assert len(front) == len(undominated)
    assert front == sorted(front, key=lambda c: c.params)
    for chosen in front:  # of equals the earliest
        assert chosen.number == min(c.number for c in found if (c.score, c.params) == (chosen.score, chosen.params))


@given(candidates(), st.randoms())
def test_the_front_does_not_depend_on_the_order(found, rng):
    assert pareto_front(rng.sample(found, len(found))) == pareto_front(found)


@given(candidates(), candidates(most=3))
def test_domination_is_a_strict_order(found, more):
    everyone = [*found, *more]
    for a in everyone:
        assert not dominates(a, a)
        for b in everyone:
            assert not (dominates(a, b) and dominates(b, a))


@given(candidates())
def test_hypervolume_equals_the_count_of_dominated_grid_cells(found):
    """Scores are eighths and sizes whole, so unit cells fill the area exactly."""
    worst, largest = 0.25, 10
    cells = sum(
        any(c.score >= (row + 1) / 8 and c.params <= column for c in found)
        for row in range(2, 8)  # scores from 2/8 up
        for column in range(largest)
    )
    assert hypervolume(found, worst_score=worst, max_params=largest) == pytest.approx(cells / 8)


@given(candidates(least=1), st.tuples(st.integers(0, 8).map(lambda n: n / 8), st.integers(0, 12)))
def test_hypervolume_never_falls_by_a_further_trial(found, extra):
    more = [*found, Candidate(99, *extra, (0, 1))]
    assert hypervolume(more, worst_score=0.0, max_params=12) >= hypervolume(found, worst_score=0.0, max_params=12) - 1e-12


def test_hypervolume_of_nothing():
    assert hypervolume([], worst_score=0.5, max_params=10) == 0.0
    assert hypervolume([Candidate(0, 0.4, 1, (0, 1)), Candidate(1, 0.9, 11, (0, 1))], worst_score=0.5, max_params=10) == 0.0


@given(candidates(least=1))
def test_picks_are_on_the_front(found):
    front = {(c.score, c.params) for c in pareto_front(found)}
    top = best(found)
    assert top.score == max(c.score for c in found)
    assert (top.score, top.params) in front
    chosen = knee(found)
    assert (chosen.score, chosen.params) in front
    small = smallest_within(found)
    assert small.score >= top.interval[0]
    assert all(c.params >= small.params for c in found if c.score >= top.interval[0])


def points(*pairs):
    return [Candidate(i, score, params, (score - 0.05, score + 0.05)) for i, (params, score) in enumerate(pairs)]


def test_the_knee_is_where_gains_flatten():
    assert knee(points((1, 0.50), (10, 0.80), (100, 0.82), (1000, 0.83))).params == 10
    assert knee(points((1, 0.50), (10, 0.52), (100, 0.80), (1000, 0.83))).params == 100
    assert knee(points((1, 0.5), (10, 0.9))).params == 10
    assert knee(points((5, 0.5))).params == 5
    assert knee(points((0, 0.5), (1, 0.8), (9, 0.81))).params == 1  # a frozen base costs nothing, and log 0 is not asked for


def test_the_knee_is_invariant_to_the_unit_of_parameters():
    pairs = [(1, 0.50), (3, 0.70), (20, 0.78), (500, 0.80)]
    assert knee(points(*pairs)).number == knee(points(*((params * 1000, score) for params, score in pairs))).number


def test_smallest_within_takes_the_best_ones_interval():
    assert smallest_within(points((1, 0.70), (5, 0.86), (9, 0.90), (20, 0.80))).params == 5


@pytest.mark.parametrize(
    ("successes", "rows", "low", "high"),
    [  # Newcombe (1998), table I, method 3, and the closed forms at 0 and n: z²/(n + z²)
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (20, 20, 0.8389, 1.0),
    ],
)
def test_wilson_interval_of_published_examples(successes, rows, low, high):
    assert wilson_interval(successes / rows, rows) == pytest.approx((low, high), abs=6e-5)


@given(st.integers(1, 5000), st.floats(0, 1))
def test_wilson_bounds_solve_the_score_equation(rows, share):
    """The bounds are the p with |share − p| = z √(p(1 − p)/n): the definition, not the closed form."""
    low, high = wilson_interval(share, rows)
    assert 0.0 <= low <= share + 1e-12
    assert share - 1e-12 <= high <= 1.0
    for bound in (low, high):
        if 0.0 < bound < 1.0:
            assert (share - bound) ** 2 == pytest.approx(1.96**2 * bound * (1 - bound) / rows, rel=1e-6, abs=1e-12)


def test_more_rows_narrow_the_interval():
    widths = [high - low for low, high in (wilson_interval(0.8, rows) for rows in (10, 100, 1000))]
    assert widths == sorted(widths, reverse=True)
