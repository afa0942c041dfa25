"""Hypothesis strategies for the package's values, all in one place.

Shapes are small and uneven (layers that lack a target, odd widths), so that a formula that only holds for square linears or
equal layers is found out.
"""

from hypothesis import strategies as st

from allocsearch.core.allocation import Allocation, LayerPlan
from allocsearch.core.budget import Budget
from allocsearch.core.geometry import BLOCK_ROUTERS, ROUTERS, ModelShape, Routing, Site
from allocsearch.core.layout import Axis, PartSpace, Sharing
from allocsearch.core.space import SpaceTemplate
from allocsearch.core.targets import GROUP_OF, GROUPS
from allocsearch.core.trial import Assignment, Failed, Infeasible, Lost, Measured, RungScore, SeedScore, Stopped

TARGETS = tuple(GROUP_OF)
FAMILIES = (("q", "k", "v", "o", "gate", "up", "down"), ("qkv", "o", "up", "down"), ("q", "v"), ("qkv", "o", "gate_up", "down"))


def sizes(*, largest=12, most=5):
    return st.lists(st.integers(1, largest), max_size=most).map(tuple)


def layer_plans(*, selectors=(*GROUPS, *TARGETS, "parallel", "prompt")):
    """Plans as a caller may write them: parts in any order, unsorted sizes, redundant selectors included."""
    parts = st.dictionaries(st.sampled_from(selectors), sizes(), max_size=5).map(lambda found: LayerPlan(tuple(found.items())))
    return st.one_of(parts, sizes().map(LayerPlan.on_all))


@st.composite
def allocations(draw, *, num_layers=None, plans=None):
    """Allocations in which neighbours are often equal, so that runs are abbreviated."""
    count = draw(st.integers(1, 6)) if num_layers is None else num_layers
    stock = draw(st.lists(layer_plans() if plans is None else plans, min_size=1, max_size=3))
    return Allocation(tuple(draw(st.sampled_from(stock)) for _ in range(count)))


@st.composite
def shapes(draw, *, max_layers=5):
    """Model shapes of several families; a layer may lack a target, as where attention and other mixers alternate."""
    names = draw(st.sampled_from(FAMILIES))
    widths = st.integers(1, 40)
    whole = tuple(Site(name, GROUP_OF[name], draw(widths), draw(widths)) for name in names)
    layers = [tuple(site for site in whole if draw(st.integers(0, 9)) > 0) or whole for _ in range(draw(st.integers(1, max_layers)))]
    return ModelShape("toy", tuple(layers), hidden_size=draw(widths), num_heads=draw(st.integers(1, 4)), num_parameters=10_000)


@st.composite
def routings(draw, *, num_layers, routers=ROUTERS):
    ks = st.integers(1, 4)
    return Routing(
        router=draw(st.sampled_from(routers)),
        top_k=draw(st.one_of(ks, st.lists(ks, min_size=num_layers, max_size=num_layers).map(tuple))),
        targets=draw(st.sampled_from([("attn", "ffn"), ("attn",), ("ffn",), ("q", "ffn"), ("o", "down"), ("qkv",)])),
        swi_x=draw(st.integers(0, 4)),
    )


@st.composite
def modules(draw):
    """An allocation with a shape and a routing that admit it."""
    shape = draw(shapes())
    routing = draw(routings(num_layers=shape.num_layers))
    common = [name for name in shape.targets if all(any(s.name == name and routing.admits(s) for s in sites) for sites in shape.layers)]
    selectors = (*GROUPS, *common, *(("parallel", "prompt") if routing.per_block else ()))
    return draw(allocations(num_layers=shape.num_layers, plans=layer_plans(selectors=selectors))), shape, routing


def sharings():
    return st.one_of(
        st.just(Sharing()), st.builds(Sharing, groups=st.integers(1, 4)), st.builds(Sharing, tie=st.integers(1, 3))
    )  # fmt: skip


def axes(*, low, orders=("free", "ascending", "descending")):
    choices = st.sets(st.integers(low, 12), min_size=1, max_size=4).map(lambda found: tuple(sorted(found)))
    return st.builds(Axis, choices=choices, share=sharings(), order=st.sampled_from(orders))


@st.composite
def part_spaces(draw, selector):
    if draw(st.booleans()):
        return PartSpace(selector, draw(axes(low=0)))
    per_expert = draw(st.booleans())
    counts = draw(axes(low=0).filter(lambda axis: axis.choices[-1] <= 5))
    ranks = draw(axes(low=1, orders=["free"])) if per_expert else draw(axes(low=1))
    return PartSpace(selector, ranks, counts, per_expert)


