"""Explained variance, after EVA (arXiv 2410.07170): linears whose inputs vary in many directions get a higher rank.

All linears' directions compete. With r the mean rank and ρ the most times r that one linear may get, the r · M largest of all explained
variance ratios of M linears win, and a linear's rank is the number of its directions among them. Ours takes the mean over a layer's
linears, and scales it to a budget; it starts adapters as usual, not at the directions found.

Principal components are found batch by batch (Ross et al. 2008, with the correction for a mean that moves), so that no activations are
kept.
"""

from typing import Any, Final

import torch
from torch import Tensor, nn

from allocsearch.core.errors import InputError
from allocsearch.scores.probe import Probe, real_tokens
from allocsearch.training.collate import Batch

RANK: Final = 8
RHO: Final = 2
_MAX_TOKENS: Final = 256  # of a batch, evenly spaced: their inner products are what takes the time


class Spectrum:
    """The largest principal components of rows that come in parts."""

    def __init__(self, num_components: int) -> None:
        self._num_components = num_components
        self._scaled = torch.empty(0)  # components times their singular values
        self._mean = torch.empty(0)
        self._num_rows = 0
        self._variation = 0.0

    def update(self, rows: Tensor) -> None:
        """Take in a matrix of rows."""
        rows = rows.double()
        old, new = self._num_rows, len(rows)
        mean = rows.mean(dim=0)
        centred = rows - mean
        self._variation += centred.square().sum().item()
        if old:
            shift = (self._mean - mean) * (old * new / (old + new)) ** 0.5
            self._variation += shift.square().sum().item()
            centred = torch.cat([self._scaled, centred, shift[None]])
            mean = (old * self._mean + new * mean) / (old + new)
        _, vectors = torch.linalg.eigh(centred @ centred.T)  # in rising order; rows are few and wide
        self._scaled = vectors[:, -self._num_components :].T.flip(0) @ centred
        self._mean, self._num_rows = mean, old + new

    @property
    def ratios(self) -> list[float]:
        """The share of all variance that each component explains, largest first."""
        if not self._variation:
            return []
        found: list[float] = (self._scaled.square().sum(dim=1) / self._variation).tolist()
        return found


def scores(probe: Probe) -> tuple[float, ...]:
    """The mean rank that EVA would give the linears of every layer, at least 1."""
    counts = [len(linears) for linears in probe.layers]
    ratios = [spectrum.ratios for linears in spectra(probe) for spectrum in linears]
    ranked = sorted((-ratio, number) for number, own in enumerate(ratios) for ratio in own)
    wins = [0] * len(ratios)
    for _, number in ranked[: RANK * len(ratios)]:
        wins[number] += 1
    of_layer = iter(wins)
    return tuple(max(1.0, sum(next(of_layer) for _ in range(count)) / max(1, count)) for count in counts)


def spectra(probe: Probe) -> list[list[Spectrum]]:
    """The spectrum of every linear's input, by layer. Linears that read one tensor, such as q, k and v, share theirs."""
    if not probe.batches:
        raise InputError("a score from activations needs at least one batch, but got none")
    found = [[Spectrum(RANK * RHO) for _ in linears] for linears in probe.layers]
    now: dict[str, Any] = {}

    def hook(layer: int, place: int) -> Any:
        def see(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            if inputs[0] is now.get("input"):
                found[layer][place] = now["spectrum"]
                return
            rows = real_tokens(inputs[0], now["batch"])
            step = -(-len(rows) // _MAX_TOKENS)
            found[layer][place].update(rows[::step])
            now.update(input=inputs[0], spectrum=found[layer][place])

        return see

    def see_batch(batch: Batch) -> None:
        now.clear()
        now["batch"] = batch

    hooks = [
        linear.register_forward_pre_hook(hook(layer, place))
        for layer, linears in enumerate(probe.layers)
        for place, linear in enumerate(linears)
    ]
    probe.watch(hooks, see_batch)
    return found
