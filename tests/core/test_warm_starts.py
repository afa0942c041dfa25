"""Published patterns scaled to a budget, and which of them a router or a model has no use for."""

import pytest

from allocsearch.core.allocation import Allocation
from allocsearch.core.budget import Budget, cost
from allocsearch.core.geometry import ModelShape, Routing, Site
from allocsearch.core.warm_starts import WARM_STARTS, scaled
from allocsearch.spec import load_space

MOA = WARM_STARTS["moa-default"]
ROUTING = {router: Routing(router=router) for router in ("topk", "dense", "sigmoid", "threshold")}


def shape(targets="q k v o gate up down", num_layers=30, hidden=576):
    linears = {"k": (hidden, 192), "v": (hidden, 192), "gate": (hidden, 1536), "up": (hidden, 1536), "down": (1536, hidden)}
    sites = [Site(t, "attn" if t in "qkvo" or t == "qkv" else "ffn", *linears.get(t, (hidden, hidden))) for t in targets.split()]
    return ModelShape("toy", (tuple(sites),) * num_layers, hidden_size=hidden, num_heads=9, num_parameters=10**8)


def test_moas_block_scales_as_one():
    budget = Budget.parse("8M-params")
    found = scaled(MOA, shape=shape(), routing=ROUTING["sigmoid"], budget=budget)
    assert found == Allocation.parse("q:28,k:28,v:28,o:28,down:28,parallel:56*30")
    assert not budget.excess(cost(found, shape(), ROUTING["sigmoid"]))
    assert budget.excess(cost(MOA.at(29, 30), shape(), ROUTING["sigmoid"]))
    assert str(MOA.at(8, 32)) == "q:8,k:8,v:8,o:8,down:8,parallel:16*32"  # as published
    assert scaled(MOA, shape=shape(), routing=ROUTING["sigmoid"], budget=Budget.parse("100K-params")) is None


@pytest.mark.parametrize("router", ROUTING)
@pytest.mark.parametrize("name", WARM_STARTS)
def test_a_pattern_belongs_to_one_kind_of_router(name, router):
    fits = (name == "moa-default") == ROUTING[router].per_block
    assert WARM_STARTS[name].fits(shape(), ROUTING[router]) == fits
    assert (scaled(WARM_STARTS[name], shape=shape(), routing=ROUTING[router], budget=Budget.parse("20M-params")) is not None) == fits


@pytest.mark.parametrize(("targets", "admitted"), [("qkv o up down", ("attn", "ffn")), ("q k v o up down", ("attn",))])
def test_moas_block_needs_its_linears(targets, admitted):
    routing = Routing(router="sigmoid", targets=admitted)
    assert scaled(MOA, shape=shape(targets), routing=routing, budget=Budget.parse("20M-params")) is None


@pytest.mark.parametrize("name", ["moa", "moa-sparse"])
@pytest.mark.parametrize("budget", ["2M-params", "8M-params"])
def test_the_shipped_moa_spaces_hold_moas_block(name, budget):
    spec = load_space(name)
    space = spec.template().bind(shape(), spec.routing.routing())
    found = scaled(MOA, shape=shape(), routing=space.routing, budget=Budget.parse(budget))
    assert space.expresses(found)
