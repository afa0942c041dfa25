"""Projection onto a budget: never over, uses it up, keeps the shape, changes nothing twice."""

import random

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from allocsearch.core.allocation import BLOCK_KINDS
from allocsearch.core.budget import Budget
from allocsearch.core.errors import InfeasibleError
from allocsearch.core.geometry import ModelShape, Routing, Site
from allocsearch.core.layout import Axis, PartSpace, Sharing
from allocsearch.core.space import SpaceTemplate
from allocsearch.core.targets import GROUP_OF
from allocsearch.spec import load_space
from tests.strategies import projections


def next_steps(space, point):
    """Every canonical point that one dimension's next listed value leads to, but for those that mean the same as `point`."""
    for d in space.dimensions:
        if point[d.name] != d.choices[-1]:
            step = space.canonical({**point, d.name: d.choices[d.choices.index(point[d.name]) + 1]})
            if step != point:
                yield d.name, step


@settings(max_examples=200)
@given(projections())
def test_a_projection_is_inside_and_no_step_further_fits(projection):
    space, point, budget = projection
    if budget.excess(space.cost(space.smallest)):
        with pytest.raises(InfeasibleError):
            space.project_point(point, budget)
        return
    projected = space.project_point(point, budget)
    assert budget.excess(space.cost(projected)) == {}
    for name, step in next_steps(space, projected):
        assert budget.excess(space.cost(step)), f"{name} could still rise"
    assert space.canonical(projected) == projected
    assert space.project_point(projected, budget) == projected
    assert space.project_point(point, budget) == projected
    assert space.project_point(space.canonical(point), budget) == projected


@given(projections())
def test_projecting_an_allocation_is_projecting_its_point(projection):
    space, point, budget = projection
    assume(not budget.excess(space.cost(space.smallest)))
    allocation = space.decode(point)
    assert space.project(allocation, budget) == space.decode(space.project_point(point, budget))
    if budget.max_trainable is not None and budget.max_active is None:
        assert space.project(allocation, budget.max_trainable) == space.project(allocation, budget)


def holds(larger, smaller):
    """Whether every expert of `smaller` is matched by one of `larger` on the same target that is no smaller."""
    for plan, inner in zip(larger, smaller, strict=True):
        for name in (*GROUP_OF, *BLOCK_KINDS):
            have, need = plan.sizes(name), inner.sizes(name)
            if len(have) < len(need) or any(a < b for a, b in zip(have, need, strict=False)):
                return False
    return True


@given(projections())
def test_what_fits_is_kept(projection):
    """A point inside the budget is only grown."""
    space, point, budget = projection
    start = space.canonical(point)
    assume(not budget.excess(space.cost(start)))
    assert holds(space.decode(space.project_point(point, budget)), space.decode(start))


def largest_factor_that_fits(space, start, budget):
    """By trying every factor at which some coordinate reaches a listed value: the floors under the largest that fits."""
    best = None
    factors = sorted({choice / start[d.name] for d in space.dimensions for choice in d.choices if start[d.name]})
    for factor in factors:
        floors = {}
        for d in space.dimensions:
            reached = [choice for choice in d.choices if choice <= start[d.name] * factor * (1 + 1e-12)]
            floors[d.name] = max(reached, default=d.choices[0])
        if not budget.excess(space.cost(floors)):
            best = floors
    return best


@given(projections())
def test_all_coordinates_grow_by_a_common_factor_before_any_grows_alone(projection):
    space, point, budget = projection
    assume(not budget.excess(space.cost(space.smallest)))
    floors = largest_factor_that_fits(space, space.canonical(point), budget)
    assume(floors is not None)
    assert holds(space.decode(space.project_point(point, budget)), space.decode(floors))


TOY = ModelShape("toy", ((Site("q", "attn", 3, 5), Site("up", "ffn", 7, 2)),) * 4, hidden_size=3, num_heads=1, num_parameters=100)
RANKS = SpaceTemplate("ranks", (PartSpace("all", Axis(tuple(range(41)), Sharing(tie=1))),)).bind(TOY, Routing())
four = st.lists(st.integers(0, 8), min_size=4, max_size=4)


