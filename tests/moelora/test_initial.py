"""Two allocations start equal wherever they share experts."""

import time

import peft
import torch

from allocsearch.moelora import MoeLoraConfig, MoeLoraLinear
from allocsearch.moelora.initial import expert_rows, fill_rows, row_seed
from tests.moelora.conftest import build


def tensors(allocation, *, seed=0):
    base = build("llama")
    model = peft.get_peft_model(base, MoeLoraConfig(allocation=allocation, init_seed=seed))
    found = {name: m.expert_tensors("default") for name, m in model.named_modules() if isinstance(m, MoeLoraLinear)}
    model.unload()
    return found


def test_shared_experts_start_equal():
    small, large = tensors("2x2 3"), tensors("8+4+2 2x8")
    assert small.keys() == large.keys()
    for name, (experts, router) in small.items():
        others, other_router = large[name]
        for (a, b), (other, _) in zip(experts, others, strict=False):
            torch.testing.assert_close(a, other[: len(a)], rtol=0, atol=0)
            assert not b.any()
        if router is not None:
            torch.testing.assert_close(router, other_router[: len(router)], rtol=0, atol=0)


def test_places_and_seeds_differ():
    first, second = tensors("2x2 2x2"), tensors("2x2 2x2", seed=1)
    rows = [a[0] for experts, _ in first.values() for a, _ in experts if a.shape[1] == 16]
    rows += [a[0] for experts, _ in second.values() for a, _ in experts if a.shape[1] == 16]
    stacked = torch.stack(rows)
    assert len(torch.unique(stacked, dim=0)) == len(rows)
    assert stacked.abs().max() <= 16**-0.5
    assert abs(stacked.mean()) < 0.02
    assert abs(stacked.std() - (1 / 16 / 3) ** 0.5) < 0.01


def test_seeds_are_the_same_everywhere():
    assert row_seed(0, 1, "q", 2, 3) == 2626106799012830873
    assert row_seed(0, 1, "q", "router", 3) == 7920047926167515521
    assert row_seed(0, 11, "q", 2, 3) != row_seed(0, 1, "1q", 2, 3)


def test_the_global_generator_is_left_alone_and_it_is_fast():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    weight = torch.empty(6000, 576)
    started = time.perf_counter()
    fill_rows(weight, expert_rows((6000,)), seed=0, layer=0, target="q")
    assert time.perf_counter() - started < 2
    assert torch.equal(before, torch.get_rng_state())
