"""What a study has spent: added up the same in any order and over any number of drivers, and held against its limits."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from allocsearch.limits_spec import LimitsSpec
from allocsearch.search.ledger import Charge, Ledger

HOUR = 3600.0
charges = st.lists(
    st.builds(Charge, st.integers(1000, 1100), st.integers(0, 40), st.sampled_from([0.0, 0.5, 1.0, 2.0]), st.integers(0, 9)), max_size=12
)


def busy_seconds(found):
    """Counted second by second."""
    return len({second for charge in found for second in range(charge.ended_at - charge.seconds, charge.ended_at)})


@given(charges)
def test_hours_side_by_side_count_once_and_the_rest_adds_up(found):
    spent = Ledger(None, found).spent
    assert spent.hours * HOUR == pytest.approx(busy_seconds(found))
    assert spent.gpu_hours * HOUR == pytest.approx(sum(charge.seconds * charge.gpus for charge in found))
    assert spent.tokens == sum(charge.tokens for charge in found)


@given(charges, st.integers(0, 12))
def test_a_resumed_ledger_goes_on_as_if_it_had_never_been_closed(found, cut):
    found = sorted(found)
    resumed = Ledger(None, found[:cut])
    for charge in found[cut:]:
        resumed.charge(charge)
    spent, whole = resumed.spent, Ledger(None, found).spent
    assert spent.tokens == whole.tokens
    assert (spent.hours, spent.gpu_hours) == pytest.approx((whole.hours, whole.gpu_hours))


@pytest.mark.parametrize("limits", [{"max_hours": 2}, {"max_gpu_hours": 1.0}, {"max_tokens": 1_000_000}])
def test_a_limit_is_reached_when_it_is_used_up_and_not_before(limits):
    last = Charge(10 * HOUR, HOUR, 0.5, 500_000)
    ledger = Ledger(LimitsSpec(**limits), [replace(last, ended_at=5 * HOUR)])
    assert ledger.reached is None
    ledger.charge(last)
    assert [ledger.reached] == list(limits)


def test_nothing_is_reached_where_nothing_is_limited():
    assert Ledger(None, [Charge(1e9, 1e9, 99.0, 10**12)]).reached is None
