"""Parameter counts against the formulas of the papers, stated again from scratch, and against published totals."""

import pytest
from hypothesis import given

from allocsearch.core.allocation import Allocation
from allocsearch.core.budget import Cost, cost, layer_costs
from allocsearch.core.errors import InputError
from allocsearch.core.geometry import ModelShape, Routing, Site
from tests.strategies import modules


def llama(num_layers, hidden, intermediate, kv, heads):
    dims = {"q": (hidden, hidden), "k": (hidden, kv), "v": (hidden, kv), "o": (hidden, hidden)}
    dims |= {"gate": (hidden, intermediate), "up": (hidden, intermediate), "down": (intermediate, hidden)}
    layer = tuple(Site(name, "attn" if name in "qkvo" else "ffn", d_in, d_out) for name, (d_in, d_out) in dims.items())
    return ModelShape("llama", (layer,) * num_layers, hidden_size=hidden, num_heads=heads, num_parameters=6_738_415_616)


LLAMA_2_7B = llama(32, 4096, 11008, 4096, 32)
LLAMA_31_8B = llama(32, 4096, 14336, 1024, 32)


@pytest.mark.parametrize(
    ("text", "trainable"),
    [
        ("2x8*8 4x8*8 6x8*8 8x8*8", 105_635_840),
        ("8x8*8 6x8*8 4x8*8 2x8*8", 105_635_840),
        ("8x8*8 2x8*16 8x8*8", 105_635_840),
        ("5x8*32", 105_635_840),
        ("8x8*32", 169_017_344),
        ("64*32", 159_907_840),
        ("2x2*8 4x4*8 6x6*8 8x8*8", 80_650_240),
        ("2x8*8 4x6*8 6x4*8 8x2*8", 55_664_640),
        ("2x4*8 4x8*8 6x12*8 8x16*8", 155_607_040),
        ("0*32", 0),
    ],
)
def test_published_allocations_on_llama_2_7b(text, trainable):
    assert cost(Allocation.parse(text), LLAMA_2_7B).trainable == trainable


@pytest.mark.parametrize(
    ("router", "text", "total"),
    [
        ("sigmoid", "q:8,k:8,v:8,o:8,down:8,parallel:16,prompt:10*32", 24_520_288),
        ("threshold", "q:8,k:8,v:8,o:8,down:8,parallel:16*32", 22_289_120),
        ("threshold", "q:8,k:8,v:8,o:8,down:8,parallel:16,prompt:10*32", 24_651_392),
    ],
)
def test_moa_on_llama_31_8b(router, text, total):
    assert cost(Allocation.parse(text), LLAMA_31_8B, Routing(router=router)) == Cost(total, total)


def test_active_is_routers_plus_the_largest_top_k_experts():
    # q alone, 2 x 8: experts of ranks 8, 4, 2 under top-2 use 8 and 4; the router is 3 x 2.
    shape = ModelShape("toy", ((Site("q", "attn", 2, 8),),), hidden_size=2, num_heads=1, num_parameters=1)
    allocation = Allocation.parse("q:2+8+4")
    assert cost(allocation, shape, Routing(top_k=2)) == Cost(trainable=6 + 14 * 10, active=6 + 12 * 10)
    assert cost(allocation, shape, Routing(top_k=9)) == Cost(trainable=146, active=146)
    assert cost(allocation, shape, Routing(router="dense", top_k=1)) == Cost(trainable=146, active=146)


def test_one_expert_has_no_router():
    shape = ModelShape("toy", ((Site("q", "attn", 3, 5),),), hidden_size=3, num_heads=1, num_parameters=1)
    assert cost(Allocation.parse("q:4"), shape) == Cost(32, 32)
    assert cost(Allocation.parse("q:2x4"), shape, Routing(top_k=1)) == Cost(64 + 6, 32 + 6)


def slow_cost(allocation, shape, routing):
    """The papers' formulas, one matrix at a time: the sizes of every tensor that would be made."""
    trainable, active = [], []
    for number, (plan, sites) in enumerate(zip(allocation, shape.layers, strict=True)):
        chosen = [site for site in sites if site.name in routing.targets or site.group in routing.targets]
        matrices = []  # of all experts of this layer's block
        for site in chosen:
            ranks = sorted(plan.sizes(site.name))
            experts = [[rank * site.d_in, site.d_out * rank] for rank in ranks]
            matrices += experts
            if routing.router in ("topk", "dense"):
                router = [site.d_in for _ in ranks] if len(ranks) > 1 else []
                k = routing.top_k if isinstance(routing.top_k, int) else routing.top_k[number]
                largest = experts if routing.router == "dense" else experts[::-1][:k]
                trainable += [*router, *(n for pair in experts for n in pair)]
                active += [*router, *(n for pair in largest for n in pair)]
        if routing.router in ("sigmoid", "threshold"):
            d = shape.hidden_size
            matrices += [[width * d, width, d * width, d] for width in plan.sizes("parallel")]
            matrices += [[length * d, shape.num_heads] for length in plan.sizes("prompt")]
            n = len(matrices)
            if n == 0:
                continue
            h = n * routing.swi_x
            router = [d * h, h, d * h, h, h * n, n] if routing.swi_x else [d * n, n]
            threshold = [d, 1] if routing.router == "threshold" else []
            block = [*router, *threshold, *(n for tensors in matrices for n in tensors)]
            trainable += block
            active += block
    return Cost(sum(trainable), sum(active))


@given(modules())
def test_cost_equals_the_papers_formulas(module):
    allocation, shape, routing = module
    assert cost(allocation, shape, routing) == slow_cost(allocation, shape, routing)


@given(modules())
def test_active_is_never_more_than_trainable_and_layers_add_up(module):
    allocation, shape, routing = module
    layers = layer_costs(allocation, shape, routing)
    total = cost(allocation, shape, routing)
    assert 0 <= total.active <= total.trainable
    assert total == Cost(sum(layer.trainable for layer in layers), sum(layer.active for layer in layers))
    assert len(layers) == shape.num_layers


TOY = ModelShape("ToyModel", ((Site("q", "attn", 2, 2), Site("up", "ffn", 2, 2)),) * 2, hidden_size=2, num_heads=1, num_parameters=1)


@pytest.mark.parametrize(
    ("text", "routing", "says"),
    [
        ("4x8", Routing(), "one plan per layer, but got 1 plans for 2 layers of ToyModel"),
        ("4x8*2", Routing(top_k=(1, 2, 3)), "one number or one per layer, but got 3 for 2 layers"),
        (
            "4x8 parallel:4",
            Routing(),
            "a 'parallel' expert needs a block router, but layer 1 has one under 'topk': use sigmoid or threshold",
        ),
        ("prompt:4 0", Routing(router="dense"), "layer 0 has one under 'dense'"),
        ("q:4 down:4", Routing(), "layer 1 names 'down' and the model offers"),
        ("q:4 up:4", Routing(targets=("attn",)), "layer 1 names 'up' and the model offers q"),
    ],
)
def test_an_allocation_that_does_not_fit_says_where(text, routing, says):
    with pytest.raises(InputError) as caught:
        cost(Allocation.parse(text), TOY, routing)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_group_or_a_frozen_target_may_be_absent_from_the_model():
    assert cost(Allocation.parse("attn:2x4,k:0 0"), TOY) == cost(Allocation.parse("q:2x4 0"), TOY)
