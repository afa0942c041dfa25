"""Block routers in whole models: MoA's published block, counts, saving, checkpointing, compiling."""

import copy

import peft
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from allocsearch.core.allocation import Allocation, LayerPlan
from allocsearch.core.budget import cost
from allocsearch.core.errors import InputError
from allocsearch.core.targets import locate
from allocsearch.moelora import MoeLoraConfig
from tests.moelora.conftest import FAMILIES, batch, build, router_parts, shake, shape
from tests.moelora.moa_reference import moa_gates, moa_lora, moa_parallel, moa_prompt

BASES = {family: build(family, num_layers=3) for family in FAMILIES}
MOA = "q:2,k:2,v:2,o:2,down:3,parallel:4"


def moa_layer(layer, hidden, rotary, mask, name="default"):
    """A whole Llama block with MoA, from the published description."""
    attn, mlp, plain = layer.self_attn, layer.mlp, lambda module: getattr(module, "base_layer", module)
    x = layer.input_layernorm(hidden)
    flat, (batch_size, length) = x.flatten(0, 1), x.shape[:2]
    host = attn.q_proj
    gates = moa_gates(flat, **router_parts(host.moelora_router[name]))
    columns = iter(gates.T)

    def adapted(module, tokens):
        experts = module.expert_tensors(name)[0]
        own = torch.stack([next(columns) for _ in experts], dim=1)
        return moa_lora(tokens, plain(module)(tokens), experts, own, scalings=module.placements[name].stack.scaling)

    def heads(tokens):
        return tokens.reshape(batch_size, length, -1, attn.head_dim).transpose(1, 2)

    q, k, v = (heads(adapted(module, flat)) for module in (attn.q_proj, attn.k_proj, attn.v_proj))
    q, k = apply_rotary_pos_emb(q, k, *rotary)
    groups = q.shape[1] // k.shape[1]
    scores = q @ k.repeat_interleave(groups, 1).transpose(2, 3) / attn.head_dim**0.5 + mask
    attended = (scores.softmax(-1) @ v.repeat_interleave(groups, 1)).transpose(1, 2)
    if host.placements[name].block.prompt is not None:
        prompts = host.moelora_prompt[name]
        added = moa_prompt(
            q.transpose(1, 2).flatten(0, 1), [prompts.tokens], prompts.heads, gates[:, -1:],
            key=lambda p: plain(attn.k_proj)(p).unflatten(-1, (-1, attn.head_dim)),
            value=lambda p: plain(attn.v_proj)(p).unflatten(-1, (-1, attn.head_dim)),
        )  # fmt: skip
        attended = attended + added.reshape(attended.shape)
    hidden = hidden + adapted(attn.o_proj, attended.reshape(batch_size * length, -1)).reshape(hidden.shape)
    h = layer.post_attention_layernorm(hidden).flatten(0, 1)
    out = adapted(mlp.down_proj, mlp.act_fn(mlp.gate_proj(h)) * plain(mlp.up_proj)(h))
    beside = mlp.up_proj.moelora_parallel[name]
    out = out + moa_parallel(h, [(beside.down, beside.down_bias, beside.up, beside.up_bias[0])], next(columns)[:, None])
    return hidden + out.reshape(hidden.shape)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize(
    ("plan", "router"), [(MOA, "sigmoid"), (MOA, "threshold"), (MOA + ",prompt:3", "sigmoid"), (MOA + ",prompt:3", "threshold")]
)
def test_a_whole_block(plan, router, attention):
    model = build("llama", attn_implementation=attention).double()
    shake(peft.get_peft_model(model, MoeLoraConfig(allocation=f"{plan}*2", router=router, lora_alpha=8)).double())
    inputs = batch(padding=None)
    model.eval()
    with torch.no_grad():
        actual = model.model(input_ids=inputs["input_ids"]).last_hidden_state
        hidden = model.model.embed_tokens(inputs["input_ids"])
        length = hidden.shape[1]
        rotary = model.model.rotary_emb(hidden, torch.arange(length)[None])
        mask = torch.full((length, length), float("-inf"), dtype=torch.float64).triu(1)
        for layer in model.model.layers:
            hidden = moa_layer(layer, hidden, rotary, mask)
        torch.testing.assert_close(actual, model.model.norm(hidden), rtol=1e-5, atol=1e-6)


