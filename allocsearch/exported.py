"""The exported config: an allocation with everything that was measured of it, schema `allocsearch/v1`."""

from typing import Annotated, Final, Literal

from pydantic import Field, model_validator

from allocsearch.core.allocation import Allocation
from allocsearch.spec import Closed, RoutingSpec

SCHEMA: Final = "allocsearch/v1"


class LayerRow(Closed):
    """One layer of the per-layer table."""

    layer: Annotated[int, Field(ge=0)]
    plan: str
    trainable: Annotated[int, Field(ge=0)]
    active: Annotated[int, Field(ge=0)]


class ModelRecord(Closed):
    """The base model that the allocation was found for."""

    id: str
    revision: str | None = None
    architecture: str
    shape_hash: str
    weights: str


class BudgetRecord(Closed):
    """Limits and exact counts."""

    budget: str
    trainable: Annotated[int, Field(ge=0)]
    active: Annotated[int, Field(ge=0)]


class ScoreRecord(Closed):
    """What was measured, where, and what the interval does not cover."""

    accuracy: float
    interval: tuple[float, float]
    interval_kind: str
    nll: float
    split: Literal["search", "test"]
    selection_biased: bool
    rows: int
    seeds: tuple[int, ...]
    frozen_base_accuracy: float | None = None


class ComparisonRecord(Closed):
    """The allocation against one baseline on the test rows: its lead, in shares of accuracy, over seeds and rows."""

    against: str
    trainable: Annotated[int, Field(ge=0)]
    difference: float
    interval: tuple[float, float]
    p_adjusted: float
    verdict: Literal["better", "worse", "not distinguishable"]
    covers_seeds: bool


class ConfirmationRecord(Closed):
    """What fresh seeds gave on the test rows, which the search never saw."""

    split: Literal["test"] = "test"
    accuracy: float
    interval: tuple[float, float]
    interval_kind: str
    nll: float
    rows: int
    seeds: tuple[int, ...]
    comparisons: tuple[ComparisonRecord, ...]


class FidelityRecord(Closed):
    """How long the proxy trained."""

    train_rows: int
    steps: int
    batch_size: int
    learning_rate: float
    dtype: str


class StudyOrigin(Closed):
    """Where the allocation came from."""

    name: str
    spec_hash: str
    trial: int
    origin: str
    trials: int
    task: str
    space: str


class ExportedConfig(Closed):
    """An exported allocation with its evidence: schema `allocsearch/v1`."""

    schema_version: Literal["allocsearch/v1"] = Field(alias="schema")
    allocation: str
    layers: tuple[LayerRow, ...]
    routing: RoutingSpec
    alpha: Literal["2r"] | Annotated[float, Field(gt=0)]
    aux_loss_weight: float
    model: ModelRecord
    parameters: BudgetRecord
    score: ScoreRecord
    confirmation: ConfirmationRecord | None = None
    fidelity: FidelityRecord
    study: StudyOrigin
    picked: str
    versions: dict[str, str]
    date: str

    @model_validator(mode="after")
    def _states_one_allocation(self) -> "ExportedConfig":
        allocation = Allocation.parse(self.allocation)
        self.routing.routing()
        plans = [row.plan for row in self.layers]
        if plans != [str(plan) for plan in allocation]:
            raise ValueError("`layers` must say the same as `allocation`, but they differ: one of them was edited")
        return self
