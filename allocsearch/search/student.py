"""Student's t distribution, and the normal one as its limit: what the project needs of them without SciPy."""

import math
from statistics import NormalDist
from typing import Final

_NORMAL: Final = NormalDist()
_MANY: Final = 20_000
_STEPS: Final = 200


def cdf(t: float, df: int) -> float:
    """P(T ≤ t) with `df` degrees of freedom: the finite sums of Abramowitz & Stegun, 26.7.3 and 26.7.4."""
    if df < 1:
        raise ValueError(f"`df >= 1` must hold, but got {df}")
    if df > _MANY:  # the two differ by less than 1e-5 from here on, and the sums grow long
        return _NORMAL.cdf(t)
    return (1 + math.copysign(_central(abs(t), df), t)) / 2


def quantile(p: float, df: int) -> float:
    """The t with P(T ≤ t) = p, by bisection.

    Raises:
        ValueError: unless 0 < p < 1.
    """
    if not 0 < p < 1:
        raise ValueError(f"`0 < p < 1` must hold, but got {p}")
    if p < 0.5:  # noqa: PLR2004 - the distribution is symmetric
        return -quantile(1 - p, df)
    low, high = 0.0, 1.0
    while cdf(high, df) < p:
        low, high = high, 2 * high
    for _ in range(_STEPS):
        middle = (low + high) / 2
        if not low < middle < high:
            break
        low, high = (middle, high) if cdf(middle, df) < p else (low, middle)
    return high


def normal_quantile(p: float) -> float:
    """The z with P(Z ≤ z) = p."""
    return _NORMAL.inv_cdf(p)


def _central(t: float, df: int) -> float:
    """P(|T| ≤ t)."""
    angle = math.atan2(t, math.sqrt(df))
    cosine_squared = math.cos(angle) ** 2
    term = math.sin(angle) * (math.cos(angle) if df % 2 else 1.0)
    total = term if df > 1 else 0.0
    for n in range(3 if df % 2 else 2, df - 1, 2):
        term *= cosine_squared * (n - 1) / n
        total += term
    return 2 / math.pi * (angle + total) if df % 2 else total
