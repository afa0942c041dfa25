"""An adapter that acts as a smaller one is that smaller one: outputs, balance loss and gradients."""

import peft
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from allocsearch.core.allocation import Allocation, LayerPlan
from allocsearch.core.errors import InputError
from allocsearch.moelora import MoeLoraConfig, MoeLoraLinear
from allocsearch.moelora.slicing import act_as
from tests.moelora.conftest import batch, build, logits, own, shake

TARGETS = ("q", "k", "v", "o", "gate", "up", "down")
sizes = st.lists(st.integers(1, 4), max_size=4).map(lambda ranks: tuple(sorted(ranks, reverse=True)))
plans = st.dictionaries(st.sampled_from(["attn", "ffn", "q", "down"]), sizes).map(lambda parts: LayerPlan(tuple(parts.items())))


@st.composite
def nested(draw):
    """An allocation of two layers with some expert, and one that it holds, cut target by target."""
    large = Allocation(tuple(draw(st.lists(plans, min_size=2, max_size=2).filter(lambda layers: not all(p.is_frozen for p in layers)))))
    return large, Allocation(tuple(LayerPlan(tuple((name, draw(_cut(ranks))) for name, ranks in _spelled(plan))) for plan in large))


def _spelled(plan):
    """A plan's parts with every target that its groups reach, so that cutting a group cuts each of them by itself."""
    return [(name, plan.sizes(name)) for name in ("attn", "ffn", *TARGETS)]


@st.composite
def _cut(draw, ranks):
    kept = ranks[: draw(st.integers(0, len(ranks)))]
    return tuple(sorted((draw(st.integers(1, rank)) for rank in kept), reverse=True))


def adapter(allocation, **settings):
    config = MoeLoraConfig(allocation=str(allocation), task_type="CAUSAL_LM", aux_loss_weight=0.5, **settings)
    return peft.get_peft_model(build("llama").double(), config).double()


def layers(model):
    return {name: module for name, module in model.named_modules() if isinstance(module, MoeLoraLinear)}


@torch.no_grad()
def copy_slices(large, small):
    """Expert by expert, through views: independent of the indices that are tested."""
    for name, module in layers(small).items():
        experts, router = module.expert_tensors("default")
        others, other_router = layers(large)[name].expert_tensors("default")
        for (a, b), (other_a, other_b) in zip(experts, others, strict=False):
            a.copy_(other_a[: len(a)])
            b.copy_(other_b[:, : len(a)])
        if router is not None:
            router.copy_(other_router[: len(router)])


@settings(max_examples=25, deadline=None)
@example((Allocation.parse("ffn:1 0"), Allocation.parse("ffn:1,gate:0,up:0,down:0 0")), "topk", 1, "2r", 0)
@given(nested(), st.sampled_from(["topk", "dense"]), st.integers(1, 3), st.sampled_from(["2r", 16]), st.integers(0, 9))
def test_a_slice_is_the_smaller_adapter(pair, router, top_k, alpha, seed):
    allocation, part = pair
    kinds = {"router": router, "top_k": top_k, "lora_alpha": alpha}
    large = shake(adapter(allocation, **kinds), seed=seed)
    act_as(large, part)
    inputs = batch(padding="left")
    if not any(plan.sizes(target) for plan in part for target in TARGETS):  # a group's plan may be cut away target by target
        torch.testing.assert_close(logits(large), logits(large.unload()), rtol=0, atol=0)
        return
    small = adapter(part, **kinds)
    copy_slices(large, small)
    torch.testing.assert_close(logits(large), logits(small), rtol=1e-12, atol=1e-12)
    losses = [model.train()(**inputs).loss for model in (large, small)]
    torch.testing.assert_close(*losses, rtol=1e-12, atol=1e-12)
    for loss in losses:
        loss.backward()
    gradients_agree(large, small)


def gradients_agree(large, small):
    """The slice's are the smaller adapter's, and nothing beside it has any."""
    for name, module in layers(large).items():
        beside = {key: getattr(module, f"moelora_{key}")["default"].grad for key in ("in", "out")}
        found = layers(small).get(name)
        if found is None:
            assert all(grad is None for grad in beside.values())
            continue
        ranks, rest = module.placements["default"].stack.ranks, found.placements["default"].stack
        own_in, own_out = (getattr(found, f"moelora_{key}")["default"].grad for key in ("in", "out"))
        first, own_first = 0, 0
        for rank, own_rank in zip(ranks, rest.ranks, strict=False):
            torch.testing.assert_close(beside["in"][first : first + own_rank], own_in[own_first : own_first + own_rank])
            torch.testing.assert_close(beside["out"][:, first : first + own_rank], own_out[:, own_first : own_first + own_rank])
            first, own_first = first + rank, own_first + own_rank
        if rest.has_router:
            torch.testing.assert_close(beside["in"][sum(ranks) :][: rest.num_experts], own_in[rest.total_rank :])
        assert torch.count_nonzero(beside["out"]) <= own_out.numel()
        assert torch.count_nonzero(beside["in"]) <= own_in.numel()


def test_a_fresh_slice_holds_what_a_fresh_adapter_holds():
    large, small = adapter("4x4*2"), adapter("2x3 1")
    before = {name: value.clone() for name, value in small.state_dict().items()}
    copy_slices(large, small)
    for name, value in small.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


def test_it_acts_as_itself_again():
    model = shake(adapter("3x2 2"))
    whole, names = logits(model), own(model, "default")
    act_as(model, Allocation.parse("2 1"))
    assert not torch.allclose(logits(model), whole)
    act_as(model, None)
    torch.testing.assert_close(logits(model), whole, rtol=0, atol=0)
    assert own(model, "default") == names, "slices are no parameters"


@pytest.mark.parametrize("text", ["4x2 2", "3x3 2", "3x2 2x1", "3x2", "attn:3x2,q:4x1 2"])
def test_what_it_does_not_hold_is_refused(text):
    model = adapter("3x2 2")
    with pytest.raises(InputError, match="must hold the allocation"):
        act_as(model, Allocation.parse(text))


def test_a_router_per_block_is_refused():
    model = adapter("q:2,down:2*2", router="sigmoid")
    with pytest.raises(InputError, match="router per linear"):
        act_as(model, Allocation.parse("q:1*2"))
