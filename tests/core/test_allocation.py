"""The text form, its laws, and that values are canonical."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from allocsearch.core.allocation import Allocation, Expert, LayerPlan
from allocsearch.core.errors import InputError
from allocsearch.core.geometry import Site
from allocsearch.core.targets import GROUP_OF, GROUPS
from tests.strategies import TARGETS, allocations, layer_plans, sizes


@given(allocations())
def test_the_text_form_reads_back(allocation):
    assert Allocation.parse(str(allocation)) == allocation


@given(layer_plans())
def test_a_layers_text_reads_back(plan):
    assert LayerPlan.parse(str(plan)) == plan
    assert "*" not in str(plan)
    assert " " not in str(plan)


@given(allocations())
def test_equal_values_print_and_hash_alike(allocation):
    again = Allocation.parse(str(allocation))
    assert (str(again), hash(again), again.digest) == (str(allocation), hash(allocation), allocation.digest)


@given(allocations(), allocations())
def test_what_prints_alike_is_equal(a, b):
    assert (a == b) == (str(a) == str(b)) == (a.digest == b.digest)


@given(st.dictionaries(st.sampled_from(["attn", "ffn", *TARGETS, "parallel", "prompt"]), sizes(), max_size=6), st.randoms())
def test_the_order_of_parts_and_of_experts_says_nothing(parts, rng):
    items = [(name, tuple(rng.sample(own, len(own)))) for name, own in parts.items()]
    rng.shuffle(items)
    assert LayerPlan(tuple(items)) == LayerPlan(tuple(parts.items()))


@given(layer_plans())
def test_canonical_form_means_what_was_written(plan):
    """Every target keeps its experts, and a part that says what its group says already is not there."""
    for name, own in plan.parts:
        group = GROUP_OF.get(name)
        inherited = dict(plan.parts).get(group, ()) if group else ()
        assert own != inherited
        assert plan.sizes(name) == own
    assert LayerPlan(plan.parts) == plan


@given(st.dictionaries(st.sampled_from([*GROUPS, *TARGETS]), sizes(), max_size=6))
def test_a_target_takes_its_own_plan_or_else_its_groups(parts):
    plan = LayerPlan(tuple(parts.items()))
    for target in TARGETS:
        expected = parts.get(target, parts.get(GROUP_OF[target], ()))
        assert plan.sizes(target) == tuple(sorted(expected, reverse=True))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("attn:4x8,ffn:4x8", "4x8"),
        ("ffn:4x8,attn:4x8", "4x8"),
        ("4+8+8", "8+8+4"),
        ("8+8", "2x8"),
        ("2x8+4", "8+8+4"),
        ("attn:2x8,q:2x8", "attn:2x8"),
        ("attn:0,ffn:0", "0"),
        ("q:0", "0"),
        ("q_proj:8,gate_proj:4", "q:8,gate:4"),
        ("c_attn:8", "qkv:8"),
        ("prompt:10,q:8", "q:8,prompt:10"),
        ("1x8", "8"),
        ("4x8*1", "4x8"),
        ("4x8 4x8", "4x8*2"),
        ("  4x8   0 ", "4x8 0"),
    ],
)
def test_texts_that_say_the_same_are_equal(one, other):
    assert Allocation.parse(one) == Allocation.parse(other)
    assert str(Allocation.parse(one)) == other


@pytest.mark.parametrize(("one", "other"), [("4x8", "8x4"), ("attn:8", "8"), ("attn:8,q:0", "attn:8"), ("q:8", "q:8,k:8"), ("0", "0*2")])
def test_texts_that_differ_are_not(one, other):
    assert Allocation.parse(one) != Allocation.parse(other)


def test_the_text_forms_of_the_readme():
    assert LayerPlan.parse("4x8") == LayerPlan.of(4, 8)
    assert LayerPlan.parse("8+8+4").sizes("down") == (8, 8, 4)
    assert LayerPlan.parse("0").is_frozen
    mixed = LayerPlan.parse("attn:2x8,ffn:4x16")
    assert (mixed.sizes("q"), mixed.sizes("down")) == ((8, 8), (16,) * 4)
    assert str(Allocation.parse("2x8*8 4x8*8 6x8*8 8x8*8")) == "2x8*8 4x8*8 6x8*8 8x8*8"
    moa = "q:8,k:8,v:8,o:8,down:8,parallel:16,prompt:10"
    assert str(Allocation.parse(moa)) == moa


def test_experts_come_in_the_sites_order_then_block_kinds():
    sites = [Site("o", "attn", 4, 4), Site("q", "attn", 4, 4)]
    plan = LayerPlan.parse("attn:4+2,q:1,parallel:3,prompt:5")
    assert plan.experts(sites) == (
        Expert(4, "lora", "o"), Expert(2, "lora", "o"), Expert(1, "lora", "q"), Expert(3, "parallel"), Expert(5, "prompt"),
    )  # fmt: skip


def test_uniform():
    allocation = Allocation.uniform(3, num_experts=4, rank=8)
    assert (str(allocation), len(allocation), allocation.num_layers) == ("4x8*3", 3, 3)
    assert [plan.uniform for plan in allocation] == [(8,) * 4] * 3
    assert LayerPlan.parse("attn:8").uniform is None
    assert LayerPlan.parse("0").uniform == ()


BAD_TEXTS = {
    "": "at least one layer",
    "   ": "at least one layer",
    "4x": "'4x'",
    "x8": "'x8'",
    "4x8x2": "'4x8x2'",
    "4x8*": "'4x8*'",
    "*2": "'*2'",
    "4x8*0": "1 <= times",
    "4x8*99999": "1 <= times",
    "4x8*" + "9" * 5000: "plan*times",
    "9" * 5000: "sizes must be like",
    "9" * 5000 + "x8": "sizes must be like",
    "0x8": "1 <= experts",
    "4x0": "1 <= size",
    "8+0": "1 <= size",
    "5000x1": "1 <= experts",
    "4096x1+4096x1": "1 <= size",
    "65537": "1 <= size",
    "-1": "'-1'",
    "4X8": "'4X8'",
    "8,8": "'8,8'",
    "attn:8,": "''",
    "attn:": "''",
    ":8": "':8'",
    "atn:8": "'atn:8'",
    "attn:8,attn:4": "twice",
    "q:8,q_proj:4": "twice",
    "4x8:": "'4x8:'",
    "0*4096 0": "layers <= 4096",
    "4x8 oops 2x8": "'oops'",
    "２x8\u00b2": "sizes must be like",
}


@pytest.mark.parametrize(("text", "names"), BAD_TEXTS.items(), ids=[repr(text)[:30] for text in BAD_TEXTS])
def test_a_text_that_does_not_parse_says_which_part_and_what_must_hold(text, names):
    with pytest.raises(InputError) as caught:
        Allocation.parse(text)
    message = str(caught.value)
    assert names in message
    assert "must" in message
    assert "\n" not in message
    assert len(message) < 400


@given(st.text(alphabet="0123456789x+*:,. attnfqok-", max_size=30))
def test_any_text_parses_or_is_an_input_error(text):
    try:
        allocation = Allocation.parse(text)
    except InputError as error:
        assert "\n" not in str(error)
    else:
        assert Allocation.parse(str(allocation)) == allocation


def test_many_repeats_do_not_fill_the_memory_before_they_are_refused():
    with pytest.raises(InputError, match="layers <= 4096"):
        Allocation.parse("0*4096 " * 20_000)
