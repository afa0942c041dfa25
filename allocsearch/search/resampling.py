"""Resampled rows, as weights: the mean over a resample is one product of matrices, for all trials at once."""

from collections.abc import Iterator
from typing import Final

import numpy as np

from allocsearch.search.replicates import Array

_CHUNK: Final = 500


def resampled_means(rng: np.random.Generator, by_row: Array, *, resamples: int) -> Array:
    """B×N means over rows drawn anew, the same rows for all N; from N×R. `resamples` is rounded up to full chunks."""
    return np.concatenate([weights @ by_row.T for weights in _weights(rng, by_row.shape[-1], resamples=resamples)])


def _weights(rng: np.random.Generator, num_rows: int, *, resamples: int) -> Iterator[Array]:
    for _ in range(0, resamples, _CHUNK):
        yield rng.multinomial(num_rows, np.full(num_rows, 1 / num_rows), size=_CHUNK) / num_rows
