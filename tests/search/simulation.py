"""Simulated studies whose noise has the sizes that were measured on a real model: what the statistics must hold their level under.

Between seeds accuracy moves by 0.006 and NLL by 0.024; pairing over common seeds leaves 0.0042 and 0.008 (872 rows). Shapes: N studies,
K allocations, S seeds, R rows; larger is better.
"""

import math

import numpy as np

from allocsearch.core.trial import RungScore, SeedScore
from allocsearch.search.replicates import Replicated
from allocsearch.search.variance_components import Components

NLL = Components(
    allocation=0.0, seed=0.0225**2, row=0.35**2, allocation_seed=0.0073**2, allocation_row=0.1**2, seed_row=0.1**2, residual=0.1**2
)
LATENT = Components(
    allocation=0.0, seed=0.017**2, row=1.0, allocation_seed=0.006**2, allocation_row=0.15**2, seed_row=0.1**2, residual=0.1**2
)
MARGIN = 1.0
"""Mean of what decides right or wrong: right where it comes out above zero."""


def nll(rng, leads, *, studies, seeds, rows, noise=NLL, scales=1.0):
    """N×K×S×R of −NLL, allocations better by `leads` nats; `scales` multiplies each allocation's own seed noise."""
    return -0.4 + _linear(rng, leads, studies=studies, seeds=seeds, rows=rows, noise=noise, scales=scales)


def accuracy(rng, leads, *, studies, seeds, rows, noise=LATENT, scales=1.0):
    """N×K×S×R of 0 and 1, allocations better by `leads` (shares of accuracy)."""
    latent = [latent_lead(lead, noise) for lead in leads]
    return (_linear(rng, latent, studies=studies, seeds=seeds, rows=rows, noise=noise, scales=scales) + MARGIN > 0).astype(np.float64)


def latent_lead(lead, noise=LATENT):
    """The shift of the deciding value that raises the expected accuracy by `lead`, by bisection."""
    spread = math.sqrt(sum(getattr(noise, name) for name in noise.__slots__ if name != "allocation"))

    def share(x):
        return 0.5 * (1 + math.erf((MARGIN + x) / spread / math.sqrt(2)))

    low, high = -3.0, 3.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if share(middle) < share(0) + lead else (low, middle)
    return low


def _linear(rng, leads, *, studies, seeds, rows, noise, scales):
    k, s, r = len(leads), seeds, rows

    def effect(variance, *shape):
        return math.sqrt(variance) * rng.standard_normal((studies, *shape), dtype=np.float32)

    own = np.broadcast_to(np.asarray(scales, dtype=np.float32), (k,))[:, None, None]
    y = effect(noise.residual, k, s, r)
    y += effect(noise.seed, 1, s, 1) + effect(noise.row, 1, 1, r) + own * effect(noise.allocation_seed, k, s, 1)
    y += effect(noise.allocation_row, k, 1, r) + effect(noise.seed_row, 1, s, r)
    return y + np.asarray(leads, dtype=np.float32)[:, None, None]


def replicates(tables, *, params=None, rungs=None, seeds=None):
    """K×S×R tables `(right or wrong, −NLL)` as results; `rungs` by step: K×S accuracy."""
    right, gain = tables
    seeds = list(range(right.shape[1])) if seeds is None else seeds
    found = []
    for k in range(len(right)):
        scores = [SeedScore(s, tuple(map(bool, right[k, i])), tuple(-float(v) for v in gain[k, i])) for i, s in enumerate(seeds)]
        curve = [
            RungScore(s, step, float(at[k, i]), 1 - float(at[k, i])) for step, at in (rungs or {}).items() for i, s in enumerate(seeds)
        ]
        found.append(Replicated(k, 1000 * (k + 1) if params is None else params[k], tuple(scores), tuple(curve)))
    return found


def within(count, rounds, share, *, sigmas=3.0):
    """Whether `count` of `rounds` is what a chance of `share` brings about, to `sigmas` standard errors."""
    return abs(count / rounds - share) <= sigmas * math.sqrt(share * (1 - share) / rounds)


def at_most(count, rounds, share, *, sigmas=3.0):
    """Whether `count` of `rounds` is compatible with a chance of `share` or less."""
    return count / rounds <= share + sigmas * math.sqrt(share * (1 - share) / rounds)
