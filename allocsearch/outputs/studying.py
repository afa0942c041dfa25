"""What the commands on a study print."""

from typing import Literal

from allocsearch.outputs.evidence import EvidenceOutput
from allocsearch.outputs.rows import Count, PointRow, Share
from allocsearch.search.calibration import Calibration
from allocsearch.search.recommendation import Recommendation
from allocsearch.space_spec import Closed


class FrontOutput(Closed):
    """`front`: the Pareto front, smallest first; `interval` says what the points' intervals cover."""

    study: str
    split: Literal["search"]
    interval: str
    points: tuple[PointRow, ...]


class RunOutput(FrontOutput):
    """`run`, `resume` and `confirm`: the front, the winner, and what the test rows say of it where it was confirmed."""

    winner: PointRow
    why: str
    evidence: EvidenceOutput | None


class BaseScore(Closed):
    """The frozen base on the search rows."""

    accuracy: Share
    nll: float


class FailedTrial(Closed):
    """A trial that failed, and why."""

    trial: Count
    reason: str


class RetriedTrial(Closed):
    """A trial that was dispatched more than once, since its worker or its driver had died."""

    trial: Count
    attempt: Count


class SpentOutput(Closed):
    """What the search and what follows it have cost, over all drivers."""

    hours: float
    gpu_hours: float
    tokens: Count


class SpendingLimits(Closed):
    """What they may cost; null where nothing limits it."""

    max_hours: float | None
    max_gpu_hours: float | None
    max_tokens: Count | None


class StatusOutput(Closed):
    """`status NAME`."""

    study: str
    target_trials: Count
    missing_trials: Count
    complete: bool
    driver: str | None
    counts: dict[str, Count]
    worker_seconds: float
    wall_seconds: float
    spent: SpentOutput
    limits: SpendingLimits
    trials_per_hour: float | None
    seconds_left: float | None
    best: PointRow | None
    frozen_base: BaseScore | None
    failures: tuple[FailedTrial, ...]
    infeasible: tuple[FailedTrial, ...]
    stopped_at: dict[str, Count]
    retried: tuple[RetriedTrial, ...]
    model: str
    task: str
    space: str
    budget: str


class StudyNames(Closed):
    """`status` without a name: the studies in the storage."""

    studies: tuple[str, ...]


class CalibrateOutput(Closed):
    """`calibrate`."""

    study: str
    calibration: Calibration
    recommendation: Recommendation