@st.composite
def spaces(draw):
    """Bound search spaces of every kind: shared, tied, ordered, per expert, per group, per target, and with block kinds."""
    shape = draw(shapes(max_layers=4))
    routing = Routing(router=draw(st.sampled_from(ROUTERS)), top_k=draw(st.integers(1, 3)), swi_x=draw(st.integers(0, 2)))
    common = [name for name in shape.targets if all(any(site.name == name for site in sites) for sites in shape.layers)]
    groups = [group for group in GROUPS if any(site.group == group for sites in shape.layers for site in sites)]
    named = ["all"] if draw(st.booleans()) else groups
    blocks = ["parallel", "prompt"] if routing.router in BLOCK_ROUTERS else []
    extra = draw(st.lists(st.sampled_from([*common, *blocks]), unique=True, max_size=2)) if common or blocks else []
    chosen = [*named, *extra]
    template = SpaceTemplate("drawn", tuple(draw(part_spaces(selector)) for selector in draw(st.permutations(chosen))))
    return template.bind(shape, routing)


@st.composite
def points(draw, space):
    """Any combination of listed values, canonical or not."""
    return {d.name: draw(st.sampled_from(d.choices)) for d in space.dimensions}


@st.composite
def spaces_with_points(draw):
    space = draw(spaces())
    return space, draw(points(space))


@st.composite
def projections(draw):
    """A space, one of its points, and a budget that lies between its smallest and just above its largest cost."""
    space, point = draw(spaces_with_points())
    low, high = space.cost(space.smallest), space.cost(space.largest)

    def limit(least, most):
        return st.integers(max(1, least), max(1, most + most // 10))

    kind = draw(st.sampled_from(["trainable", "active", "both"]))
    trainable = None if kind == "active" else draw(limit(low.trainable, high.trainable))
    active = None if kind == "trainable" else draw(limit(low.active, high.active))
    return space, point, Budget(max_trainable=trainable, max_active=active)


def budgets():
    limits = st.one_of(st.none(), st.integers(1, 10**13), st.integers(1, 3000), st.integers(1, 999).map(lambda n: n * 10**6))
    percent = st.one_of(st.none(), st.floats(1e-9, 1000, allow_nan=False), st.sampled_from([0.5, 1.5, 10.0]))
    return (
        st.tuples(limits, limits, percent)
        .filter(lambda given: any(limit is not None for limit in given))
        .map(lambda given: Budget(*given))
    )  # fmt: skip


def _finite(low=0.0, high=50.0):
    return st.floats(low, high, allow_nan=False).map(lambda value: round(value, 5))


@st.composite
def seed_scores(draw):
    rows = draw(st.lists(st.tuples(st.booleans(), _finite()), min_size=1, max_size=5))
    return SeedScore(draw(st.integers(0, 2**31 - 1)), tuple(right for right, _ in rows), tuple(nll for _, nll in rows))


def rung_scores():
    return st.builds(RungScore, st.integers(0, 9), st.integers(1, 999), st.floats(0, 1), _finite())


def assignments():
    return st.builds(
        Assignment,
        number=st.integers(0, 10**6),
        allocation=allocations(),
        routing=routings(num_layers=3),
        seeds=st.lists(st.integers(0, 99), min_size=1, max_size=3).map(tuple),
        rungs=st.lists(st.integers(1, 999), max_size=3).map(tuple),
        keep_weights=st.booleans(),
        score_base=st.booleans(),
        params=st.integers(0, 10**12),
        stoppable=st.booleans(),
    )


def outcomes():
    rungs = st.lists(rung_scores(), max_size=3).map(tuple)
    worker, gpus, tokens = st.text(max_size=8), st.floats(0, 8), st.integers(0, 10**9)
    measured = st.builds(
        Measured,
        scores=st.lists(seed_scores(), min_size=1, max_size=2).map(tuple),
        seconds=_finite(),
        worker=worker,
        artifact=st.none() | st.text(min_size=1, max_size=8),
        base=st.none() | seed_scores(),
        rungs=rungs,
        statistics=st.dictionaries(st.text(max_size=5), _finite(), max_size=2),
        gpus=gpus,
        tokens=tokens,
    )
    return st.one_of(
        measured,
        st.builds(Stopped, rungs, _finite(), worker, gpus, tokens),
        st.builds(Failed, st.text(max_size=20), _finite(), worker, gpus, tokens),
        st.builds(Infeasible, st.text(max_size=20), _finite(), worker, gpus, tokens),
        st.builds(Lost, st.text(max_size=20), st.booleans()),
    )
