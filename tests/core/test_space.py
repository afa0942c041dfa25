"""Points and allocations of a search space: each allocation has one canonical point."""

import random
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from allocsearch.core.allocation import Allocation, LayerPlan
from allocsearch.core.budget import cost
from allocsearch.core.errors import InputError
from allocsearch.core.geometry import ModelShape, Routing, Site
from allocsearch.core.layout import Axis, PartSpace, Sharing
from allocsearch.core.space import SpaceTemplate
from tests.strategies import axes, points, shapes, spaces, spaces_with_points

LLAMA = ModelShape(
    "llama",
    (tuple(Site(name, "attn" if name in "qkvo" else "ffn", 8, 8) for name in ("q", "k", "v", "o", "gate", "up", "down")),) * 8,
    hidden_size=8,
    num_heads=2,
    num_parameters=1000,
)


def bound(*parts, routing=None):
    return SpaceTemplate("test", parts).bind(LLAMA, routing or Routing())


@given(spaces_with_points())
def test_the_canonical_point_means_the_same_and_is_its_own(space_and_point):
    space, point = space_and_point
    allocation = space.decode(point)
    canonical = space.canonical(point)
    assert space.encode(allocation) == canonical
    assert space.decode(canonical) == allocation
    assert space.canonical(canonical) == canonical
    assert list(canonical) == [d.name for d in space.dimensions]
    assert space.expresses(allocation)


@given(spaces_with_points(), st.data())
def test_points_with_one_canonical_point_are_those_that_mean_the_same(space_and_point, data):
    space, point = space_and_point
    other = data.draw(points(space))
    assert (space.canonical(point) == space.canonical(other)) == (space.decode(point) == space.decode(other))


@given(spaces_with_points())
def test_a_points_cost_is_its_allocations(space_and_point):
    space, point = space_and_point
    assert space.cost(point) == cost(space.decode(point), space.shape, space.routing)


@given(spaces_with_points(), st.data())
def test_cost_never_falls_where_a_coordinate_rises(space_and_point, data):
    space, point = space_and_point
    dimension = data.draw(st.sampled_from(space.dimensions))
    raised = {**point, dimension.name: max(point[dimension.name], data.draw(st.sampled_from(dimension.choices)))}
    before, after = space.cost(point), space.cost(raised)
    assert before.trainable <= after.trainable
    assert before.active <= after.active


@given(spaces(), st.integers(0, 99))
def test_samples_are_canonical_and_repeat_with_their_seed(space, seed):
    point = space.sample(random.Random(seed))
    assert point == space.sample(random.Random(seed)) == space.canonical(point)


@given(spaces_with_points(), st.data())
def test_snapping_takes_the_nearest_listed_values(space_and_point, data):
    space, point = space_and_point
    assert space.snap(point) == space.canonical(point)
    wanted = {d.name: data.draw(st.floats(-3, 20)) for d in space.dimensions}
    nearest = {}
    for d in space.dimensions:
        least = min(abs(choice - wanted[d.name]) for choice in d.choices)
        nearest[d.name] = min(choice for choice in d.choices if abs(choice - wanted[d.name]) == least)
    assert space.snap(wanted) == space.canonical(nearest)


@given(spaces())
def test_the_corners_are_the_first_and_last_listed_values(space):
    for d in space.dimensions:
        assert (space.smallest[d.name], space.largest[d.name]) == (d.choices[0], d.choices[-1])
    assert space.num_points >= 1


@given(shapes(), st.one_of(st.builds(Sharing, groups=st.integers(1, 9)), st.builds(Sharing, tie=st.integers(1, 9)), st.just(Sharing())))
def test_sharing_splits_the_depth_into_stretches(shape, sharing):
    groups = sharing.group_of_layer(shape.num_layers)
    assert len(groups) == shape.num_layers
    assert groups[0] == 0
    assert all(b - a in (0, 1) for a, b in pairwise(groups))
    lengths = Counter(groups).values()
    if sharing.tie:
        assert all(length == sharing.tie for length in list(lengths)[:-1])
    elif sharing.groups:
        assert len(lengths) == min(sharing.groups, shape.num_layers)
        assert max(lengths) - min(lengths) <= 1
    else:
        assert len(lengths) == 1


def test_names_of_dimensions_say_who_shares():
    counts = Axis((0, 1, 2), Sharing(tie=3))
    ranks = Axis((1, 2), Sharing(groups=2))
    assert [d.name for d in bound(PartSpace("all", ranks, counts)).dimensions] == [
        "experts.l00-02", "experts.l03-05", "experts.l06-07", "rank.g0", "rank.g1",
    ]  # fmt: skip
    assert [d.name for d in bound(PartSpace("attn", Axis((0, 4))), PartSpace("down", Axis((0, 4), Sharing(tie=1)))).dimensions][:3] == [
        "attn.rank", "down.rank.l00", "down.rank.l01",
    ]  # fmt: skip
    per_expert = bound(PartSpace("all", Axis((1, 2)), Axis((0, 2)), per_expert=True))
    assert [d.name for d in per_expert.dimensions] == ["experts", "rank.e0", "rank.e1"]


def test_order_makes_every_combination_valid():
    space = bound(PartSpace("all", Axis((1, 2, 4, 8), Sharing(groups=4), "ascending")))
    tangled = {"rank.g0": 4, "rank.g1": 1, "rank.g2": 8, "rank.g3": 2}
    assert str(space.decode(tangled)) == "4*4 8*4"
    assert space.canonical(tangled) == {"rank.g0": 4, "rank.g1": 4, "rank.g2": 8, "rank.g3": 8}
    falling = bound(PartSpace("all", Axis((1, 2, 4, 8), Sharing(groups=4), "descending")))
    assert str(falling.decode(tangled)) == "8*6 2*2"


