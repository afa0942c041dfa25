"""Every score that a study may name among its warm starts."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from allocsearch.core.allocation import Allocation
from allocsearch.core.budget import Budget
from allocsearch.core.warm_starts import ONE_SHOT
from allocsearch.scores import allotment, alphalora, complexity, eva, gradient, oneshot
from allocsearch.scores.probe import Probe

Needs = Literal["weights", "batches", "practice"]
Found = tuple[Allocation | None, tuple[float, ...]]


@dataclass(frozen=True, slots=True)
class LayerScore:
    """How layers are scored, and what the scores allot: `allotment.experts` or `allotment.ranks`."""

    layers: Callable[[Probe], tuple[float, ...]]
    allot: Callable[..., Allocation | None]
    needs: Needs = "batches"

    def start(self, probe: Probe, budget: Budget) -> Found:
        """The allocation that the layers' scores give, and the scores."""
        scores = self.layers(probe)
        return self.allot(scores, shape=probe.shape, routing=probe.routing, budget=budget), scores


@dataclass(frozen=True, slots=True)
class AllocationScore:
    """How whole allocations are scored: `start` gives the best of some and its score."""

    start: Callable[[Probe, Budget], Found]
    needs: Needs = "practice"


SCORES: Final[Mapping[str, LayerScore | AllocationScore]] = {
    "alphalora": LayerScore(alphalora.scores, allotment.experts, needs="weights"),
    "gradient": LayerScore(gradient.scores, allotment.experts),
    "eva": LayerScore(eva.scores, allotment.ranks),
    "complexity": LayerScore(complexity.scores, allotment.experts),
    ONE_SHOT: AllocationScore(oneshot.start),
}
