"""How far a paired difference may deviate by chance, from few seeds and many rows.

Two allocations differ on each of S seeds and R rows. Both are samples, so the mean difference varies with the seeds, with the rows
and with what is left. Rows are many: they are resampled. Seeds are two to five: a bootstrap over them calls noise a finding (it knows
S − 1 of S parts of their variance, and no tails), so their part is a Student t whose scale is estimated from

- the pair's own differences between seeds, with S − 1 degrees of freedom, and
- all K allocations' (allocation × seed), where more than two were trained on these seeds,

whichever is larger: seed noise differs between allocations, so the others may lend degrees of freedom, at most four, but no
optimism. What a seed's rows leave over is in the seeds' part already and is taken off the rows'. The sum of the two is the
Behrens–Fisher distribution, whose level is on the safe side.

Shapes: P pairs, S seeds, R rows, B resamples.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from allocsearch.search.replicates import Array
from allocsearch.search.resampling import resampled_means
from allocsearch.search.resolution import seed_df

_RESAMPLES: Final = 10_000
_ROUNDING: Final = 1e-12


@dataclass(frozen=True, slots=True)
class Differences:
    """Observed mean differences (P) and what chance adds to them (B×P)."""

    observed: Array
    deviations: Array

    def intervals(self, alpha: float) -> Array:
        """P×2: two-sided intervals at level 1 − α."""
        low, high = np.quantile(self.deviations, [alpha / 2, 1 - alpha / 2], axis=0)
        return np.stack([self.observed - high, self.observed - low], axis=1)

    def p_values(self) -> Array:
        """P: two-sided, of no difference."""
        both: Array = 2 * np.minimum(self.p_greater(0.0), self._p(self.deviations <= self.observed + _ROUNDING))
        return np.minimum(both, 1.0, out=both)

    def p_greater(self, than: float) -> Array:
        """P: one-sided, of a difference of `than` or less where the alternative is more."""
        return self._p(self.deviations >= self.observed - than - _ROUNDING)

    def _p(self, reached: npt.NDArray[np.bool_]) -> Array:
        return np.asarray((1 + reached.sum(axis=0)) / (1 + len(self.deviations)), dtype=np.float64)


def differences(pairs: Array, *, pooled: Array | float, num_allocations: int, seed: int, resamples: int = _RESAMPLES) -> Differences:
    """Of P×S×R paired differences.

    Args:
        pairs: differences, allocation minus the one that it is held against.
        pooled: mean square of allocation × seed over all K allocations (`MeanSquares.values[3]`), per pair or one for all.
        num_allocations: K.
        seed: of the resampling.
        resamples: how often rows are drawn.
    """
    num_pairs, num_seeds, num_rows = pairs.shape
    rng = np.random.default_rng(seed)
    by_row = pairs.mean(axis=1)
    observed = by_row.mean(axis=1)
    deviations = resampled_means(rng, by_row - observed[:, None], resamples=resamples)
    if num_seeds > 1:
        squares = own_squares(pairs)
        df = seed_df(num_allocations=num_allocations, num_seeds=num_seeds)
        scale = np.sqrt(np.maximum(squares.seeds, 2 * np.asarray(pooled)) / (num_seeds * num_rows))
        deviations = deviations * np.sqrt(squares.rows_share) + scale * rng.standard_t(df, size=(len(deviations), num_pairs))
    return Differences(observed, deviations)


@dataclass(frozen=True, slots=True)
class OwnSquares:
    """Mean squares of pairs' differences: between seeds, between rows, and of what is left (P each)."""

    seeds: Array
    rows: Array
    residual: Array

    @property
    def rows_share(self) -> Array:
        """How much of the variance between rows the rows hold by themselves, once what is left is taken off."""
        return np.asarray(np.maximum(0.0, 1 - self.residual / np.where(self.rows > 0, self.rows, 1.0)))


def own_squares(pairs: Array) -> OwnSquares:
    """Of P×S×R differences on two seeds or more."""
    _, num_seeds, num_rows = pairs.shape
    centred = pairs - pairs.mean(axis=(1, 2), keepdims=True)
    by_seed, by_row = centred.mean(axis=2), centred.mean(axis=1)
    rest = centred - by_seed[:, :, None] - by_row[:, None, :]
    return OwnSquares(
        seeds=num_rows * (by_seed**2).sum(axis=1) / (num_seeds - 1),
        rows=num_seeds * (by_row**2).sum(axis=1) / (num_rows - 1),
        residual=(rest**2).sum(axis=(1, 2)) / ((num_seeds - 1) * (num_rows - 1)),
    )
