"""The smallest allocation that holds others."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from allocsearch.core.allocation import Allocation
from allocsearch.core.errors import InputError
from allocsearch.core.plans import covering
from tests.strategies import TARGETS, allocations

pairs = st.integers(1, 4).flatmap(lambda n: st.lists(allocations(num_layers=n), min_size=1, max_size=4))


def holds(large, small):
    return all(
        len(small.layers[i].sizes(name)) <= len(plan.sizes(name))
        and all(a <= b for a, b in zip(small.layers[i].sizes(name), plan.sizes(name), strict=False))
        for i, plan in enumerate(large)
        for name in (*TARGETS, "parallel", "prompt")
    )


@given(pairs)
def test_it_holds_all_and_nothing_that_holds_them_lacks_it(given_):
    found = covering(given_)
    assert all(holds(found, allocation) for allocation in given_)
    for layer, plan in enumerate(found):
        for name in (*TARGETS, "parallel", "prompt"):
            own = [allocation.layers[layer].sizes(name) for allocation in given_]
            assert len(plan.sizes(name)) == max(map(len, own))
            assert all(size == max(ranks[i] for ranks in own if i < len(ranks)) for i, size in enumerate(plan.sizes(name)))


@given(pairs)
def test_order_and_repetition_do_not_matter_and_it_covers_itself(given_):
    found = covering(given_)
    assert covering([*reversed(given_), *given_, found]) == found


def test_it_is_said_in_the_fewest_words():
    assert str(covering(map(Allocation.parse, ["2x8 4", "8+4+4 0"]))) == "8+8+4 4"
    assert str(covering(map(Allocation.parse, ["q:2", "attn:3"]))) == "attn:3"


@pytest.mark.parametrize("texts", [[], ["2", "2 2"]])
def test_allocations_of_different_depths_are_refused(texts):
    with pytest.raises(InputError, match="one number of layers"):
        covering(map(Allocation.parse, texts))
