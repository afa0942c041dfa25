"""What a spec means on its model, worked out from the config alone: nothing is loaded, written or started."""

from dataclasses import dataclass
from functools import cached_property

from allocsearch.core.allocation import Allocation
from allocsearch.core.budget import Budget, Cost, cost
from allocsearch.core.errors import InputError, shown
from allocsearch.core.geometry import ModelShape
from allocsearch.core.space import SearchSpace
from allocsearch.core.warm_starts import SCORED_STARTS, WARM_STARTS, scaled
from allocsearch.models import head_of, model_shape
from allocsearch.search.proposals import Proposals
from allocsearch.spec import StudySpec


@dataclass(frozen=True)
class Start:
    """A warm start scaled to the budget; `is_baseline` where the space cannot express it."""

    name: str
    allocation: Allocation
    cost: Cost
    is_baseline: bool


@dataclass(frozen=True)
class Plan:
    """Everything that a spec means on its model."""

    spec: StudySpec
    shape: ModelShape
    budget: Budget
    space: SearchSpace
    proposals: Proposals

    @cached_property
    def starts(self) -> tuple[Start, ...]:
        """The published warm starts that fit, in order, at most as many as there are trials."""
        found: list[Start] = []
        for name in self._published:
            allocation = scaled(WARM_STARTS[name], shape=self.shape, routing=self.space.routing, budget=self.budget)
            if allocation is not None and allocation not in [start.allocation for start in found]:
                total = cost(allocation, self.shape, self.space.routing)
                found.append(Start(name, allocation, total, not self.space.expresses(allocation)))
        return tuple(found[: self.spec.trials])

    @property
    def oversized(self) -> tuple[str, ...]:
        """Warm starts that the budget has no room for. Those that mean nothing under this router, or on this model, are passed over."""
        fits = {
            name: scaled(WARM_STARTS[name], shape=self.shape, routing=self.space.routing, budget=self.budget)
            for name in self._published
            if WARM_STARTS[name].fits(self.shape, self.space.routing)
        }
        return tuple(name for name, allocation in fits.items() if allocation is None)

    @property
    def scored(self) -> tuple[str, ...]:
        """The warm starts that need the model's weights. Like published patterns they mean a router per linear."""
        return () if self.space.routing.per_block else tuple(name for name in self.spec.warm_starts if name in SCORED_STARTS)

    @property
    def _published(self) -> tuple[str, ...]:
        return tuple(name for name in self.spec.warm_starts if name in WARM_STARTS)


def plan(spec: StudySpec) -> Plan:
    """What `spec` means on its model.

    Raises:
        InputError: for an unknown model, or a space or router that does not fit it.
        InfeasibleError: where no allocation of the space is inside the budget.
    """
    shape = model_shape(spec.model, spec.revision)
    if head_of(spec.model, spec.revision).modules:
        _check_classifier(spec)
    budget = Budget.parse(spec.budget).resolve(shape)
    space = spec.space.template().bind(shape, spec.routing.routing())
    ladder = spec.ladder if spec.objective == "pareto" else (1.0,)
    return Plan(spec, shape, budget, space, Proposals(space, budget, ladder, spec.seed))


def _check_classifier(spec: StudySpec) -> None:
    """What an encoder with a classification head cannot do."""
    if spec.task.answer_column is not None or spec.task.choices_column is not None:
        what = "text to generate" if spec.task.answer_column is not None else "choices of its own in each row"
        raise InputError(
            f"an encoder needs a task with the same choices in every row, but {spec.model!r} got {spec.task.name!r}, which has {what}: "
            "give a causal language model"
        )
    scored = [name for name in spec.warm_starts if name in SCORED_STARTS]
    if scored:
        raise InputError(
            f"a warm start by score needs a causal language model, but {spec.model!r} is an encoder: leave out {shown(scored)}"
        )
