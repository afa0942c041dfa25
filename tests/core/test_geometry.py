"""Routings, shapes and target names."""

import pytest
from hypothesis import given

from allocsearch.core.errors import InputError, quoted, shown
from allocsearch.core.geometry import ModelShape, Routing, Site
from allocsearch.core.targets import ALIASES, GROUP_OF, GROUPS, canonical_selector, locate
from tests.strategies import routings, shapes


@given(routings(num_layers=3))
def test_a_routing_is_canonical(routing):
    again = Routing(routing.router, routing.top_k, tuple(reversed(routing.targets)), routing.swi_x)
    assert again == routing
    assert hash(again) == hash(routing)
    assert [routing.top_k_of(i) >= 1 for i in range(3)] == [True] * 3


@pytest.mark.parametrize(
    ("given_targets", "kept"),
    [
        ("attn,ffn", ("attn", "ffn")),
        ("ffn, attn", ("attn", "ffn")),
        (["q_proj", "attn"], ("attn",)),
        (["down_proj", "q_proj"], ("q", "down")),
        (("c_attn",), ("qkv",)),
        (["q", "q"], ("q",)),
    ],
)
def test_targets_are_named_once_and_in_order(given_targets, kept):
    assert Routing(targets=given_targets).targets == kept


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"router": "top_k"}, "`router` must be one of topk, dense, sigmoid, threshold, but got 'top_k'"),
        ({"top_k": 0}, "`top_k >= 1` must hold for every layer, but got 0"),
        ({"top_k": (2, 0)}, "`top_k >= 1` must hold for every layer, but got (2, 0)"),
        ({"top_k": ()}, "`top_k >= 1` must hold"),
        ({"top_k": True}, "`top_k >= 1` must hold"),
        ({"top_k": 1.5}, "`top_k >= 1` must hold"),
        ({"swi_x": -1}, "`swi_x >= 0` must hold, but got -1"),
        ({"targets": ()}, "`targets` must name at least one target"),
        ({"targets": ("mlp",)}, "a target must be one of attn, ffn, q,"),
        ({"targets": "q,x"}, "but got 'x'"),
    ],
)
def test_a_wrong_routing_states_what_must_hold(fields, says):
    with pytest.raises(InputError) as caught:
        Routing(**fields)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_per_block_routers():
    assert [Routing(router=router).per_block for router in ("topk", "dense", "sigmoid", "threshold")] == [False, False, True, True]


@given(shapes())
def test_a_digest_changes_with_the_linears_and_not_with_names_of_the_model(shape):
    other = ModelShape("another", shape.layers, shape.hidden_size, shape.num_heads, shape.num_parameters + 1, stack="else.where")
    assert other.digest == shape.digest
    grown = (*shape.layers, (Site("q", "attn", 1, 1),))
    assert ModelShape("toy", grown, shape.hidden_size, shape.num_heads, 1).digest != shape.digest
    assert ModelShape("toy", shape.layers, shape.hidden_size + 1, shape.num_heads, 1).digest != shape.digest
    assert set(shape.targets) == {site.name for sites in shape.layers for site in sites}


def test_every_alias_stands_for_a_target_and_shadows_none():
    assert set(ALIASES.values()) <= set(GROUP_OF)
    assert not set(ALIASES) & {*GROUPS, *GROUP_OF}
    assert [canonical_selector(name) for name in ("attn", "q", "q_proj", "nonsense")] == ["attn", "q", "q", None]


@pytest.mark.parametrize(
    ("module", "where"),
    [
        ("model.layers.3.self_attn.q_proj", ("model.layers", 3, "self_attn.q_proj", "q", "attn")),
        ("transformer.h.0.attn.c_proj", ("transformer.h", 0, "attn.c_proj", "o", "attn")),
        ("transformer.h.0.mlp.c_proj", ("transformer.h", 0, "mlp.c_proj", "down", "ffn")),
        ("bert.encoder.layer.11.output.dense", ("bert.encoder.layer", 11, "output.dense", "down", "ffn")),
        ("bert.encoder.layer.11.attention.output.dense", ("bert.encoder.layer", 11, "attention.output.dense", "o", "attn")),
        ("model.decoder.layers.1.fc1", ("model.decoder.layers", 1, "fc1", "up", "ffn")),
    ],
)
def test_locating_a_linear(module, where):
    found = locate(module)
    assert (found.stack, found.layer, found.path, found.target, found.group) == where


@pytest.mark.parametrize("module", ["lm_head", "model.layers.3.self_attn", "model.layers.3.mlp.experts.0.w1", "model.embed_tokens", ""])
def test_what_is_no_target_is_not_located(module):
    assert locate(module) is None


def test_error_texts_are_cut():
    assert quoted("x" * 100) == repr("x" * 60 + "…")
    assert quoted("a'b\n") == repr("a'b\n")
    assert shown([1, 2]) == "1, 2"
    assert shown(range(20), limit=2) == "0, 1, … (20 in all)"
