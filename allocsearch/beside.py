"""Trains a list of assignments beside a study, as one of its companions: resumed, retried and counted like the search itself.

Its trials never mix with those of the search. What is already there is not trained again.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from allocsearch.backends.catalog import Catalog
from allocsearch.backends.study_record import Companion
from allocsearch.core.trial import Assignment, Trial
from allocsearch.options import Options
from allocsearch.planning import Plan
from allocsearch.search.ledger import Ledger
from allocsearch.training.finetune import ProxyEvaluator
from allocsearch.workplace import LimitReachedError, Say, TooManyFailuresError, executor_of

MADE_WITH: Final = ("versions", "shape_digest", "task_digest", "model_digest")
"""What a study's attributes say of what its results depend on."""


@dataclass(frozen=True)
class StageTrial:
    """A trial of a stage as it ends; `done` of `total` of the stage have ended by now."""

    stage: Companion
    trial: Trial
    done: int
    total: int


@dataclass(frozen=True)
class Beside:
    """One study's companions, on one machine.

    Attributes:
        made_with: the study's own attributes by the names in `MADE_WITH`.
        ledger: what the trials are charged to; None where they do not count.
    """

    catalog: Catalog
    plan: Plan
    name: str
    evaluator: ProxyEvaluator
    options: Options
    say: Say
    made_with: Mapping[str, Any]
    ledger: Ledger | None = None

    def run(self, kind: Companion, drafts: Sequence[tuple[Assignment, str]]) -> Iterator[StageTrial]:
        """Train those drafts, each with its origin, that companion `kind` does not have yet, and yield each trial as it ends.

        Raises:
            TooManyFailuresError: where too many of them fail. Everything is kept.
            LimitReachedError: where the study has spent what it may before all of them were trained. Everything is kept.
        """
        if not drafts:
            return
        study = self.catalog.open_companion(self.name, kind, self.plan.spec, self.plan.proposals, self.made_with, ledger=self.ledger)
        for draft, origin in drafts:
            study.enqueue_assignment(draft, origin)
        missing = [trial for trial in study.trials() if trial.outcome is None]
        if not missing:
            return
        if study.is_over():
            raise LimitReachedError(study.ledger.reached)
        self.say(f"{kind}: {len(missing)} trainings")
        executor = executor_of(self.plan, len(missing), self.options, self.say)
        done, evaluator = 0, replace(self.evaluator, prefix=f"{self.name}-{kind}")
        for trial in executor.run(study, evaluator):
            evaluator.forget(trial)
            done += trial.outcome is not None
            yield StageTrial(kind, trial, done, len(missing))
        if study.failure_report is not None:
            raise TooManyFailuresError(study.failure_report)
        if study.is_over() and done < len(missing):
            raise LimitReachedError(study.ledger.reached)