block_plans = st.dictionaries(
    st.sampled_from(["attn", "ffn", "parallel"]), st.lists(st.integers(1, 4), max_size=2).map(tuple), min_size=1
).map(lambda parts: LayerPlan(tuple(parts.items())))


@settings(max_examples=25, deadline=None)
@given(
    family=st.sampled_from(FAMILIES), layers=st.tuples(block_plans, block_plans, block_plans), swi_x=st.sampled_from([0, 1, 4]),
    router=st.sampled_from(["sigmoid", "threshold"]), targets=st.sampled_from([None, ["attn"], ["ffn"]]),
)  # fmt: skip
def test_cost_equals_trainable_parameters(family, layers, swi_x, router, targets):
    base, allocation = BASES[family], Allocation(layers)
    config = MoeLoraConfig(allocation=str(allocation), router=router, target_modules=targets, swi_x=swi_x)
    expected = cost(allocation, shape(base), config.routing).trainable
    if not expected:
        with pytest.raises(InputError, match="at least one expert"):
            peft.get_peft_model(base, config)
        return
    model = peft.get_peft_model(base, config)
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == expected
    model.unload()


@pytest.mark.parametrize("plan", [MOA, MOA + ",prompt:3", "prompt:2+1", "o:2"])
@pytest.mark.parametrize("router", ["sigmoid", "threshold"])
def test_life_of_an_adapter(plan, router, tmp_path):
    base = build("llama")
    inputs = {name: value for name, value in batch(padding="left").items() if name != "labels"}
    expected = logits(base)
    config = MoeLoraConfig(allocation=f"{plan} 0", router=router, task_type="CAUSAL_LM")
    model = peft.get_peft_model(base, config)
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == cost(config.plans, shape(base), config.routing).trainable
    torch.testing.assert_close(logits(model), expected)
    shake(model)
    adapted = logits(model)
    assert not torch.allclose(adapted, expected)
    model.train()(**batch()).loss.backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
    assert torch.equal(logits(copy.deepcopy(model)), adapted)
    model.save_pretrained(tmp_path)
    with model.disable_adapter():
        assert torch.equal(logits(model), expected)
    generated = [model.generate(**inputs, use_cache=use, max_new_tokens=3, do_sample=False, pad_token_id=0) for use in (True, False)]
    assert torch.equal(*generated)
    assert model.unload() is base
    assert torch.equal(logits(base), expected)
    assert all(layer.self_attn.config is base.config for layer in base.model.layers)
    for low in (False, True):
        loaded = peft.PeftModel.from_pretrained(base, tmp_path, low_cpu_mem_usage=low)
        # With `low_cpu_mem_usage` parameters lie where the file puts them, and products round by how their operands are aligned.
        torch.testing.assert_close(logits(loaded), adapted, rtol=0, atol=1e-6 if low else 0)
        loaded.unload()
    base.load_adapter(str(tmp_path))
    torch.testing.assert_close(logits(base), adapted, rtol=0, atol=1e-6)


