"""Router statistics by hand, and that watching leaves nothing behind."""

import math
from dataclasses import replace

import peft
import pytest
import torch

from allocsearch.moelora import MoeLoraConfig, MoeLoraLinear
from allocsearch.moelora.block import BlockRouter
from allocsearch.moelora.statistics import expert_similarity, router_statistics, watch_routers
from tests.moelora.conftest import batch, build, shake


def adapted(**settings):
    return shake(peft.get_peft_model(build("llama"), MoeLoraConfig(**settings))).eval()


def test_topk_routers_share_tokens_without_padding():
    model = adapted(allocation="3x2 2", top_k=2)
    inputs = batch()
    seen = {}
    layer = model.base_model.model.model.layers[0].self_attn.q_proj
    handle = layer.register_forward_hook(lambda module, args, output: seen.update(x=args[0]))
    with watch_routers(model) as watched:
        model(**inputs)
        model(**inputs)
    handle.remove()
    found = {router.name.removeprefix("base_model.model.model."): router for router in watched.summary()}
    assert len(found) == 7  # layer 1 has one expert a linear, so no routers
    router = found["layers.0.self_attn.q_proj"]
    assert router.num_tokens == 2 * int(inputs["attention_mask"].sum())
    x = seen["x"][inputs["attention_mask"].bool()]
    p = torch.softmax(x @ layer.expert_tensors("default")[1].T, dim=1)
    best = p.topk(2)
    gates = torch.zeros_like(p).scatter(1, best.indices, best.values / best.values.sum(1, keepdim=True))
    assert router.load == pytest.approx((gates > 0).float().mean(0).tolist())
    assert router.share == pytest.approx(gates.mean(0).tolist(), rel=1e-5)
    assert router.entropy == pytest.approx(-(p * p.log()).sum(1).mean().item(), rel=1e-5)
    assert sum(router.load) == pytest.approx(2)
    assert not layer._forward_hooks


def test_dead_experts():
    model = adapted(allocation="3x2 0", top_k=1)
    layer = model.base_model.model.model.layers[0].self_attn.q_proj
    with torch.no_grad():
        layer.expert_tensors("default")[1].zero_()  # ties: the first expert wins every time
    with watch_routers(model) as watched:
        model(**batch())
    router = next(router for router in watched.summary() if router.name.endswith("q_proj"))
    assert len(router.dead) == 2
    assert router.entropy == pytest.approx(math.log(3))


@pytest.mark.parametrize("router", ["sigmoid", "threshold"])
def test_block_routers(router):
    model = adapted(allocation="q:2,down:2,parallel:2*2", router=router)
    with watch_routers(model) as watched:
        model(**batch())
    assert [found.name.removeprefix("base_model.model.model.") for found in watched.summary()] == [
        "layers.0.self_attn.q_proj",
        "layers.1.self_attn.q_proj",
    ]
    for found in watched.summary():
        assert sum(found.share) == pytest.approx(1)
        assert len(found.load) == 3
        assert (found.load == (1, 1, 1)) == (router == "sigmoid")
        assert 0 <= found.entropy <= math.log(3) + 1e-9


def test_similarity():
    layer = next(m for m in adapted(allocation="4+2+2 0").modules() if isinstance(m, MoeLoraLinear))
    updates = torch.stack([(b @ a).flatten() for a, b in layer.expert_tensors("default")[0]])
    expected = torch.nn.functional.normalize(updates, dim=1) @ torch.nn.functional.normalize(updates, dim=1).T
    torch.testing.assert_close(expert_similarity(layer), expected)
    layer.reset_parameters("default")
    assert not expert_similarity(layer).any()


def measured(model):
    with watch_routers(model) as watched:
        model(**batch())
    return router_statistics(model, watched)


def test_in_a_few_numbers():
    model = adapted(allocation="3x2 4+1")
    with watch_routers(model) as watched:
        model(**batch())
    found = router_statistics(model, watched)
    routers = watched.summary()
    assert found.keys() == {"load_imbalance", "entropy", "dead_experts", "expert_similarity"}
    shares = [torch.tensor(router.share) for router in routers]
    expected = torch.stack([share.std(correction=0) / share.mean() for share in shares]).mean().item()
    assert found["load_imbalance"] == pytest.approx(expected, rel=1e-5)
    assert found["entropy"] == pytest.approx(sum(router.entropy / math.log(len(router.share)) for router in routers) / 14)
    linears = [module for module in model.modules() if isinstance(module, MoeLoraLinear)]
    pairs = [expert_similarity(layer)[~torch.eye(len(layer.expert_tensors("default")[0]), dtype=bool)].mean() for layer in linears]
    assert found["expert_similarity"] == pytest.approx(torch.stack(pairs).mean().item(), abs=1e-6)


def test_even_routers_and_dead_experts_in_a_few_numbers():
    model = adapted(allocation="3x2*2", router="dense")
    for layer in model.modules():
        if isinstance(layer, MoeLoraLinear):
            layer.expert_tensors("default")[1].zero_()
    even = measured(model)
    assert even["load_imbalance"] == pytest.approx(0, abs=1e-3)
    assert even["entropy"] == pytest.approx(1)
    assert even["dead_experts"] == 0
    for layer in model.modules():
        if isinstance(layer, MoeLoraLinear):
            layer.placements["default"] = replace(
                layer.placements["default"], stack=replace(layer.placements["default"].stack, router="topk", top_k=1)
            )
    assert measured(model)["dead_experts"] == 2 * 14  # ties: the first expert wins every time
    assert measured(model)["load_imbalance"] == pytest.approx(math.sqrt(2))


def test_skipped_tokens_of_a_threshold():
    plan = {"allocation": "q:2,down:2,parallel:2*2"}
    model = adapted(**plan, router="threshold")
    with watch_routers(model) as watched:
        model(**batch())
    found = router_statistics(model, watched)
    loads = [load for router in watched.summary() for load in router.load]
    assert 0 < found["skipped_share"] < 1
    assert found["skipped_share"] == pytest.approx(1 - sum(loads) / len(loads))
    assert "skipped_share" not in measured(adapted(**plan, router="sigmoid"))
    for module in model.modules():
        if isinstance(module, BlockRouter):
            with torch.no_grad():
                module.outer_bias.fill_(50)
    assert measured(model)["skipped_share"] == 0


def test_nothing_to_measure():
    assert measured(adapted(allocation="2*2")) == {}
    assert measured(adapted(allocation="q:2 0", router="sigmoid")) == {}
    assert measured(adapted(allocation="q:2 0", router="threshold")).keys() == {"skipped_share"}
