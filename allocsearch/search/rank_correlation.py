"""Rank correlations that the bootstrap can resample in one go.

Shapes: K allocations, S seeds, B resamples. `weights` (B×K) says how often each resample drew each allocation; a row of ones is the
sample itself. Both coefficients come from the K×K signs of pairs, so ties, those that a resample makes included, count as ties.
"""

import numpy as np

from allocsearch.search.replicates import Array


def spearman(x: Array, y: Array, weights: Array) -> Array:
    """Spearman's ρ with mid-ranks, one per resample; 0 where one side has no order at all."""
    rank_x, rank_y = (weights @ ((1 + _signs(values)) / 2).T for values in (x, y))
    size = weights.sum(axis=1, keepdims=True)
    rank_x -= (weights * rank_x).sum(axis=1, keepdims=True) / size
    rank_y -= (weights * rank_y).sum(axis=1, keepdims=True) / size
    return _ratio((weights * rank_x * rank_y).sum(axis=1), (weights * rank_x**2).sum(axis=1) * (weights * rank_y**2).sum(axis=1))


def kendall(x: Array, y: Array, weights: Array) -> Array:
    """Kendall's τ-b, one per resample; 0 where one side has no order at all."""
    signs_x, signs_y = _signs(x), _signs(y)

    def pairs(products: Array) -> Array:
        total: Array = ((weights @ products) * weights).sum(axis=1)
        return total

    return _ratio(pairs(signs_x * signs_y), pairs(signs_x**2) * pairs(signs_y**2))


def _signs(values: Array) -> Array:
    signs: Array = np.sign(values[:, None] - values[None, :])
    return signs


def _ratio(product: Array, squares: Array) -> Array:
    scale = np.sqrt(np.where(squares > 0, squares, 1.0))
    return np.where(squares > 0, product / scale, 0.0)
