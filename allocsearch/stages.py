"""What follows a search: random allocations as a baseline at equal compute, then fresh seeds on the test rows.

Each stage is a companion study, so that it is resumed, retried and counted like the search itself, and its trials never mix with
those of the search. What is already there is not trained again: running the stages of a finished study does nothing.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from allocsearch.backends.catalog import CONFIRMATION, CONFIRMED, Catalog, StudyRecord
from allocsearch.beside import Beside, StageTrial
from allocsearch.core.origins import is_proposal
from allocsearch.core.trial import Assignment, Measured, Trial
from allocsearch.search import results
from allocsearch.search.finalists import finalists, fresh_seeds
from allocsearch.spec import ConfirmationSpec

_ANOTHER_SEED: Final = 1_000_003
"""Random baselines are drawn apart from the random proposals of the search."""


@dataclass(frozen=True)
class Stages:
    """The stages of one study, on one machine."""

    beside: Beside

    def confirm(self, spec: ConfirmationSpec) -> Iterator[StageTrial]:
        """Train what `spec` wants of this study's allocations, and yield each trial as it ends.

        Raises:
            TooManyFailuresError: where too many of a stage's trials fail. Everything is kept.
        """
        if spec.candidates == 0 or not results.points(self._record.trials):
            return
        # So that a resume knows what was asked for.
        self.beside.catalog.note(self.beside.name, CONFIRMATION, spec.model_dump(mode="json"))
        yield from self.beside.run("random", [(draft, "random") for draft in self._random_drafts(spec)])
        yield from self.beside.run("confirmation", self._confirmation_drafts(spec))
        self.beside.catalog.note(self.beside.name, CONFIRMED, spec.model_dump(mode="json"))

    @property
    def _record(self) -> StudyRecord:
        return self.beside.catalog.record(self.beside.name)

    def _random_drafts(self, spec: ConfirmationSpec) -> list[Assignment]:
        study, proxy = self._record, self.beside.plan.spec.proxy
        proposed = sum(is_proposal(trial.origin) for trial in study.trials)
        wanted = proposed if spec.random_trials is None else spec.random_trials
        if study.spec.sampler == "random" and spec.random_trials is None:
            return []  # the search itself is that baseline
        proposals = replace(self.beside.plan.proposals, seed=study.spec.seed + _ANOTHER_SEED)
        space, drafts = self.beside.plan.space, list[Assignment]()
        for number in range(wanted):
            allocation = space.decode(proposals.random(number))
            drafts.append(Assignment(number, allocation, space.routing, proxy.seeds, keep_weights=False))
        return drafts

    def _confirmation_drafts(self, spec: ConfirmationSpec) -> list[tuple[Assignment, str]]:
        """One draft per allocation and seed: a death costs one training, and workers end at about the same time."""
        study = self._record
        chosen = {point.trial.assignment.allocation: point.trial for point in finalists(study.trials, spec.candidates)}
        for point in [*results.baselines(study.trials), *self._best_random()]:
            chosen.setdefault(point.trial.assignment.allocation, point.trial)
        seeds = fresh_seeds(study.spec.proxy.seeds, spec.seeds)
        return [
            (Assignment(0, allocation, trial.assignment.routing, (seed,), split="test"), trial.origin)
            for seed in seeds  # by seed first: what is cut short has compared everything on the seeds that it has
            for allocation, trial in chosen.items()
        ]

    def _best_random(self) -> list[results.Point]:
        beside = self.beside.catalog.companion(self.beside.name, "random")
        return [] if beside is None or not results.points(beside.trials) else [results.picked(beside.trials, "best")]


def confirmed(catalog: Catalog, name: str) -> list[Trial]:
    """The trials on the test rows, measured ones only; empty where nothing was confirmed."""
    record = catalog.companion(name, "confirmation")
    return [] if record is None else [trial for trial in record.trials if isinstance(trial.outcome, Measured)]
