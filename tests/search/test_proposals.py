"""Targets and proposals: each share of the ladder once a round, everything inside, everything repeatable."""

from collections import Counter

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from allocsearch.core.budget import Budget
from allocsearch.core.errors import InfeasibleError
from allocsearch.core.geometry import ModelShape, Routing, Site
from allocsearch.core.layout import Axis, PartSpace
from allocsearch.core.space import SpaceTemplate
from allocsearch.search.proposals import Proposals
from tests.strategies import projections

LADDER = (0.1, 0.25, 0.5, 0.75, 1.0)


@st.composite
def cases(draw):
    space, point, budget = draw(projections())
    ladder = tuple(draw(st.lists(st.sampled_from(LADDER), min_size=1, max_size=6)))
    try:
        return Proposals(space, budget, ladder, draw(st.integers(0, 2**31 - 1))), point
    except InfeasibleError:
        assume(False)


@given(cases(), st.integers(0, 5))
def test_each_share_comes_once_a_round(case, round_):
    proposals, _ = case
    n = len(proposals.shares)
    drawn = [proposals.share(round_ * n + i) for i in range(n)]
    assert Counter(drawn) == Counter(proposals.shares)
    assert len(set(proposals.shares)) == n


@given(cases())
def test_the_shares_are_those_of_the_ladder_that_train_something(case):
    proposals, _ = case
    budget, space = proposals.budget, proposals.space
    for share in set(LADDER):
        target = budget.scaled(share)
        fits = not target.excess(space.cost(space.smallest))
        trains = fits and space.cost(space.project_point(space.smallest, target)).trainable > 0
        if share in proposals.ladder and trains:
            assert share in proposals.shares
        if share in proposals.shares and share != 1.0:
            assert share in proposals.ladder
            assert trains


@given(cases(), st.integers(0, 40), st.integers(0, 3))
def test_proposals_are_inside_their_share_and_repeat(case, number, attempt):
    proposals, point = case
    target = proposals.budget.scaled(proposals.share(number))
    for found, again in [
        (proposals.random(number, attempt), proposals.random(number, attempt)),
        (proposals.projected(point, number), proposals.projected(point, number)),
    ]:
        assert found == again == proposals.space.canonical(found)
        assert target.excess(proposals.space.cost(found)) == {}
        assert proposals.space.cost(found).trainable > 0


@settings(max_examples=30)
@given(cases())
def test_examples_are_different_and_use_the_whole_budget(case):
    proposals, _ = case
    examples = proposals.examples(3)
    assert 1 <= len(examples) <= 3
    assert len({tuple(sorted(point.items())) for point in examples}) == len(examples)
    for point in examples:
        assert proposals.budget.excess(proposals.space.cost(point)) == {}
        assert proposals.space.project_point(point, proposals.budget) == point


SHAPE = ModelShape("toy", ((Site("q", "attn", 10, 10),),) * 2, hidden_size=10, num_heads=1, num_parameters=1)


def bound(*choices):
    return SpaceTemplate("ranks", (PartSpace("q", Axis(choices)),)).bind(SHAPE, Routing())


def test_the_seed_shuffles_the_rounds():
    def rounds(seed):
        proposals = Proposals(bound(1, 2, 4, 8), Budget(400), (0.25, 0.5, 0.75, 1.0), seed)
        return [tuple(proposals.share(4 * r + i) for i in range(4)) for r in range(6)]

    assert rounds(1) == rounds(1)
    assert rounds(1) != rounds(2)
    assert len(set(rounds(1))) > 1


def test_shares_too_small_for_any_expert_are_left_out():
    assert Proposals(bound(0, 4, 8), Budget(400), (0.1, 0.4, 0.5, 1.0), 0).shares == (0.4, 0.5, 1.0)
    assert Proposals(bound(4, 8), Budget(170), (0.1, 0.2), 0).shares == (1.0,)


def test_a_budget_without_room_for_an_expert_is_refused():
    with pytest.raises(InfeasibleError, match=r"no expert of space 'ranks' fits 100-params: raise the budget, or list smaller ranks"):
        Proposals(bound(0, 4), Budget(100), (1.0,), 0)
