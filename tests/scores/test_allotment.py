"""From scores to allocations: sums come out, nobody is left out, and the budget is used up."""

import itertools

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from allocsearch.core.allocation import Allocation, LayerPlan
from allocsearch.core.budget import Budget, cost
from allocsearch.core.errors import InputError
from allocsearch.core.geometry import Routing
from allocsearch.scores import allotment
from allocsearch.scores.allotment import apportioned
from tests.strategies import shapes

amounts = st.floats(0, 1e6, allow_nan=False, allow_infinity=False)
score_lists = st.lists(amounts, min_size=1, max_size=8).filter(any)


@given(score_lists, st.integers(0, 60), st.integers(0, 2))
def test_amounts_sum_to_the_total_in_the_order_of_the_scores(scores, more, least):
    total = least * len(scores) + more
    found = apportioned(scores, total, least=least)
    assert sum(found) == total
    assert min(found) >= least
    for (s, n), (t, m) in itertools.combinations(zip(scores, found, strict=True), 2):
        if s != t:
            assert (n >= m) if s > t else (m >= n)
        else:
            assert abs(n - m) <= 1


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(1, 5))
def test_exact_proportions_are_met_exactly(weights, factor):
    assert apportioned([float(w) for w in weights], factor * sum(weights)) == tuple(factor * w for w in weights)


@given(score_lists, st.integers(0, 60))
def test_amounts_are_within_one_of_their_share_where_no_minimum_is_asked(scores, total):
    whole = sum(scores)
    assume(whole > 1e-300)
    for score, amount in zip(scores, apportioned(scores, total, least=0), strict=True):
        assert abs(amount - total * score / whole) < 1 + 1e-9


def test_a_share_below_the_minimum_is_raised_and_the_others_pay():
    assert apportioned([1, 1, 98], 10) == (1, 1, 8)
    assert apportioned([1, 1, 98], 10, least=0) == (0, 0, 10)
    assert apportioned([0, 1], 4) == (1, 3)
    assert apportioned([1, 1, 1], 4) == (2, 1, 1)


@pytest.mark.parametrize(
    ("scores", "total", "message"),
    [([], 3, "finite"), ([0, 0], 3, "all zero"), ([1, -1], 3, "finite"), ([1, float("nan")], 3, "finite"), ([1, 1], 1, "but got 1")],
)
def test_what_is_no_score_is_refused(scores, total, message):
    with pytest.raises(InputError, match=message):
        apportioned(scores, total)


@given(shapes(max_layers=4), st.data())
def test_an_allocation_is_inside_the_budget_and_has_no_room_for_one_more(shape, data):
    scores = data.draw(st.lists(st.floats(0.01, 100), min_size=shape.num_layers, max_size=shape.num_layers))
    routing = Routing(data.draw(st.sampled_from(["topk", "dense"])), data.draw(st.integers(1, 3)))
    smallest = cost(Allocation.uniform(shape.num_layers, num_experts=1, rank=1), shape, routing)
    limit = st.integers(max(1, smallest.active // 2), 60 * max(1, smallest.active))
    kind = data.draw(st.sampled_from(["trainable", "active", "both"]))
    budget = Budget(None if kind == "active" else data.draw(limit), None if kind == "trainable" else data.draw(limit))

    for allot in (allotment.experts, allotment.ranks):
        found = allot(scores, shape=shape, routing=routing, budget=budget)
        if found is None:
            assert budget.excess(smallest)
            continue
        assert not budget.excess(cost(found, shape, routing))
        for layer, plan in enumerate(found):
            raised = one_more(plan, ranks=allot is allotment.ranks)
            if raised is not None:
                larger = Allocation((*found.layers[:layer], raised, *found.layers[layer + 1 :]))
                assert budget.excess(cost(larger, shape, routing))


def one_more(plan, *, ranks):
    """The plan with another expert of its rank, or with one rank more; None at the largest amount."""
    own = plan.uniform
    if ranks:
        assert len(own) == 1
        return None if own[0] == allotment.MAX_RANK else LayerPlan.of(1, own[0] + 1)
    return None if len(own) == allotment.MAX_EXPERTS else LayerPlan.of(len(own) + 1, own[0])


@given(shapes(max_layers=1), st.lists(st.floats(0.01, 100), min_size=2, max_size=6), st.integers(0, 40))
def test_equal_layers_get_experts_in_the_order_of_their_scores(shape, scores, more):
    shape = type(shape)(shape.architecture, shape.layers[:1] * len(scores), shape.hidden_size, shape.num_heads, shape.num_parameters)
    routing = Routing(top_k=2)
    five = cost(Allocation.uniform(len(scores), num_experts=5, rank=2), shape, routing).trainable
    found = allotment.experts(scores, shape=shape, routing=routing, budget=Budget(five + more))
    counts = [len(plan.uniform) for plan in found]
    for (s, n), (t, m) in itertools.combinations(zip(scores, counts, strict=True), 2):
        if n > m:
            assert s >= t or n - m == 1  # a first router costs more than a further expert, so the last step may go to another layer
