"""AlphaLoRA (arXiv 2410.10054): layers whose weights look less trained get more experts. No data, no training.

The spectrum of a trained weight has a heavy tail, λ^(−α), and the better trained it is the heavier, so a large α asks for experts:
N_l = T · α_l^β / Σ α^β with β = 2.5, α_l the mean over the layer's linears. α is Hill's estimate over the eigenvalues above λ_min,

    α = 1 + n / Σ ln(λ_i / λ_min),

with λ_min near the peak of the spectrum's histogram, where the fit's Kolmogorov–Smirnov distance is smallest.

Ours differs from the authors' script in four places. Their lower end of the range for λ_min compares an eigenvalue with a logarithm and
so hardly ever bites; ours is 0.95 of the peak, as the upper end is 1.5 of it. They keep eigenvalues of zero. Their rounding can leave a
layer without experts, and hands out the remainder by unscaled differences; see `allotment.apportioned` for ours. Only linears that may
carry experts are looked at, which by default are all.
"""

from statistics import fmean
from typing import Any, Final

import torch
from torch import Tensor

from allocsearch.core.errors import InputError
from allocsearch.scores.probe import Probe

BETA: Final = 2.5
LIGHTEST: Final = 50.0
"""α of a spectrum without a tail, such as that of an orthogonal matrix, whose estimate has no bound."""

_NUM_BINS: Final = 100


def scores(probe: Probe) -> tuple[float, ...]:
    """α_l^β of every layer."""
    return tuple(exponent**BETA for exponent in exponents(probe))


def exponents(probe: Probe) -> tuple[float, ...]:
    """α_l of every layer: the mean over its linears."""
    return tuple(fmean(tail_exponent(_weight(linear)) for linear in linears) if linears else 1.0 for linears in probe.layers)


@torch.no_grad()
def tail_exponent(weight: Tensor) -> float:
    """The power-law exponent of the eigenvalues of WᵀW, at most `LIGHTEST`."""
    singular = torch.linalg.svdvals(weight.float())
    noise = singular.max() * max(weight.shape) * torch.finfo(singular.dtype).eps
    eigenvalues = singular[singular > noise].double().square().sort().values.cpu()
    if len(eigenvalues) < 2:  # noqa: PLR2004 - a tail needs two
        return LIGHTEST
    fits = [_hill(eigenvalues, int(first)) for first in _candidates(eigenvalues)]
    return min(LIGHTEST, min(fits)[1])


def _candidates(eigenvalues: Tensor) -> Tensor:
    """Where the tail may begin: indices of eigenvalues close to the histogram's peak, never the last one."""
    logs = eigenvalues.log10()
    low, high = logs[0].item(), logs[-1].item()
    counts = torch.histc(logs.float(), _NUM_BINS, min=low, max=high)
    peak = 10 ** (low + (high - low) * int(counts.argmax()) / _NUM_BINS)
    near = ((eigenvalues >= 0.95 * peak) & (eigenvalues <= 1.5 * peak)).nonzero().flatten()
    near = near[near < len(eigenvalues) - 1]
    # A spectrum over many decades has bins that are wider than the range.
    return near if len(near) else torch.searchsorted(eigenvalues, 0.95 * peak).clamp(max=len(eigenvalues) - 2).reshape(1)


def _hill(eigenvalues: Tensor, first: int) -> tuple[float, float]:
    """The distance between the tail and its fit, and the fit's exponent."""
    tail = eigenvalues[first:] / eigenvalues[first]
    spread = tail.log().sum().item()
    if spread <= 0:
        return 1.0, LIGHTEST
    alpha = 1 + len(tail) / spread
    share_below = torch.arange(len(tail), dtype=tail.dtype) / len(tail)
    return (1 - tail ** (1 - alpha) - share_below).abs().max().item(), alpha


def _weight(linear: Any) -> Tensor:
    weight: Tensor = linear.weight
    if not weight.is_floating_point():
        raise InputError(
            f"a score from weights needs them as numbers, but a linear stores {weight.dtype}: load the model without quantisation"
        )
    return weight
