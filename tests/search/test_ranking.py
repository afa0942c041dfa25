"""Pareto ranks and crowding, against their definitions."""

import math

from hypothesis import given
from hypothesis import strategies as st

from allocsearch.search.ranking import best_first, crowding, pareto_ranks

ROWS = st.integers(1, 3).flatmap(lambda width: st.lists(st.tuples(*[st.integers(0, 5).map(float)] * width), max_size=12))


def dominates(a, b):
    return all(x <= y for x, y in zip(a, b, strict=True)) and a != b


@given(ROWS)
def test_a_rank_is_the_longest_chain_of_rows_that_dominate_it(rows):
    def chain(i):
        return max((1 + chain(j) for j in range(len(rows)) if dominates(rows[j], rows[i])), default=0)

    assert pareto_ranks(rows) == [chain(i) for i in range(len(rows))]


@given(ROWS)
def test_the_order_is_by_rank_and_complete(rows):
    order = best_first(rows)
    ranks = pareto_ranks(rows)
    assert sorted(order) == list(range(len(rows)))
    assert [ranks[i] for i in order] == sorted(ranks)


def test_room_is_the_distance_between_neighbours():
    assert crowding([(0.0, 10.0), (1.0, 4.0), (4.0, 0.0)]) == [math.inf, 2.0, math.inf]
    assert crowding([(0.0, 10.0), (1.0, 9.0), (2.0, 8.0), (10.0, 0.0)])[1:3] == [0.4, 1.8]
    assert crowding([]) == []


def test_equal_and_infinite_losses_are_no_error():
    assert crowding([(1.0,), (1.0,)]) == [math.inf, math.inf]
    assert crowding([(1.0,), (1.0,), (1.0,)])[1] == 0.0
    assert not any(math.isnan(room) for room in crowding([(math.inf, 1.0), (2.0, 2.0), (1.0, math.inf)]))


def test_among_equals_of_a_rank_the_lonely_come_first():
    assert best_first([(0.0, 10.0), (1.0, 9.0), (2.0, 8.0), (10.0, 0.0), (11.0, 11.0)]) == [0, 3, 2, 1, 4]
