"""A space's dimensions as Optuna stores them."""

from typing import Final

from optuna.distributions import IntDistribution

from allocsearch.core.layout import Dimension

_LOG_RATIO: Final = 8


def distribution(dimension: Dimension) -> IntDistribution:
    """The range of the dimension's values, on a log scale where they span a factor of eight or more."""
    low, high = dimension.choices[0], dimension.choices[-1]
    return IntDistribution(low, high, log=low >= 1 and high >= _LOG_RATIO * low)
