"""Allocations of an earlier study, fitted to another depth and another budget."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from allocsearch.core.allocation import Allocation
from allocsearch.core.budget import Budget
from allocsearch.core.errors import InputError
from allocsearch.core.geometry import ModelShape, Routing, Site
from allocsearch.core.trial import Assignment, Measured, SeedScore, Trial
from allocsearch.search.proposals import Proposals
from allocsearch.search.transfer import stretched, transferred
from tests.conformance.toy import ROUTING, WIDE, spec_of


def proposals(num_layers, budget, ladder=(0.25, 0.5, 1.0)):
    sites = (Site("q", "attn", 16, 16), Site("up", "ffn", 16, 32))
    shape = ModelShape("toy", (sites,) * num_layers, hidden_size=16, num_heads=2, num_parameters=100_000)
    return Proposals(spec_of(part=WIDE).space.template().bind(shape, ROUTING), Budget(budget), ladder, 0)


def trial(number, text, accuracy, *, share=1.0, routing=ROUTING, space=None):
    allocation = Allocation.parse(text)
    right = round(accuracy * 100)
    score = SeedScore(0, (True,) * right + (False,) * (100 - right), (0.5,) * 100)
    found = (space or proposals(len(allocation), 10**9).space).cost(proposals(len(allocation), 10**9).space.nearest(allocation))
    return Trial(Assignment(number, allocation, routing, (0,)), found, "tpe", share=share, outcome=Measured((score,), 1.0))


@given(st.integers(1, 12), st.integers(1, 40))
def test_a_layer_takes_the_plan_at_its_own_relative_depth(num_from, num_to):
    source = Allocation.parse(" ".join(str(i + 1) for i in range(num_from)))
    found = [plan.sizes("q")[0] - 1 for plan in stretched(source, num_to)]
    assert found == sorted(found)
    assert len(found) == num_to
    if num_to >= num_from:
        assert set(found) == set(range(num_from)), "no layer's plan is lost on the way to a deeper model"
    assert [num_from - 1 - i for i in reversed(found)] == found or num_from == 1 or num_to % 2 == 0 or num_from % 2 == 0


def test_the_same_model_and_budget_give_the_same_allocations_back():
    here = proposals(4, 8000)
    points = [here.random(number) for number in range(3)]
    earlier = [trial(i, str(here.space.decode(point)), 0.5 + 0.1 * i, share=here.share(i)) for i, point in enumerate(points)]
    found = transferred(earlier, here, study="one", count=3)
    assert {start.allocation for start in found} == {one.assignment.allocation for one in earlier}
    assert found[0].name == "from:one/2", "the best one comes first"


@given(st.integers(2, 30), st.integers(1500, 60_000))
def test_another_depth_and_budget_are_filled_as_any_proposal(num_layers, budget):
    there = proposals(num_layers, budget * num_layers)
    found = transferred([trial(7, "0 0 2x8 2x8", 0.9)], there, study="one", count=5)
    assert len(found) == 1
    point = there.space.encode(found[0].allocation)
    assert there.space.project_point(point, there.budget) == point
    assert not there.budget.excess(there.space.cost(point))


def test_what_was_placed_high_stays_high():
    [start] = transferred([trial(7, "0 0 2x8 2x8", 0.9)], proposals(10, 6720), study="one", count=5)
    assert [sum(plan.sizes("q")) > 0 for plan in start.allocation] == [False] * 5 + [True] * 5


def test_a_trial_that_used_a_part_of_its_budget_aims_at_that_part():
    there = proposals(8, 40_000)
    [start] = transferred([trial(0, "1x2*4", 0.9, share=0.3)], there, study="one", count=1)
    assert there.space.cost(there.space.encode(start.allocation)).trainable <= 10_000


def test_another_kind_of_experts_and_an_empty_study_are_refused():
    with pytest.raises(InputError, match="has none"):
        transferred([], proposals(4, 8000), study="one", count=5)
    with pytest.raises(InputError, match="router 'sigmoid'"):
        transferred([trial(0, "1x2*4", 0.9, routing=Routing("sigmoid"))], proposals(4, 8000), study="one", count=5)
