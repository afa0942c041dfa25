"""What follows a search: further seeds for what looks best, random allocations at equal compute, fresh seeds on the test rows.

Each stage is a companion study, so that it is resumed, retried and counted like the search itself, and its trials never mix with
those of the search. What is already there is not trained again: running the stages of a finished study does nothing.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

from allocsearch.backends.study_record import CONFIRMATION, CONTENDERS, FOLLOWED_UP, StudyRecord
from allocsearch.beside import Beside, StageTrial
from allocsearch.core.trial import Assignment, Failed, Infeasible, Trial
from allocsearch.search import results
from allocsearch.search.finalists import REPLICATION_SEEDS, finalists, fresh_seeds, num_trainings
from allocsearch.search.racing import Race, Rules, race
from allocsearch.search.replicates import replicated
from allocsearch.spec import ConfirmationSpec, ReplicationSpec

_ANOTHER_SEED: Final = 1_000_003
"""Random baselines are drawn apart from the random proposals of the search."""


@dataclass(frozen=True)
class Stages:
    """The stages of one study, on one machine."""

    beside: Beside

    def follow_up(self, replication: ReplicationSpec, confirmation: ConfirmationSpec) -> Iterator[StageTrial]:
        """`replicate`, then `confirm`."""
        yield from self.replicate(replication)
        yield from self.confirm(confirmation)
        self.beside.catalog.note(self.beside.name, FOLLOWED_UP, self._record.follow_up)

    def replicate(self, spec: ReplicationSpec) -> Iterator[StageTrial]:
        """Race what looks best over further seeds, and yield each training as it ends. A race that ended is not run again.

        Raises:
            TooManyFailuresError: where too many trainings fail. Everything is kept.
        """
        study = self._record
        seeds = study.spec.proxy.seeds
        extra = fresh_seeds(seeds, max(0, spec.max_seeds - len(seeds)), start=REPLICATION_SEEDS)
        promising = self._contenders(spec.contenders)
        if len(promising) < 2 or not extra:  # noqa: PLR2004 - a race takes two
            return
        rules = Rules((*seeds, *extra), metric=study.spec.metric, within_size=study.spec.objective == "pareto")
        while (standing := self._standing(promising, rules)).state == "running":
            drafts = [(self._replica(promising[number], seed), promising[number].origin) for number, seed in standing.missing]
            yield from self.beside.run("replicas", drafts)
        for number, num_seeds in sorted(standing.dropped.items()):
            self.beside.say(f"replicas: trial {number} is behind after {num_seeds} seeds")
        self.beside.say(f"replicas: {standing.state} after {standing.num_seeds} seeds, trial {standing.contenders[0]} leads")

    def _contenders(self, count: int) -> dict[int, Trial]:
        """By number; the same ones until the search has gone on, as a race must not lose what it has dropped."""
        study = self._record
        num_trials = len(results.points(study.trials))
        stored = study.attrs.get(CONTENDERS, {})
        if stored.get("of") != num_trials or len(stored.get("numbers", ())) > count:
            stored = {"of": num_trials, "numbers": [point.trial.number for point in finalists(study.trials, count, study.spec.metric)]}
            self.beside.catalog.note(self.beside.name, CONTENDERS, stored)
        return {trial.number: trial for trial in study.trials if trial.number in stored["numbers"]}

    def _standing(self, promising: Mapping[int, Trial], rules: Rules) -> Race:
        study = self._record  # with the replicas so far
        mine = [point for point in results.points(study.trials) if point.trial.number in promising]
        beside = self.beside.catalog.companion(self.beside.name, "replicas")
        numbers = {trial.assignment.allocation: number for number, trial in promising.items()}
        failed = [] if beside is None else [trial for trial in beside.trials if isinstance(trial.outcome, Failed | Infeasible)]
        given_up = {(numbers.get(trial.assignment.allocation, -1), seed) for trial in failed for seed in trial.assignment.seeds}
        return race(replicated(mine), rules, given_up=given_up)

    def _replica(self, trial: Trial, seed: int) -> Assignment:
        return replace(trial.assignment, seeds=(seed,), rungs=(), keep_weights=False)

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

    @property
    def _record(self) -> StudyRecord:
        return self.beside.catalog.record(self.beside.name)

    def _random_drafts(self, spec: ConfirmationSpec) -> list[Assignment]:
        study, proxy = self._record, self.beside.plan.spec.proxy
        wanted = num_trainings(study.trials, proxy.num_steps) if spec.random_trials is None else spec.random_trials
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
        chosen = {point.trial.assignment.allocation: point.trial for point in finalists(study.trials, spec.candidates, study.spec.metric)}
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
        return [] if beside is None or not results.points(beside.trials) else [results.picked(beside.trials, "best", beside.spec.metric)]