@given(axes(low=0), axes(low=1), st.data())
def test_ordered_axes_are_ordered(counts, ranks, data):
    space = bound(PartSpace("all", ranks, counts))
    allocation = space.decode(data.draw(points(space)))
    sizes = [plan.uniform for plan in allocation]
    for axis, values in ((counts, [len(own) for own in sizes]), (ranks, [own[0] for own in sizes if own])):
        if axis.order != "free":
            assert values == sorted(values, reverse=axis.order == "descending")


def test_a_target_beside_its_group():
    """A target that says the same as its group has no part of its own in the allocation, yet one point."""
    space = bound(PartSpace("attn", Axis((0, 4, 8))), PartSpace("q", Axis((0, 4, 8))))
    same = {"attn.rank": 8, "q.rank": 8}
    assert str(space.decode(same)) == "attn:8*8"
    assert space.canonical(same) == same
    assert str(space.decode({"attn.rank": 8, "q.rank": 0})) == "attn:8,q:0*8"


def test_ranks_per_expert_that_are_shared_wider_than_counts():
    """Fewer experts keep the first ranks, wherever they stand in size."""
    space = bound(PartSpace("all", Axis((1, 2, 4, 8)), Axis((1, 2, 3), Sharing(groups=2)), per_expert=True))
    point = {"experts.g0": 3, "experts.g1": 2, "rank.e0": 2, "rank.e1": 8, "rank.e2": 4}
    allocation = space.decode(point)
    assert str(allocation) == "8+4+2*4 8+2*4"
    assert space.decode(space.canonical(point)) == allocation


@pytest.mark.parametrize("text", ["4x8*7", "3x8*8", "4x7*8", "4x8*4 2x8*4", "attn:4x8*8", "8+4*8"])
def test_what_a_space_cannot_express_is_refused_not_rounded(text):
    space = bound(PartSpace("all", Axis((2, 4, 8)), Axis((1, 2, 4))))
    allocation = Allocation.parse(text)
    assert not space.expresses(allocation)
    with pytest.raises(InputError, match="must have 8 layers here, but got 7" if text == "4x8*7" else "space 'test' cannot express"):
        space.encode(allocation)


def test_a_part_that_the_space_does_not_name_must_be_empty():
    space = bound(PartSpace("attn", Axis((0, 4))))
    assert space.expresses(Allocation.parse("attn:4*8"))
    assert not space.expresses(Allocation.parse("4*8"))
    assert not space.expresses(Allocation((LayerPlan.parse("attn:4,q:8"),) * 8))


BAD_SPACES = {
    "choices": (lambda: Axis(()), "`choices` must be distinct whole numbers >= 0 in rising order, but got []"),
    "falling choices": (lambda: Axis((4, 2)), "rising order, but got [4, 2]"),
    "repeated choices": (lambda: Axis((2, 2)), "rising order, but got [2, 2]"),
    "negative choices": (lambda: Axis((-1, 2)), "whole numbers >= 0"),
    "groups and tie": (lambda: Sharing(groups=2, tie=2), "must be `model`, `groups: n` or `tie: n`"),
    "no groups": (lambda: Sharing(groups=0), "n >= 1"),
    "rank 0 with experts": (lambda: PartSpace("all", Axis((0, 4)), Axis((1, 2))), "`rank >= 1` must hold where `experts` is searched"),
    "per expert alone": (lambda: PartSpace("all", Axis((1, 4)), per_expert=True), "a rank per expert needs `experts`"),
    "per expert ordered": (
        lambda: PartSpace("all", Axis((1, 4), order="ascending"), Axis((1, 2)), per_expert=True), "`order: free`",
    ),
    "unknown part": (lambda: PartSpace("atn", Axis((1, 4))), "must be one of all, attn, ffn, q"),
    "a family's name": (lambda: PartSpace("q_proj", Axis((1, 4))), "but got 'q_proj'"),
    "no parts": (lambda: SpaceTemplate("empty", ()), "must name each part once"),
    "a part twice": (lambda: SpaceTemplate("twice", (PartSpace("q", Axis((1,))),) * 2), "'twice' has q, q"),
    "all and a group": (lambda: SpaceTemplate("both", (PartSpace("all", Axis((1,))), PartSpace("ffn", Axis((1,))))), "`all` excludes"),
    "a prompt under topk": (lambda: bound(PartSpace("prompt", Axis((0, 4)))), "needs a block router"),
    "a target that the model lacks": (lambda: bound(PartSpace("qkv", Axis((0, 4)))), "fits none: llama has q, k, v, o"),
    "a group that the routing leaves out": (
        lambda: bound(PartSpace("attn", Axis((0, 4))), routing=Routing(targets=("ffn",))), "part 'attn'",
    ),
    "a rank above any model": (lambda: bound(PartSpace("attn", Axis((0, 99_999)))), "1 <= size"),
}  # fmt: skip


@pytest.mark.parametrize(("make", "says"), BAD_SPACES.values(), ids=BAD_SPACES)
def test_a_wrong_space_states_what_must_hold(make, says):
    with pytest.raises(InputError) as caught:
        make()
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("point", [{}, {"rank": 3}, {"rank": None}, {"other": 4}])
def test_a_point_must_have_listed_values(point):
    with pytest.raises(InputError, match=r"`rank` must be one of \[2, 4\], but got"):
        bound(PartSpace("all", Axis((2, 4)))).decode(point)