def as_point(ranks):
    return {f"rank.l{i:02d}": rank for i, rank in enumerate(ranks)}


@given(four, st.integers(1, 5))
def test_a_multiple_projects_onto_the_same_multiple(ranks, factor):
    """Scale invariance: onto the cost of k times a shape, the projection is k times that shape."""
    assume(any(ranks))
    grown = as_point([rank * factor for rank in ranks])
    target = RANKS.cost(grown).trainable
    assert RANKS.project_point(as_point(ranks), target) == grown
    assert RANKS.project_point(as_point([min(rank * 5, 40) for rank in ranks]), target) == grown


@given(four, st.integers(17, 17 * 160))
def test_ratios_hold_to_within_a_listed_step(ranks, target):
    """Every layer costs the same here, so one factor puts every rank within a step of its multiple."""
    assume(any(ranks))
    start = as_point(ranks)
    found = RANKS.project_point(start, target)
    nonzero = [name for name in start if start[name]]
    assume(all(found[name] < 40 for name in nonzero))  # where the listed values end, the others go on
    low = max((found[name] - 1) / start[name] for name in nonzero)
    high = min((found[name] + 1) / start[name] for name in nonzero)
    assert low < high


@given(four, st.integers(17, 17 * 200))
def test_zero_stays_zero_unless_nothing_else_fits(ranks, target):
    assume(any(ranks))
    start = as_point(ranks)
    found = RANKS.project_point(start, target)
    zeroes = [name for name in start if start[name] == 0]
    if any(found[name] for name in zeroes):
        without = {name: 0 if name in zeroes else value for name, value in found.items()}
        for name in start:
            if start[name] and without[name] < 40:
                assert RANKS.cost({**without, name: without[name] + 1}).trainable > target


def test_the_infeasible_is_refused_with_the_remedy():
    space = SpaceTemplate("coarse", (PartSpace("all", Axis((4, 8))),)).bind(TOY, Routing())
    with pytest.raises(InfeasibleError) as caught:
        space.project_point(space.largest, 100)
    assert str(caught.value) == (
        "the smallest allocation of space 'coarse' must be inside the budget, but 4*4 has 272 trainable parameters for 100-params: "
        "raise the budget, or list smaller values"
    )
    with pytest.raises(InfeasibleError):
        space.project_point(space.largest, Budget(max_trainable=10_000, max_active=100))


def test_more_than_enough_gives_the_largest_point():
    assert RANKS.project_point(as_point([1, 0, 0, 2]), 10**9) == RANKS.largest


@pytest.mark.parametrize("name", ["mola", "hilo", "hilo-monotone", "hilo-adapter", "uniform", "free", "moa", "moa-sparse"])
@pytest.mark.parametrize("target", [300_000, 2_000_000, 8_000_000])
def test_shipped_spaces_on_a_thirty_layer_model(name, target):
    """Random proposals on the quickstart's geometry: what the search does all day."""
    dims = {"q": (576, 576), "k": (576, 192), "v": (576, 192), "o": (576, 576), "gate": (576, 1536), "up": (576, 1536), "down": (1536, 576)}
    layer = tuple(Site(n, "attn" if n in "qkvo" else "ffn", *shape) for n, shape in dims.items())
    shape = ModelShape("llama", (layer,) * 30, hidden_size=576, num_heads=9, num_parameters=134_515_008)
    spec = load_space(name)
    space = spec.template().bind(shape, Routing() if spec.routing is None else spec.routing.routing())
    smallest = space.cost(space.smallest).trainable
    for seed in range(5):
        point = space.sample(random.Random(seed))
        if smallest > target:
            with pytest.raises(InfeasibleError):
                space.project_point(point, target)
            continue
        projected = space.project_point(point, target)
        spent = space.cost(projected).trainable
        assert spent <= target
        assert spent > target / 2 or name == "uniform"
        assert all(space.cost(step).trainable > target for _, step in next_steps(space, projected))
