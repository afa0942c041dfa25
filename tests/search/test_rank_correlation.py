"""Rank correlations against counting by hand, with ties and with resamples."""

import itertools
import math
from statistics import fmean

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from allocsearch.search.rank_correlation import kendall, spearman


@st.composite
def samples(draw):
    size = draw(st.integers(2, 9))
    values = st.lists(st.integers(-3, 3).map(float), min_size=size, max_size=size)
    counts = draw(st.lists(st.integers(0, 3), min_size=size, max_size=size).filter(any))
    return draw(values), draw(values), counts


def ranks(values):
    return [fmean(i for i, other in enumerate(sorted(values)) if other == value) for value in values]


def pearson(x, y):
    a, b = ([v - fmean(values) for v in values] for values in (x, y))
    scale = math.sqrt(sum(v * v for v in a) * sum(v * v for v in b))
    return sum(map(math.prod, zip(a, b, strict=True))) / scale if scale > 1e-12 else 0.0


def tau_b(x, y):
    agree = differ = only_x = only_y = 0
    for (a, b), (c, d) in itertools.combinations(zip(x, y, strict=True), 2):
        product = (a - c) * (b - d)
        agree += product > 0
        differ += product < 0
        only_x += a != c and b == d
        only_y += a == c and b != d
    scale = math.sqrt((agree + differ + only_x) * (agree + differ + only_y))
    return (agree - differ) / scale if scale else 0.0


@given(samples())
def test_both_agree_with_counting_also_on_resamples(case):
    x, y, counts = case
    weights = np.array([[1.0] * len(x), counts], dtype=float)
    drawn = [(list(x), list(y)), tuple([v for v, n in zip(values, counts, strict=True) for _ in range(n)] for values in (x, y))]
    for found, (a, b) in zip(spearman(np.array(x), np.array(y), weights), drawn, strict=True):
        assert found == pytest.approx(pearson(ranks(a), ranks(b)), abs=1e-9)
    for found, (a, b) in zip(kendall(np.array(x), np.array(y), weights), drawn, strict=True):
        assert found == pytest.approx(tau_b(a, b), abs=1e-9)
