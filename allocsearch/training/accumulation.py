"""A batch dealt out over several passes: the same optimiser step with a part of the memory.

The loss of a batch is a mean over its terms, tokens or rows, so the sum of the passes' losses, each weighted by its share of the terms, is
the loss of the batch, and likewise for the gradients: equal up to rounding. The balance loss of a router is not a mean over tokens but a
product of two such means, so it cannot be put together from parts. Each pass balances its own rows and counts by its share, as in any
trainer that accumulates: a noisier pull towards the same balance. Where no router has a choice, the two agree.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from allocsearch.training.collate import EncodedExample
from allocsearch.training.objective import Objective


@dataclass(frozen=True, slots=True)
class Pass:
    """Rows of one forward and backward pass, and their share of the loss terms of the whole batch."""

    rows: Sequence[EncodedExample]
    share: float


def dealt(objective: Objective, batch: Sequence[EncodedExample], num_passes: int) -> list[Pass]:
    """`batch` dealt out like cards over `num_passes`, or over as many as it has rows. One pass has a share of exactly 1."""
    num_terms = objective.num_terms(batch)
    parts = [batch[first::num_passes] for first in range(min(num_passes, len(batch)))]
    return [Pass(part, objective.num_terms(part) / num_terms) for part in parts]
