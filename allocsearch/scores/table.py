"""Every score that a study may name among its warm starts."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from allocsearch.core.allocation import Allocation
from allocsearch.scores import allotment, alphalora, complexity, eva, gradient
from allocsearch.scores.probe import Probe


@dataclass(frozen=True, slots=True)
class Score:
    """How layers are scored, and what the scores allot: `allotment.experts` or `allotment.ranks`."""

    layers: Callable[[Probe], tuple[float, ...]]
    allot: Callable[..., Allocation | None]
    needs_batches: bool = True


SCORES: Final[Mapping[str, Score]] = {
    "alphalora": Score(alphalora.scores, allotment.experts, needs_batches=False),
    "gradient": Score(gradient.scores, allotment.experts),
    "eva": Score(eva.scores, allotment.ranks),
    "complexity": Score(complexity.scores, allotment.experts),
}
