"""What `run --dry-run` prints."""

from typing import Any

from allocsearch.core.choices import Objective, Sampler
from allocsearch.outputs.rows import Count, Sized
from allocsearch.space_spec import Closed, RoutingSpec


class PlannedModel(Closed):
    """The base model, as its config tells."""

    name: str
    architecture: str
    layers: Count
    hidden_size: Count
    targets: tuple[str, ...]
    parameters: Count
    shape_hash: str


class PlannedBudget(Closed):
    """The budget as written, and its limits on this model."""

    text: str
    max_trainable: int | None
    max_active: int | None


class PlannedDimension(Closed):
    """One coordinate of the space."""

    name: str
    choices: tuple[int, ...]


class PlannedSpace(Closed):
    """The space on this model."""

    name: str
    dimensions: tuple[PlannedDimension, ...]
    points: Count


class PlannedStart(Sized):
    """A warm start; a baseline is one that the space cannot express."""

    name: str
    baseline: bool


class PlanOutput(Closed):
    """`run --dry-run`: what a run would do."""

    study: str
    spec_hash: str
    model: PlannedModel
    task: str
    budget: PlannedBudget
    space: PlannedSpace
    routing: RoutingSpec
    objective: Objective
    ladder: tuple[float, ...]
    sampler: Sampler
    trials: Count
    seeds: tuple[int, ...]
    steps: Count
    rungs: tuple[int, ...]
    scheduler: dict[str, Any]
    workers: Count
    estimated_seconds: float | None
    max_trainings_after: dict[str, Count]
    warm_starts: tuple[PlannedStart, ...]
    oversized_warm_starts: tuple[str, ...]
    scored_warm_starts: tuple[str, ...]
    examples: tuple[Sized, ...]
