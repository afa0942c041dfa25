"""Published allocations at a budget: as published, as large as fits, never over."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from allocsearch.core.budget import Budget, cost
from allocsearch.core.geometry import ModelShape, Routing, Site
from allocsearch.core.warm_starts import WARM_STARTS, BlockPattern, Pattern, scaled
from tests.core.test_cost import LLAMA_2_7B, LLAMA_31_8B
from tests.strategies import routings, shapes


@pytest.mark.parametrize(
    ("name", "budget", "text"),
    [
        ("mola-2468", 105_635_840, "2x8*8 4x8*8 6x8*8 8x8*8"),
        ("mola-8642", 105_635_840, "8x8*8 6x8*8 4x8*8 2x8*8"),
        ("mola-8228", 105_635_840, "8x8*8 2x8*16 8x8*8"),
        ("mola-2882", 105_635_840, "2x8*8 8x8*16 2x8*8"),
        ("mola-8888", 169_017_344, "8x8*32"),
        ("uniform", 105_635_840, "5x8*32"),
        ("lora", 159_907_840, "64*32"),
        ("lora", 159_907_839, "63*32"),
        ("hilo-2468", 80_650_240, "2x2*8 4x4*8 6x6*8 8x8*8"),
        ("hilo-8642", 55_664_640, "2x8*8 4x6*8 6x4*8 8x2*8"),
    ],
)
def test_a_published_budget_gives_the_published_allocation(name, budget, text):
    """The budgets are the papers' own counts on Llama-2-7B."""
    assert str(scaled(WARM_STARTS[name], shape=LLAMA_2_7B, routing=Routing(), budget=Budget(budget))) == text


def test_moa_keeps_its_proportions():
    found = scaled(WARM_STARTS["moa-default"], shape=LLAMA_31_8B, routing=Routing(router="threshold"), budget=Budget(22_289_120))
    assert str(found) == "q:8,k:8,v:8,o:8,down:8,parallel:16*32"


@given(shapes(), st.sampled_from(sorted(WARM_STARTS)), st.data(), st.integers(1, 200_000), st.booleans())
def test_a_scaled_pattern_is_inside_and_one_rank_more_is_not(shape, name, data, limit, active):
    routing = data.draw(routings(num_layers=shape.num_layers))
    pattern = WARM_STARTS[name]
    budget = Budget(max_active=limit) if active else Budget(limit)
    found = scaled(pattern, shape=shape, routing=routing, budget=budget)
    if not pattern.fits(shape, routing):
        assert found is None
        return
    divisors = (1, 2)
    if found is None:
        for divisor in divisors:
            assert budget.excess(cost(pattern.at(Fraction(1), shape.num_layers, divisor=divisor), shape, routing))
        return
    assert budget.excess(cost(found, shape, routing)) == {}
    ladder = {divisor: [pattern.at(Fraction(q, 4), shape.num_layers, divisor=divisor) for q in range(4, 1025)] for divisor in divisors}
    divisor = next(divisor for divisor in divisors if found in ladder[divisor])
    above = [step for step in ladder[divisor][ladder[divisor].index(found) :] if step != found][:1]
    assert not above or budget.excess(cost(above[0], shape, routing))
    if divisor == 2:  # halved only where the whole pattern is over at its smallest
        assert budget.excess(cost(ladder[1][0], shape, routing))


@given(st.integers(1, 40), st.integers(1, 64))
def test_counts_are_as_published_whatever_the_rank(num_layers, rank):
    allocation = WARM_STARTS["mola-2468"].at(Fraction(rank), num_layers)
    counts = [len(plan.sizes("q")) for plan in allocation]
    assert counts == sorted(counts)
    assert set(counts) <= {2, 4, 6, 8}
    if num_layers % 4 == 0:
        assert [counts.count(n) for n in (2, 4, 6, 8)] == [num_layers // 4] * 4
    assert {size for plan in allocation for size in plan.sizes("q")} == {rank}


def test_halving_rounds_up():
    assert str(Pattern((5, 1)).at(Fraction(3), 2, divisor=2)) == "3x3 3"
    assert str(Pattern((2,), (1, 4)).at(Fraction(5, 4), 2)) == "2x1 2x5"


def test_patterns_fit_their_routers_only():
    shape = ModelShape("toy", ((Site("q", "attn", 4, 4), Site("down", "ffn", 4, 4)),), hidden_size=4, num_heads=1, num_parameters=1)
    block, linear = Routing(router="sigmoid"), Routing()
    assert Pattern((2,)).fits(shape, linear)
    assert not Pattern((2,)).fits(shape, block)
    own = BlockPattern((("q", 1), ("parallel", 2)))
    assert own.fits(shape, block)
    assert not own.fits(shape, linear)
    assert not own.fits(shape, Routing(router="sigmoid", targets=("ffn",)))
    assert not WARM_STARTS["moa-default"].fits(shape, block)
    assert str(own.at(Fraction(5, 2), 1)) == "q:2,parallel:4"


def test_every_warm_start_says_what_it_is():
    assert all(pattern.about for pattern in WARM_STARTS.values())
