"""Budgets: their text form, and the limits that they set."""

import math
from fractions import Fraction

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from allocsearch.core.budget import Budget, Cost, short_count
from allocsearch.core.errors import InputError
from allocsearch.core.geometry import ModelShape, Site
from tests.strategies import budgets


def shape_of(num_parameters):
    return ModelShape("toy", ((Site("q", "attn", 2, 2),),), hidden_size=2, num_heads=1, num_parameters=num_parameters)


@given(budgets())
def test_the_text_form_reads_back(budget):
    assert Budget.parse(str(budget)) == budget


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("50M-params", Budget(max_trainable=50_000_000)),
        ("8M-active", Budget(max_active=8_000_000)),
        ("1.5%", Budget(max_percent=1.5)),
        ("50M-params,8M-active", Budget(50_000_000, 8_000_000)),
        (" 8M-active , 50M-params", Budget(50_000_000, 8_000_000)),
        ("1.25K-params", Budget(1250)),
        ("2B-params", Budget(2_000_000_000)),
        ("7-params", Budget(7)),
        ("9007199254740993-params", Budget(2**53 + 1)),
        ("1.005K-params", Budget(1005)),
        ("50M-params,1.5%", Budget(50_000_000, None, 1.5)),
    ],
)
def test_texts(text, budget):
    assert Budget.parse(text) == budget
    assert Budget.parse(str(budget)) == budget


def test_a_printed_budget_is_short():
    assert str(Budget(50_000_000, 8_500_000)) == "50M-params,8.5M-active"
    assert str(Budget(1234)) == "1.234K-params"
    assert str(Budget(999)) == "999-params"
    assert str(Budget(max_percent=1.5)) == "1.5%"
    assert str(Budget(max_percent=0.00001)) == "0.00001%"


BAD_BUDGETS = [
    "", ",", "50M", "50M-param", "50m-params", "-5M-params", "M-params", "50M-params,", "1e6-params", "1.%", "%", "0-params", "0%",
    "0.4-params", "50M-params,40M-params", "1%,2%", "50M-params;1%", "５０", "1" * 500 + "-params", "1" * 500 + "%",
]  # fmt: skip


@pytest.mark.parametrize("text", BAD_BUDGETS)
def test_a_text_that_is_no_budget_says_what_one_is(text):
    with pytest.raises(InputError, match="a budget must") as caught:
        Budget.parse(text)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 250


@given(st.text(alphabet="0123456789.KMB-%, paramsctive", max_size=25))
def test_any_text_is_a_budget_or_an_input_error(text):
    try:
        budget = Budget.parse(text)
    except InputError as error:
        assert "\n" not in str(error)
    else:
        assert Budget.parse(str(budget)) == budget


@pytest.mark.parametrize(
    "limits", [{}, {"max_trainable": 0}, {"max_active": -1}, {"max_percent": 0.0}, {"max_percent": math.nan}, {"max_percent": math.inf}]
)
def test_a_budget_has_a_positive_limit(limits):
    with pytest.raises(InputError, match="a budget must have at least one limit and each must be positive"):
        Budget(**limits)


@given(budgets(), st.integers(0, 10**13), st.integers(0, 10**13))
def test_excess_is_what_is_over_each_limit(budget, trainable, active):
    assume(budget.max_percent is None)
    excess = budget.excess(Cost(trainable, active))
    for what, limit, amount in (("trainable", budget.max_trainable, trainable), ("active", budget.max_active, active)):
        over = 0 if limit is None else amount - limit
        assert excess.get(what, 0) == max(0, over)
    assert all(by > 0 for by in excess.values())


def test_limits_are_inclusive():
    assert Budget(100, 50).excess(Cost(100, 50)) == {}
    assert Budget(100, 50).excess(Cost(101, 52)) == {"trainable": 1, "active": 2}


@given(st.integers(1, 10**12), st.integers(1, 10_000))
@example(10_000, 57)  # 0.57 % is 56.99999 in binary
def test_percent_resolves_to_the_exact_share_rounded_down(num_parameters, basis_points):
    percent = basis_points / 100
    exact = math.floor(Fraction(num_parameters) * basis_points / 10_000)
    assume(exact >= 1)
    assert Budget(max_percent=percent).resolve(shape_of(num_parameters)) == Budget(max_trainable=exact)


def test_resolving_keeps_the_tighter_limit_and_the_active_one():
    assert Budget(500, 70, 10.0).resolve(shape_of(1000)) == Budget(100, 70)
    assert Budget(50, None, 10.0).resolve(shape_of(1000)) == Budget(50)
    assert Budget(50).resolve(shape_of(1000)) == Budget(50)


def test_a_share_of_nothing_is_refused():
    with pytest.raises(InputError, match=r"at least one parameter, but 0.1% of 10 is none"):
        Budget(max_percent=0.1).resolve(shape_of(10))


@pytest.mark.parametrize("use", [lambda budget: budget.excess(Cost(1, 1)), lambda budget: budget.scaled(0.5)])
def test_percent_must_be_resolved_before_use(use):
    with pytest.raises(InputError, match="must be resolved against a model first"):
        use(Budget(max_percent=1.0))


@given(budgets(), st.floats(0.001, 1.0))
def test_a_scaled_budget_is_never_over_its_share(budget, share):
    assume(budget.max_percent is None)
    scaled = budget.scaled(share)
    for cut, whole in ((scaled.max_trainable, budget.max_trainable), (scaled.max_active, budget.max_active)):
        assert (cut is None) == (whole is None)
        if cut is not None:
            assert 1 <= cut <= whole
            assert cut == 1 or whole * share - 1 < cut <= whole * share
    assert budget.scaled(1.0) == budget


@pytest.mark.parametrize(("count", "text"), [(7, "7"), (1234, "1.23K"), (6_912_345, "6.91M"), (2_000_000_000, "2B"), (999_999, "1M")])
def test_short_counts_are_for_tables(count, text):
    assert short_count(count) == text
