"""Variance components: unbiased, and with intervals that cover."""

import numpy as np
import pytest

from allocsearch.core.errors import InputError
from allocsearch.search.variance_components import Components, components, mean_squares
from tests.search import simulation

EXACT = Components(0.5, 0.3, 2.0, 0.2, 0.7, 0.4, 1.5)


def drawn(rng, studies, shape, noise=EXACT):
    k, s, r = shape
    y = simulation.nll(rng, [0.0] * k, studies=studies, seeds=s, rows=r, noise=noise)
    return y + np.sqrt(noise.allocation) * rng.standard_normal((studies, k, 1, 1))


def test_every_component_is_unbiased():
    tables = drawn(np.random.default_rng(0), 3000, (5, 3, 12))
    found = mean_squares(tables).components
    error = found.std(axis=0) / np.sqrt(len(found))
    truth = np.array([getattr(EXACT, name) for name in EXACT.__slots__])
    assert np.all(np.abs(found.mean(axis=0) - truth) < 4 * error), (found.mean(axis=0), truth)


def test_the_paired_differences_variance_is_what_differences_show():
    tables = drawn(np.random.default_rng(1), 20_000, (2, 3, 12))
    means = tables.mean(axis=(2, 3))
    expected = EXACT.difference_variance(num_seeds=3, num_rows=12) + 2 * EXACT.allocation
    assert (means[:, 0] - means[:, 1]).var() == pytest.approx(expected, rel=0.05)


def test_drawn_values_cover_the_seeds_variance_with_three_seeds_only():
    rng = np.random.default_rng(2)
    covered, rounds = 0, 300
    for round_ in range(rounds):
        squares = mean_squares(drawn(rng, 1, (6, 3, 12))[0])
        low, high = np.quantile(squares.drawn(400, seed=round_).components[:, 1], [0.025, 0.975])
        covered += low <= EXACT.seed <= high
    assert simulation.at_most(rounds - covered, rounds, 0.05)


def test_no_component_is_below_zero():
    noise = np.random.default_rng(3).normal(size=(3, 2, 40))
    found = components(mean_squares(noise))
    assert min(getattr(found, name) for name in found.__slots__) >= 0


@pytest.mark.parametrize("shape", [(1, 2, 2), (2, 1, 2), (2, 2, 1)])
def test_one_of_something_has_no_variance(shape):
    with pytest.raises(InputError, match="variance needs 2 allocations, 2 seeds and 2 rows"):
        mean_squares(np.zeros(shape))


def test_the_reliability_is_the_correlation_on_other_seeds_and_rows():
    rng, noise = np.random.default_rng(4), EXACT
    k, studies = 200, 100
    true = np.sqrt(noise.allocation) * rng.standard_normal((studies, k))
    first, second = (
        true + simulation.nll(rng, [0.0] * k, studies=studies, seeds=2, rows=6, noise=noise).mean(axis=(2, 3)) for _ in range(2)
    )
    found = np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(first, second, strict=True)])
    assert found == pytest.approx(noise.reliability(num_seeds=2, num_rows=6), abs=0.02)
    assert simulation.NLL.reliability(num_seeds=2, num_rows=6) == 0