def logits(model):
    with torch.no_grad():  # torch picks its products by what requires gradient, and then rounds differently
        return model.eval()(**{name: value for name, value in batch().items() if name != "labels"}).logits


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointing_gives_the_same_gradients(reentrant):
    results = []
    for checkpointed in (False, True):
        model = shake(peft.get_peft_model(build("llama"), MoeLoraConfig(allocation=f"{MOA},prompt:3*2", router="threshold")).train())
        if checkpointed:
            model.base_model.model.activation_checkpointing_enable({"use_reentrant": reentrant})
            model.enable_input_require_grads()
        model(**batch(), use_cache=False).loss.backward()
        results.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert results[0].keys() == results[1].keys()
    for name, grad in results[0].items():
        torch.testing.assert_close(grad, results[1][name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "settings", [{"allocation": "3+1", "aux_loss_weight": 0.0}, {"allocation": MOA + ",prompt:2", "router": "threshold"}]
)
def test_a_whole_model_compiles_without_graph_breaks(settings):
    model = shake(peft.get_peft_model(build("llama", num_layers=1), MoeLoraConfig(**settings))).train()
    compiled = torch.compile(model.base_model.model, fullgraph=True, backend="aot_eager")
    results = []
    for callee in (model, compiled):
        model.zero_grad()
        callee(**batch(padding=None), use_cache=False).loss.backward()
        results.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    for name, grad in results[0].items():
        torch.testing.assert_close(results[1][name], grad, rtol=1e-4, atol=1e-6)
    torch.compiler.reset()


def test_adapters_with_routers_of_both_kinds():
    base = build("llama")
    model = shake(peft.get_peft_model(base, MoeLoraConfig(allocation="2x2*2")))
    inputs = {name: value for name, value in batch().items() if name != "labels"}
    first = model.eval()(**inputs).logits
    model.add_adapter("moa", MoeLoraConfig(allocation=f"{MOA},prompt:2*2", router="sigmoid"))
    assert torch.equal(model(**inputs).logits, first)
    model.set_adapter("moa")
    torch.testing.assert_close(model(**inputs).logits, build("llama").eval()(**inputs).logits)
    model.set_adapter("default")
    model.delete_adapter("moa")
    assert torch.equal(model(**inputs).logits, first)


def test_shared_experts_start_equal():
    def routers(plan):
        model = peft.get_peft_model(build("llama"), MoeLoraConfig(allocation=f"{plan}*2", router="sigmoid", swi_x=2))
        host = model.base_model.model.model.layers[1].self_attn.q_proj
        return host.moelora_router["default"], host.moelora_in["default"]

    (small, a), (large, b) = routers("q:2,down:2"), routers("q:3,v:2,down:2")
    torch.testing.assert_close(a, b[:2])
    torch.testing.assert_close(small.inner[:2], large.inner[:2])  # W1 of q
    torch.testing.assert_close(small.inner[2:4], large.inner[4:6])  # W1 of down
    assert not small.inner_bias.any()


@pytest.mark.parametrize(
    ("family", "settings", "said"),
    [
        ("gpt2", {"allocation": "prompt:2*3"}, "separate linears q, k and v"),
        ("llama", {"allocation": "parallel:2*3", "exclude_modules": ["down_proj"]}, "needs a linear down"),
        ("llama", {"allocation": "q:2*3", "exclude_modules": ["q_proj"]}, "names 'q'"),
        ("llama", {"allocation": "v:2*3", "exclude_modules": ["q_proj"]}, "needs a linear q or qkv"),
        ("llama", {"allocation": "v:2*3", "threshold_gradient": "all"}, "`threshold_gradient` must be one of"),
    ],
)
def test_errors_say_what_must_hold(family, settings, said):
    with pytest.raises(InputError, match=said):
        peft.get_peft_model(BASES[family], MoeLoraConfig(router="sigmoid", **settings))


def test_prompts_need_keys_without_a_norm():
    config = transformers.Qwen3Config(
        vocab_size=61, hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=4, num_key_value_heads=2, head_dim=4
    )
    with pytest.raises(InputError, match="leave `prompt` out"):
        peft.get_peft_model(transformers.Qwen3ForCausalLM(config), MoeLoraConfig(allocation="prompt:2", router="sigmoid"))


@pytest.mark.parametrize("family", ["bert"])
def test_prompts_on_other_families(family):
    base = build(family)
    model = peft.get_peft_model(base, MoeLoraConfig(allocation="prompt:2*2", router="sigmoid"))
    inputs = {name: value for name, value in batch().items() if name != "labels"}
    before = model.eval()(**inputs).logits
    shake(model)
    assert not torch.allclose(model(**inputs).logits, before)
    assert {locate(name).target for name in model.base_model.targeted_module_names} == {"q"}
