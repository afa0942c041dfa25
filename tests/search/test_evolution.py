"""Evolution's laws: children are inside their target, canonical, use it up, differ from their parent; capacity moves, none is added."""

import random

from hypothesis import assume, given
from hypothesis import strategies as st

from allocsearch.core.budget import Budget
from allocsearch.core.errors import InfeasibleError
from allocsearch.core.geometry import ModelShape, Routing, Site
from allocsearch.core.layout import Axis, PartSpace, Sharing
from allocsearch.core.space import SpaceTemplate
from allocsearch.search.evolution import Individual, child, crossed, moved, parents
from tests.strategies import points, projections

SHAPE = ModelShape("toy", ((Site("q", "attn", 10, 10),),) * 8, hidden_size=10, num_heads=1, num_parameters=1)
RNGS = st.integers(0, 2**32).map(random.Random)


@st.composite
def cases(draw):
    space, point, target = draw(projections())
    try:
        start = space.project_point(point, target)
    except InfeasibleError:
        assume(False)
    return space, point, draw(points(space)), target, start


def uses_up(space, point, target):
    """Projection's own law, worked out here anew: no single step of a dimension to its next listed value fits."""
    for d in space.dimensions:
        higher = [value for value in d.choices if value > point[d.name]]
        if higher:
            step = space.canonical({**point, d.name: higher[0]})
            if step != point and not target.excess(space.cost(step)):
                return False
    return True


@given(cases(), RNGS)
def test_children_are_canonical_inside_their_target_and_use_it_up(case, rng):
    space, first, second, target, _ = case
    for found in (moved(space, first, target, rng), child(space, (first, second), target, rng)):
        assert found == space.canonical(found)
        assert target.excess(space.cost(found)) == {}
        assert uses_up(space, found, target)


@given(cases(), RNGS)
def test_a_move_lowers_something_for_what_it_raises(case, rng):
    space, point, _, target, start = case
    found = moved(space, point, target, rng)
    if found != start:
        names = [d.name for d in space.dimensions]
        assert any(found[name] > start[name] for name in names)
        assert any(found[name] < start[name] for name in names)


@given(st.integers(2, 8), st.integers(300, 1500), st.data(), RNGS)
def test_a_move_changes_the_point_wherever_one_is_possible(num_layers, limit, data, rng):
    """Ranks of their own for every layer: one is possible unless all stand at their ends, or no layer's step fits into the others."""
    space = ranks(num_layers)
    start = space.project_point(data.draw(points(space)), Budget(limit))
    found = moved(space, start, Budget(limit), rng)
    possible = any(
        not Budget(limit).excess(space.cost({**dict.fromkeys(start, 1), name: next(c for c in CHOICES if c > start[name])}))
        for name in start
        if start[name] < CHOICES[-1]
    )
    assert (found != start) is possible


CHOICES = (1, 2, 4, 6, 12)


def ranks(num_layers):
    shape = ModelShape("toy", SHAPE.layers[:num_layers], hidden_size=10, num_heads=1, num_parameters=1)
    return SpaceTemplate("ranks", (PartSpace("q", Axis(CHOICES, Sharing(tie=1))),)).bind(shape, Routing())


@given(cases(), st.integers(0, 2**32))
def test_the_same_random_state_breeds_the_same_child(case, seed):
    space, first, second, target, _ = case
    one, two = (child(space, (first, second), target, random.Random(seed)) for _ in range(2))
    assert one == two


@given(st.data(), RNGS)
def test_crossing_takes_one_stretch_of_the_depth(data, rng):
    space = ranks(8)
    low, high = dict.fromkeys(space.smallest, 1), dict.fromkeys(space.smallest, 12)
    found = list(crossed(space, low, high, rng).values())
    switches = sum(a != b for a, b in zip([1, *found], [*found, 1], strict=True))
    assert set(found) <= {1, 12}
    assert switches == 2


def test_every_layer_and_every_stretch_can_be_moved_to():
    space, rng = ranks(8), random.Random(0)
    start = space.project_point(dict.fromkeys(space.smallest, 4), Budget(8 * 4 * 20))
    gained = {name for _ in range(200) for name, value in moved(space, start, Budget(8 * 4 * 20), rng).items() if value > start[name]}
    assert gained == set(start)


def test_depths_run_from_the_bottom_to_the_top():
    axis = Axis((0, 1), Sharing(groups=4))
    space = SpaceTemplate("s", (PartSpace("q", Axis((1, 2)), axis),)).bind(SHAPE, Routing())
    assert list(space.depths.values()) == [0.5 / 7, 2.5 / 7, 4.5 / 7, 6.5 / 7, 0.5]
    assert list(space.depths) == ["q.experts.g0", "q.experts.g1", "q.experts.g2", "q.experts.g3", "q.rank"]


def trials_of(losses):
    return [Individual({"x": i}, row) for i, row in enumerate(losses)]


def test_good_trials_breed_more_often_and_bad_ones_sometimes():
    trials, rng = trials_of([(float(i),) for i in range(20)]), random.Random(1)
    chosen = [parent.point["x"] for _ in range(500) for parent in parents(trials, rng, population=20)]
    assert sum(x < 5 for x in chosen) > 0.6 * len(chosen)
    assert max(chosen) > 8


def test_an_old_lucky_trial_breeds_no_more():
    trials, rng = trials_of([(-100.0,), *[(float(i),) for i in range(20)]]), random.Random(1)
    assert all(parent.point["x"] > 0 for _ in range(100) for parent in parents(trials, rng, population=20))


def test_with_two_objectives_the_front_breeds():
    front = [(float(i), float(-i)) for i in range(5)]
    trials, rng = trials_of([*front, *[(x + 1, y + 1) for x, y in front * 3]]), random.Random(1)
    chosen = [parent.point["x"] for _ in range(300) for parent in parents(trials, rng, population=20)]
    assert sum(x < 5 for x in chosen) > 0.6 * len(chosen)
    assert set(range(5)) <= set(chosen)
