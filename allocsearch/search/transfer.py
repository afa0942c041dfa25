"""Starting points from an earlier study, which may have had another model, another depth or another budget."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from allocsearch.core.allocation import Allocation
from allocsearch.core.choices import Metric
from allocsearch.core.errors import InputError
from allocsearch.core.origins import FROM_EARLIER
from allocsearch.core.trial import Trial
from allocsearch.search.finalists import finalists
from allocsearch.search.proposals import Proposals


@dataclass(frozen=True, slots=True)
class Transferred:
    """An allocation of an earlier study, fitted to this one's model and budget; `name` says which study and trial it came from."""

    name: str
    allocation: Allocation

    def to_json(self) -> dict[str, str]:
        """As JSON values."""
        return {"name": self.name, "allocation": str(self.allocation)}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Transferred":
        """Read what `to_json` wrote."""
        return cls(data["name"], Allocation.parse(data["allocation"]))


def transferred(trials: Sequence[Trial], proposals: Proposals, *, study: str, count: int, metric: Metric = "accuracy") -> list[Transferred]:
    """The best `count` allocations of an earlier study, as points of this one's space that use their targets up.

    Each layer takes the plan of the layer at its own relative depth. A trial that used a third of its budget aims at the nearest rung of
    this study's ladder. What becomes the same here is taken once.

    Raises:
        InputError: where the earlier study has no finished trial, or its experts are of another kind (a router per block, say).
    """
    found = finalists(trials, count, metric)
    if not found:
        raise InputError(f"a study to start from must have a finished trial, but {study!r} has none")
    space, fitted = proposals.space, dict[Allocation, Transferred]()
    for point in found:
        if point.trial.assignment.routing.per_block != space.routing.per_block:
            raise InputError(
                f"a study to start from must have the same kind of experts, but {study!r} has router "
                f"{point.trial.assignment.routing.router!r} and this one {space.routing.router!r}"
            )
        near = space.nearest(stretched(point.trial.assignment.allocation, space.shape.num_layers))
        share = min(proposals.shares, key=lambda share, own=point.trial.share: (abs(share - own), share))  # type: ignore[misc]
        allocation = space.decode(space.project_point(near, proposals.budget.scaled(share)))
        fitted.setdefault(allocation, Transferred(f"{FROM_EARLIER}{study}/{point.trial.number}", allocation))
    return list(fitted.values())


def stretched(allocation: Allocation, num_layers: int) -> Allocation:
    """`allocation` at another depth: layer i of L takes the plan at relative depth (i + ½) / L."""
    plans = allocation.layers
    return Allocation(tuple(plans[(2 * i + 1) * len(plans) // (2 * num_layers)] for i in range(num_layers)))
