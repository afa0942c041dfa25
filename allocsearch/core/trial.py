"""A trial of one allocation: what a worker is asked to do (`Assignment`) and every way that it can end (`Outcome`)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import fmean
from typing import Literal

from allocsearch.core.allocation import Allocation
from allocsearch.core.budget import Cost
from allocsearch.core.geometry import Routing

Split = Literal["search", "test"]


@dataclass(frozen=True, slots=True)
class Assignment:
    """All that a worker needs to know. `number` is the trial's in its study; `rungs` are training steps at which to report.

    `split` names the rows that score it: a search never sees the test's. `score_base` asks for the frozen base's score too, which
    costs a worker one more scoring. `params` (trainable) is what the rung scheduler sets against the score; a trial that is not
    `stoppable` reports like any other and runs to its end.
    """

    number: int
    allocation: Allocation
    routing: Routing
    seeds: tuple[int, ...]
    rungs: tuple[int, ...] = ()
    keep_weights: bool = True
    score_base: bool = False
    split: Split = "search"
    params: int = 0
    stoppable: bool = True


@dataclass(frozen=True, slots=True)
class SeedScore:
    """One seed's result on the evaluation rows, in row order: whether each was right, and −log p of its true answer in nats."""

    seed: int
    correct: tuple[bool, ...]
    nll: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.correct or len(self.correct) != len(self.nll):
            raise ValueError(f"one `nll` per row and at least one row must hold, but got {len(self.correct)} and {len(self.nll)}")

    @property
    def accuracy(self) -> float:
        """Share of rows that are right."""
        return fmean(self.correct)

    @property
    def mean_nll(self) -> float:
        """Mean −log p of the true answers, in nats."""
        return fmean(self.nll)


@dataclass(frozen=True, slots=True)
class RungScore:
    """What a trial reports on its way: after `step` training steps of `seed`, on the search rows."""

    seed: int
    step: int
    accuracy: float
    nll: float


@dataclass(frozen=True, slots=True)
class Measured:
    """Trained to the end and scored. `seconds` is wall time in the worker; `artifact` names the stored adapter, if kept.

    As of every trial that ended, `gpus` are those that its worker had, and `tokens` those trained on, padding not counted.
    """

    scores: tuple[SeedScore, ...]
    seconds: float
    worker: str = ""
    artifact: str | None = None
    base: SeedScore | None = None
    rungs: tuple[RungScore, ...] = ()
    statistics: Mapping[str, float] = field(default_factory=dict)
    gpus: float = 0.0
    tokens: int = 0

    @property
    def accuracy(self) -> float:
        """Mean accuracy over seeds."""
        return fmean(score.accuracy for score in self.scores)

    @property
    def nll(self) -> float:
        """Mean NLL over seeds, in nats."""
        return fmean(score.mean_nll for score in self.scores)

    @property
    def finite(self) -> bool:
        """Whether every row's NLL is a number that a database accepts."""
        return all(math.isfinite(value) for score in self.scores for value in score.nll)


@dataclass(frozen=True, slots=True)
class Stopped:
    """Ended early by the rung scheduler; never comparable with a finished trial."""

    rungs: tuple[RungScore, ...]
    seconds: float
    worker: str = ""
    gpus: float = 0.0
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class Failed:
    """Ended by its own doing (a non-finite loss, a model error); running it again would end the same."""

    reason: str
    seconds: float = 0.0
    worker: str = ""
    gpus: float = 0.0
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class Infeasible:
    """Its training does not fit into the device's memory, however few rows are passed at a time. Neither a score nor a failure."""

    reason: str
    seconds: float = 0.0
    worker: str = ""
    gpus: float = 0.0
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class Lost:
    """Its worker died, or (`by_machine`) its machine could not run it; nothing is known of it, so the same trial runs again."""

    reason: str
    by_machine: bool = False


Ended = Measured | Stopped | Infeasible | Failed
"""What is final; a lost trial runs again."""

Outcome = Ended | Lost


@dataclass(frozen=True, slots=True)
class Trial:
    """An assignment with its cost, where it came from (`origin`: a sampler or a warm start), and how it ended, if it has.

    `attempt` counts dispatches; `share` is the part of the budget that it was meant to use up.
    """

    assignment: Assignment
    cost: Cost
    origin: str
    attempt: int = 1
    share: float = 1.0
    outcome: Outcome | None = None

    @property
    def number(self) -> int:
        """The trial's number in its study."""
        return self.assignment.number
