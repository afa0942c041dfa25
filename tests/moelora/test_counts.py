"""`cost` counts exactly what an injected model trains, and every linear gets the experts that its plan says."""

import peft
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from allocsearch.core.allocation import Allocation, LayerPlan
from allocsearch.core.budget import cost
from allocsearch.core.errors import InputError
from allocsearch.core.targets import locate
from allocsearch.moelora import MoeLoraConfig, MoeLoraLinear
from tests.moelora.conftest import FAMILIES, build, shape

BASES = {family: build(family, num_layers=3) for family in FAMILIES}


sizes = st.lists(st.integers(1, 4), max_size=3).map(tuple)
plans = st.one_of(
    sizes.map(LayerPlan.on_all),
    st.dictionaries(st.sampled_from(["attn", "ffn"]), sizes, min_size=1).map(lambda parts: LayerPlan(tuple(parts.items()))),
)


@settings(max_examples=25, deadline=None)
@given(
    family=st.sampled_from(FAMILIES), layers=st.tuples(plans, plans, plans), router=st.sampled_from(["topk", "dense"]),
    targets=st.sampled_from([None, ["attn"], ["ffn"], ["o", "down"]]),
)  # fmt: skip
def test_cost_equals_trainable_parameters(family, layers, router, targets):
    base, allocation = BASES[family], Allocation(layers)
    config = MoeLoraConfig(allocation=str(allocation), router=router, target_modules=targets)
    expected = cost(allocation, shape(base), config.routing).trainable
    if not expected:
        with pytest.raises(InputError, match="at least one expert"):
            peft.get_peft_model(base, config)
        return
    model = peft.get_peft_model(base, config)
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == expected
    for name, module in model.named_modules():
        if isinstance(module, MoeLoraLinear):
            place = module.placements["default"]
            location = locate(name.removeprefix("base_model.model."))
            assert (place.layer, place.target) == (location.layer, location.target)
            assert place.stack.ranks == layers[location.layer].sizes(location.target) != ()
    model.unload()


@pytest.mark.parametrize(
    ("targets", "canonical"),
    [
        (None, ("attn", "ffn")),
        ("all-linear", ("attn", "ffn")),
        (["q_proj", "v_proj"], ("q", "v")),
        (["attn", "down_proj"], ("attn", "down")),
    ],
)
def test_target_names(targets, canonical):
    config = MoeLoraConfig(allocation="2x2*3", target_modules=targets)
    assert config.routing.targets == canonical
    model = peft.get_peft_model(BASES["llama"], config)
    adapted = {locate(name).target for name in model.base_model.targeted_module_names}
    attention = {"q", "k", "v", "o"}
    assert adapted == {"attn": attention, "ffn": {"gate", "up", "down"}}.get(canonical[0], {canonical[0]}) | (
        {"gate", "up", "down"} if canonical[1] == "ffn" else {canonical[1]}
    )
    model.unload()


def test_excluded_modules_stay_as_they_are():
    model = peft.get_peft_model(BASES["llama"], MoeLoraConfig(allocation="2x2*3", exclude_modules=["layers.1.self_attn.q_proj"]))
    names = model.base_model.targeted_module_names
    assert "model.layers.0.self_attn.q_proj" in names
    assert "model.layers.1.self_attn.q_proj" not in names
    model.unload()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"allocation": ""}, "allocation. must say"),
        ({"allocation": "2y3"}, "sizes must be like"),
        ({"allocation": "2x2*4"}, "4 plans for LlamaForCausalLM with the layers model.layers \\(3\\)"),
        ({"allocation": "2x2*3", "top_k": [1, 2]}, "`top_k` must be one number or one per layer"),
        ({"allocation": "2x2*3", "top_k": 0}, "`top_k >= 1`"),
        ({"allocation": "2x2*3", "router": "best"}, "`router` must be one of"),
        ({"allocation": "parallel:4*3"}, "needs a block router"),
        ({"allocation": "qkv:2x2*3"}, "names 'qkv' and offers"),
        ({"allocation": "2x2*3", "lora_alpha": "3x"}, "like '2r'"),
        ({"allocation": "2x2*3", "lora_alpha": 0}, "lora_alpha > 0"),
        ({"allocation": "2x2*3", "lora_dropout": 1.0}, "lora_dropout < 1"),
        ({"allocation": "2x2*3", "aux_loss_weight": -1}, "aux_loss_weight >= 0"),
        ({"allocation": "2x2*3", "target_modules": ["c_proj"]}, "a target must be one of"),
    ],
)
def test_errors_say_what_must_hold(settings, said):
    with pytest.raises(InputError, match=said):
        peft.get_peft_model(BASES["llama"], MoeLoraConfig(**settings))
    assert not any(isinstance(module, MoeLoraLinear) for module in BASES["llama"].modules())


def test_scaling():
    assert MoeLoraConfig(allocation="2", lora_alpha=16).scaling(4) == 4
    assert MoeLoraConfig(allocation="2", lora_alpha="2r").scaling(4) == 2
    assert MoeLoraConfig(allocation="2", lora_alpha="2r").scaling(64) == 2
