"""Where allocations differ: what a space shares comes out as one dimension, whatever its layers are called."""

from hypothesis import given
from hypothesis import strategies as st

from allocsearch.core.allocation import Allocation
from allocsearch.search import capacity
from tests.strategies import allocations


def parsed(*texts):
    return [Allocation.parse(text) for text in texts]


def test_layers_that_are_always_alike_are_one_dimension():
    found = capacity.dimensions(parsed("2x4*2 2x8*2", "4x4*2 2x8*2", "2x4*2 3x1*2"))
    assert [(one.label, one.values) for one in found] == [
        ("experts, layers 0–1", (2, 4, 2)),
        ("experts, layers 2–3", (2, 2, 3)),
        ("mean rank, layers 2–3", (8, 8, 1)),
    ]


def test_targets_that_differ_are_told_apart_and_a_target_takes_its_groups_plan():
    both = parsed("attn:2x4,q:8 0", "attn:2x4 ffn:4+2")
    assert list(capacity.parts(both)) == ["attn", "ffn", "q"]
    assert capacity.capacity(both[0], "q") == (8, 0)
    assert capacity.capacity(both[1], "q") == (8, 0)
    assert capacity.capacity(both[1], "ffn") == (0, 6)
    assert list(capacity.parts(parsed("2x4 0", "8+4 1"))) == ["all targets"]


def test_too_many_dimensions_become_bands_of_depth():
    rising, falling = (Allocation.parse(" ".join(f"1x{rank}" for rank in ranks)) for ranks in (range(1, 31), range(30, 0, -1)))
    found = capacity.dimensions([rising, falling], most=12)
    assert [one.label for one in found][:2] == ["mean rank, layers 0–4", "mean rank, layers 5–9"]
    assert found[0].values == (3.0, 28.0)
    assert len(found) <= 12


def test_bars_are_full_at_the_top_and_a_frozen_layer_is_told_from_a_small_one():
    assert capacity.profile(Allocation.parse("0 2x4 attn:3x8,ffn:2")) == ((0, 2, 3), (0, 4, 26 / 4))
    assert capacity.bars((0, 0.01, 4, 8), top=8) == "·▁▄█"
    assert capacity.bars((0, 0), top=0) == "··"


@given(st.lists(allocations(num_layers=4), min_size=2, max_size=5))
def test_what_no_dimension_tells_apart_has_the_same_capacity(drawn):
    found = capacity.dimensions(drawn, most=1_000_000)
    for i, first in enumerate(drawn):
        for j, second in enumerate(drawn):
            if all(one.values[i] == one.values[j] for one in found):
                for part in capacity.parts(drawn).values():
                    assert capacity.capacity(first, part) == capacity.capacity(second, part)
