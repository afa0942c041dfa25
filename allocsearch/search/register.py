"""What a study has, kept up as trials come and end: no question to it looks through all of them, so that none grows with the study."""

from collections.abc import Sequence
from typing import Final

from allocsearch.core.allocation import Allocation
from allocsearch.core.choices import Metric
from allocsearch.core.front import Candidate, GrowingFront
from allocsearch.core.trial import Assignment, Failed, Infeasible, Measured, Stopped, Trial

_NUM_RECENT: Final = 3


class Register:
    """Trials by number, and what is asked of them all the time.

    Args:
        metric: what trials are ranked by.

    Attributes:
        num_measured, num_stopped, num_infeasible, num_failed: trials that ended in each way.
        recent: the last few that ended.
    """

    def __init__(self, metric: Metric = "accuracy") -> None:
        self._metric = metric
        self.num_measured = self.num_stopped = self.num_infeasible = self.num_failed = 0
        self.recent: tuple[Trial, ...] = ()  # never changed in place: another thread may be drawing it
        self._trials: dict[int, Trial] = {}
        self._works: set[object] = set()
        self._allocations: set[Allocation] = set()
        self._front = GrowingFront()

    def __getitem__(self, number: int) -> Trial:
        return self._trials[number]

    def __len__(self) -> int:
        return len(self._trials)

    def put(self, trial: Trial) -> None:
        """Take in a new trial, or the new state of one that had not ended."""
        before = self._trials.get(trial.number)
        if before is None:
            self._works.add(_work(trial.assignment))
            self._allocations.add(trial.assignment.allocation)
        self._trials[trial.number] = trial
        if trial.outcome is not None and (before is None or before.outcome is None):
            self._end(trial)

    @property
    def num_finished(self) -> int:
        """Trials that count towards a target: measured, stopped at a rung, or infeasible."""
        return self.num_measured + self.num_stopped + self.num_infeasible

    @property
    def num_open(self) -> int:
        """Trials that have not ended."""
        return len(self._trials) - self.num_finished - self.num_failed

    @property
    def trials(self) -> Sequence[Trial]:
        """Every trial, by number."""
        return [self._trials[number] for number in sorted(self._trials)]

    @property
    def failed(self) -> list[Trial]:
        """The trials that failed, by number."""
        return [trial for trial in self.trials if isinstance(trial.outcome, Failed)]

    @property
    def infeasible(self) -> list[Trial]:
        """The trials that did not fit into memory, by number."""
        return [trial for trial in self.trials if isinstance(trial.outcome, Infeasible)]

    @property
    def front(self) -> list[Trial]:
        """The front of the metric against trainable parameters, smallest first."""
        return [self._trials[candidate.number] for candidate in self._front]

    @property
    def best(self) -> Trial | None:
        """The best measured trial; None before the first."""
        return self._trials[self._front.best.number] if self.num_measured else None

    def knows(self, allocation: Allocation) -> bool:
        """Whether a trial has this allocation."""
        return allocation in self._allocations

    def has(self, draft: Assignment) -> bool:
        """Whether a trial does the same work: that allocation and routing, with those seeds, on that split."""
        return _work(draft) in self._works

    def _end(self, trial: Trial) -> None:
        self.recent = (*self.recent, trial)[-_NUM_RECENT:]
        match trial.outcome:
            case Measured() as measured:
                self.num_measured += 1
                self._rank(trial, measured)
            case Stopped():
                self.num_stopped += 1
            case Infeasible():
                self.num_infeasible += 1
            case Failed():
                self.num_failed += 1

    def _rank(self, trial: Trial, measured: Measured) -> None:
        score = measured.accuracy if self._metric == "accuracy" else -measured.nll
        self._front.add(Candidate(trial.number, score, trial.cost.trainable, (score, score)))  # nothing here asks for the interval


def _work(assignment: Assignment) -> object:
    return assignment.allocation, assignment.routing, assignment.seeds, assignment.split
