"""Block routers and what they gate agree with MoA's formulas."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from allocsearch.core.allocation import Expert
from allocsearch.moelora import MoeLoraLinear
from allocsearch.moelora.balance import Ledger
from allocsearch.moelora.block import BlockRouter, Cell, ParallelExperts, RouterSpec
from allocsearch.moelora.layer import BlockRole, Placement
from allocsearch.moelora.prompt import PromptExperts, PromptSpec
from allocsearch.moelora.stacked import Stack
from tests.moelora.conftest import router_parts
from tests.moelora.moa_reference import moa_gates, moa_lora, moa_parallel, moa_prompt

MOA = "q:2,k:2,v:2,o:2,down:3,parallel:4"
double = {"device": None, "dtype": torch.float64}


def randomised(module, seed=0):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return module


def assert_same_gradients(actual, expected, wanted):
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-10)
    weights = torch.linspace(-1, 1, actual.numel(), dtype=actual.dtype).reshape(actual.shape)
    results = [torch.autograd.grad((y * weights + y**2).sum(), wanted, materialize_grads=True) for y in (actual, expected)]
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


@settings(max_examples=30, deadline=None)
@given(
    num_experts=st.integers(1, 4), swi_x=st.integers(0, 3), sparse=st.booleans(), straight_through=st.booleans(), seed=st.integers(0, 999)
)
def test_router(num_experts, swi_x, sparse, straight_through, seed):
    spec = RouterSpec(tuple(Expert(2, target="q") for _ in range(num_experts)), swi_x, sparse=sparse, straight_through=straight_through)
    router = randomised(BlockRouter(5, spec, **double), seed)
    x = torch.randn(2, 3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(seed), requires_grad=True)
    expected = moa_gates(x.flatten(0, 1), **router_parts(router), straight_through=straight_through)
    assert_same_gradients(router(x), expected, (x, *router.parameters()))


def test_the_threshold_trains_only_by_the_straight_through_estimator():
    experts = (Expert(2, target="q"), Expert(2, target="k"))
    for straight_through in (True, False):
        router = randomised(BlockRouter(5, RouterSpec(experts, 2, sparse=True, straight_through=straight_through), **double))
        router(torch.randn(7, 5, dtype=torch.float64)).sum().backward()
        assert bool(router.inner.grad[-1].any()) == straight_through


@pytest.mark.parametrize("ranks", [(3,), (2, 2), (4, 1)])
def test_gated_lora(ranks):
    torch.manual_seed(0)
    cell = Cell()
    role = BlockRole(cell, first_gate=1)
    stack = Stack(ranks, tuple(8 / rank for rank in ranks), router="sigmoid")
    base = nn.Linear(5, 4).double().requires_grad_(False)
    layer = randomised(MoeLoraLinear(base, "default", Placement(stack, layer=0, target="k", block=role), ledger=Ledger()))
    x = torch.randn(2, 3, 5, dtype=torch.float64, requires_grad=True)
    cell.gates = torch.rand(6, 4, dtype=torch.float64, requires_grad=True)
    gates = cell.gates[:, 1 : 1 + len(ranks)]
    w_in, w_out = layer.moelora_in["default"], layer.moelora_out["default"]
    assert w_in.shape == (sum(ranks), 5)
    experts = list(zip(w_in.split(ranks), w_out.split(ranks, dim=1), strict=True))
    expected = moa_lora(x.flatten(0, 1), base(x).flatten(0, 1), experts, gates, scalings=stack.scaling)
    assert_same_gradients(layer(x), expected.reshape(2, 3, 4), (x, cell.gates, w_in, w_out))


@pytest.mark.parametrize("widths", [(3,), (2, 2), (4, 1)])
def test_parallel_adapters(widths):
    torch.manual_seed(0)
    module = randomised(ParallelExperts(5, widths, **double))
    x = torch.randn(2, 3, 5, dtype=torch.float64, requires_grad=True)
    gates = torch.rand(6, len(widths), dtype=torch.float64, requires_grad=True)
    parts = zip(module.down.split(widths), module.down_bias.split(widths), module.up.split(widths, dim=1), module.up_bias, strict=True)
    expected = moa_parallel(x.flatten(0, 1), list(parts), gates).reshape(2, 3, 5)
    assert_same_gradients(module(x, gates), expected, (x, gates, *module.parameters()))


@pytest.mark.parametrize("lengths", [(3,), (4, 2)])
def test_prompts(lengths):
    torch.manual_seed(0)
    attention = nn.Module()
    attention.k_proj, attention.v_proj = nn.Linear(6, 4).double(), nn.Linear(6, 4).double()
    module = randomised(PromptExperts(6, PromptSpec(lengths, 0, num_heads=4, key="k_proj", value="v_proj"), **double))
    query = torch.randn(2, 4, 3, 2, dtype=torch.float64, requires_grad=True)
    gates = torch.rand(6, len(lengths), dtype=torch.float64, requires_grad=True)
    expected = moa_prompt(
        query.transpose(1, 2).flatten(0, 1), module.tokens.split(lengths), module.heads, gates,
        key=lambda prompt: attention.k_proj(prompt).unflatten(-1, (2, 2)),
        value=lambda prompt: attention.v_proj(prompt).unflatten(-1, (2, 2)),
    )  # fmt: skip
    actual = module(query, gates, attention=attention, scaling=2**-0.5)
    assert_same_gradients(actual, expected.reshape(2, 3, 4, 2), (query, gates, *module.parameters()))
