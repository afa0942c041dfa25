"""The protocols between the search and the engines at the edge."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from allocsearch.core.trial import Assignment, Outcome, RungScore, Trial

Report = Callable[[RungScore], bool]
"""Called by a worker at each rung; False means that the trial must end here as `Stopped`."""


class Study(Protocol):
    """The one truth about a search. Only the driver process holds one."""

    def ask(self) -> Assignment | None:
        """The next trial to run, trials that a dead driver or worker left behind first; None when no more are wanted now."""
        ...

    def tell(self, number: int, outcome: Outcome) -> Trial:
        """Record how trial `number` ended. `Lost` puts it back in line until its attempts are used up, then it is `Failed`."""
        ...

    def trials(self) -> Sequence[Trial]:
        """Every trial so far, by number."""
        ...


class Referee(Protocol):
    """Says, at each rung, whether a trial goes on."""

    def go_on(self, number: int, rung: RungScore, *, params: int) -> bool:
        """Take in what trial `number`, of `params` trainable parameters, reports; False where it must end here."""
        ...


class Scheduler(Referee, Protocol):
    """A referee's memory and rules: picklable, free of engines, and rebuilt from what the study holds."""

    def replay(self, trials: Sequence[Trial]) -> None:
        """Take in the rungs of ended trials; saying so twice changes nothing."""
        ...


class Evaluator(Protocol):
    """Trains and scores one assignment. Picklable and cheap to send: heavy state is loaded once per worker, on first use."""

    def __call__(self, assignment: Assignment, report: Report) -> Outcome:
        """Never raises for what an allocation or its training can cause: that is a `Failed` outcome."""
        ...


class Executor(Protocol):
    """Decides where trials run."""

    def run(self, study: Study, evaluator: Evaluator, *, scheduler: Scheduler | None = None) -> Iterator[Trial]:
        """Ask, evaluate and tell until `study.ask` has no more, yielding each trial as it ends.

        `scheduler` comes without reports, learns those that the study holds, and may then stop trials; None lets all run to their end.
        """
        ...


class ArtifactStore(Protocol):
    """Where workers leave adapters' weights: a folder or a bucket.

    What a machine refuses (a full disk, a network that is gone) is an OSError or a MachineError.
    """

    def check(self) -> None:
        """Raise InputError where nothing can be stored."""
        ...

    def write(self, name: str, file: Path) -> None:
        """Store a copy of `file` under `name`, replacing what is there."""
        ...

    def read(self, name: str, file: Path) -> None:
        """Copy what is stored under `name` to `file`; InputError where nothing is."""
        ...

    def remove(self, name: str) -> None:
        """Forget `name`; no error where nothing is stored."""
        ...
