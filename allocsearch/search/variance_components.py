"""Where the scores' variance comes from: allocations × seeds × rows, all three random and crossed, one value a cell.

The analysis of variance of generalisability theory (Brennan, *Generalizability Theory*, 2001, chapters 3 and 4). Its estimates are
unbiased whatever the values' distribution, which matters as right or wrong is not normal.

Shapes: K allocations, S seeds, R rows; functions of tables take any leading axes.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from allocsearch.core.errors import InputError
from allocsearch.search.replicates import Array

# Rows: mean squares of allocation, seed, row, allocation×seed, allocation×row, seed×row, residual. Columns: the components in that
# order, each still multiplied by the number of values behind one of its levels.
_SOLVE: Final = np.array(
    [
        [1, 0, 0, 0, 0, 0, 0],
        [0, 1, 0, 0, 0, 0, 0],
        [0, 0, 1, 0, 0, 0, 0],
        [-1, -1, 0, 1, 0, 0, 0],
        [-1, 0, -1, 0, 1, 0, 0],
        [0, -1, -1, 0, 0, 1, 0],
        [1, 1, 1, -1, -1, -1, 1],
    ],
    dtype=np.float64,
)


@dataclass(frozen=True, slots=True)
class Components:
    """Variances of one row's value on one seed (accuracy: of 0 or 1; NLL: nats²), none below zero.

    What two allocations share (`seed`, `row`, `seed_row`) cancels where they are compared on common seeds and the same rows.
    """

    allocation: float
    seed: float
    row: float
    allocation_seed: float
    allocation_row: float
    seed_row: float
    residual: float

    def difference_variance(self, *, num_seeds: int, num_rows: int) -> float:
        """Of the paired difference of two allocations' means over common seeds and the same rows."""
        by_seed = (self.allocation_seed + self.residual / num_rows) / num_seeds
        return 2 * (by_seed + self.allocation_row / num_rows)

    def reliability(self, *, num_seeds: int, num_rows: int) -> float:
        """The generalisability coefficient: the share of true differences in the variance of allocations' paired scores.

        It is the correlation to expect between two searches' scores on other seeds and other rows.
        """
        noise = self.difference_variance(num_seeds=num_seeds, num_rows=num_rows) / 2
        return self.allocation / (self.allocation + noise) if self.allocation else 0.0


@dataclass(frozen=True, slots=True)
class MeanSquares:
    """Seven mean squares (…×7) in `_SOLVE`'s order, and the table's shape K, S, R."""

    values: Array
    shape: tuple[int, int, int]

    @property
    def df(self) -> Array:
        """Degrees of freedom of each."""
        k, s, r = (n - 1 for n in self.shape)
        return np.array([k, s, r, k * s, k * r, s * r, k * s * r], dtype=np.float64)

    @property
    def components(self) -> Array:
        """…×7, unbiased, so possibly below zero."""
        k, s, r = self.shape
        solved: Array = self.values @ _SOLVE / np.array([s * r, k * r, k * s, r, s, k, 1])
        return solved

    def drawn(self, num_draws: int, *, seed: int) -> "MeanSquares":
        """Values that these may stand for: MS·ν/χ²_ν, the generalised pivots of Weerahandi (JASA, 1993).

        An interval of any function of the components is made of that function's quantiles over the draws. It is there to say how
        little a few seeds tell; a bootstrap of two or three seeds could not.
        """
        rng = np.random.default_rng(seed)
        return MeanSquares(self.values * self.df / rng.chisquare(self.df, size=(num_draws, 7)), self.shape)


def mean_squares(tables: Array) -> MeanSquares:
    """Of …×K×S×R values.

    Raises:
        InputError: where there are not two of each.
    """
    num_allocations, num_seeds, num_rows = shape = tables.shape[-3:]
    if min(shape) < 2:  # noqa: PLR2004 - one of something has no variance
        raise InputError(f"variance needs 2 allocations, 2 seeds and 2 rows, but got {num_allocations}, {num_seeds} and {num_rows}")
    allocation, seed, row = -3, -2, -1
    y = tables - tables.mean(axis=(allocation, seed, row), keepdims=True)
    k, s, r = (y.mean(axis=axes, keepdims=True) for axes in ((seed, row), (allocation, row), (allocation, seed)))
    ks, kr, sr = (y.mean(axis=axis, keepdims=True) for axis in (row, seed, allocation))
    effects = [k, s, r, ks - k - s, kr - k - r, sr - s - r, y - ks - kr - sr + k + s + r]
    size = np.prod(shape)
    squares = [(e**2).sum(axis=(allocation, seed, row)) * size / np.prod(e.shape[-3:]) for e in effects]
    found = MeanSquares(np.stack(squares, axis=-1), (num_allocations, num_seeds, num_rows))
    return MeanSquares(found.values / found.df, found.shape)


def components(squares: MeanSquares) -> Components:
    """Of one table; estimates below zero count as zero."""
    return Components(*(max(0.0, float(value)) for value in squares.components))
