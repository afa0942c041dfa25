"""Student's t against printed tables, closed forms and its own symmetry."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from allocsearch.search import student


@pytest.mark.parametrize(
    ("p", "df", "t"),
    [
        (0.975, 1, 12.706205), (0.975, 2, 4.302653), (0.975, 3, 3.182446), (0.975, 4, 2.776445), (0.975, 5, 2.570582),
        (0.95, 7, 1.894579), (0.99, 10, 2.763769), (0.995, 30, 2.749996), (0.9995, 4, 8.610302), (0.975, 120, 1.979930),
    ],
)  # fmt: skip
def test_quantiles_are_those_of_the_tables(p, df, t):
    assert student.quantile(p, df) == pytest.approx(t, abs=1e-5)


@given(st.floats(-50, 50), st.integers(1, 400))
def test_the_quantile_undoes_the_cdf(t, df):
    p = student.cdf(t, df)
    if 1e-6 < p < 1 - 1e-6:
        assert student.quantile(p, df) == pytest.approx(t, rel=1e-5, abs=1e-6)
    assert student.cdf(-t, df) == pytest.approx(1 - p, abs=1e-12)


@given(st.floats(-50, 50))
def test_one_and_two_degrees_have_closed_forms(t):
    assert student.cdf(t, 1) == pytest.approx(0.5 + math.atan(t) / math.pi, abs=1e-12)
    assert student.cdf(t, 2) == pytest.approx(0.5 + t / (2 * math.sqrt(2 + t * t)), abs=1e-12)


def test_many_degrees_are_normal():
    assert student.quantile(0.975, 20_000) == pytest.approx(student.normal_quantile(0.975), abs=2e-4)
    assert student.quantile(0.975, 10**9) == pytest.approx(1.959964, abs=1e-6)


def test_what_makes_no_sense_is_refused():
    with pytest.raises(ValueError, match="df >= 1"):
        student.cdf(0.0, 0)
    with pytest.raises(ValueError, match="0 < p < 1"):
        student.quantile(1.0, 3)
