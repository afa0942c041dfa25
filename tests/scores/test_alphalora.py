"""AlphaLoRA's exponent: known spectra, and the definition written out slowly."""

import numpy as np
import pytest
import torch

from allocsearch.core.geometry import Routing
from allocsearch.models import shape_of
from allocsearch.scores import alphalora
from allocsearch.scores.alphalora import LIGHTEST, tail_exponent
from allocsearch.scores.probe import Probe
from tests.scores.conftest import llama


def with_spectrum(eigenvalues, *, d_out, seed=0):
    """A d_out × n matrix W with these eigenvalues of WᵀW."""
    rng = np.random.default_rng(seed)
    n = len(eigenvalues)
    left, right = np.linalg.qr(rng.normal(size=(d_out, n)))[0], np.linalg.qr(rng.normal(size=(n, n)))[0]
    return torch.tensor(left * np.sqrt(eigenvalues) @ right)


def slow_exponent(weight):
    """The definition, one candidate and one eigenvalue at a time."""
    values = sorted(float(value) ** 2 for value in np.linalg.svd(weight.numpy().astype(np.float32), compute_uv=False))
    counts, edges = np.histogram(np.log10(values), bins=100)
    peak = 10 ** edges[int(np.argmax(counts))]
    best = None
    for start, smallest in enumerate(values[:-1]):
        if not 0.95 * peak <= smallest <= 1.5 * peak:
            continue
        tail = values[start:]
        alpha = 1 + len(tail) / sum(np.log(value / smallest) for value in tail)
        distance = max(abs(1 - (value / smallest) ** (1 - alpha) - i / len(tail)) for i, value in enumerate(tail))
        if best is None or distance < best[0]:
            best = (distance, alpha)
    return best[1]


@pytest.mark.parametrize("alpha", [1.8, 2.5, 4.0])
def test_a_power_laws_exponent_is_found(alpha):
    quantiles = (np.arange(400) + 0.5) / 400
    weight = with_spectrum((1 - quantiles) ** (-1 / (alpha - 1)), d_out=500)
    assert tail_exponent(weight) == pytest.approx(alpha, rel=0.05)
    assert tail_exponent(7 * weight.T) == pytest.approx(tail_exponent(weight), rel=1e-3), "neither scale nor orientation matter"


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("tail", [1.5, 3.0])
def test_it_is_the_definition(seed, tail):
    rng = np.random.default_rng(seed)
    weight = torch.tensor(rng.standard_t(tail, size=(60, 40 + 10 * seed)), dtype=torch.float32)
    assert tail_exponent(weight) == pytest.approx(slow_exponent(weight), rel=1e-3)


def test_a_heavier_tail_has_a_smaller_exponent():
    rng = np.random.default_rng(0)
    gaussian = torch.tensor(rng.normal(size=(200, 100)), dtype=torch.float32)
    heavy = with_spectrum(np.linspace(0.01, 1, 100) ** -1.5, d_out=200)
    assert tail_exponent(heavy) < tail_exponent(gaussian) < LIGHTEST


@pytest.mark.parametrize("weight", [torch.eye(20), torch.zeros(6, 5), torch.ones(4, 4), torch.nn.init.orthogonal_(torch.empty(30, 20))])
def test_a_spectrum_without_a_tail_counts_as_the_lightest(weight):
    assert tail_exponent(weight) == pytest.approx(LIGHTEST) or tail_exponent(weight) > 40


def test_a_layers_score_is_its_linears_mean_to_the_power():
    model = llama()
    shape = shape_of(model)
    for routing in (Routing(), Routing(targets=("q", "down"))):
        found = alphalora.scores(Probe(model, shape, routing))
        for layer, score in enumerate(found):
            sites = [site for site in shape.layers[layer] if routing.admits(site)]
            own = [tail_exponent(model.get_submodule(f"model.layers.{layer}.{site.path}").weight) for site in sites]
            assert score == pytest.approx((sum(own) / len(own)) ** 2.5)
