"""The Study port on Optuna: the study in the database is the one truth, and only the driver process writes it."""

import math
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import optuna
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from allocsearch.backends import artifacts
from allocsearch.backends import trial_records as records
from allocsearch.backends.distributions import distribution
from allocsearch.backends.optuna_sampling import candidates, proposer
from allocsearch.backends.quasi_random import SobolSequence
from allocsearch.backends.sampler_mirror import Direction, SamplerMirror
from allocsearch.core.allocation import Allocation
from allocsearch.core.budget import cost
from allocsearch.core.trial import Assignment, Ended, Failed, Infeasible, Lost, Measured, Outcome, SeedScore, Trial
from allocsearch.search.ledger import Charge, Ledger
from allocsearch.search.proposals import Proposals
from allocsearch.search.register import Register
from allocsearch.spec import Objective, StudySpec

DIRECTIONS: Mapping[Objective, tuple[Direction, ...]] = {
    "pareto": ("maximize", "minimize"),
    "accuracy": ("maximize",),
    "nll": ("minimize",),
}
METRICS: Mapping[Objective, tuple[str, ...]] = {"pareto": ("accuracy", "trainable_params"), "accuracy": ("accuracy",), "nll": ("nll",)}


class OptunaStudy:
    """Asks and tells for one spec on one stored study.

    Opening it puts trials that a dead driver left RUNNING back in line. `ask` and `tell` may be called from any thread.

    Attributes:
        num_trials: finished trials to reach; None for a companion, which runs what is put in line and proposes nothing.
        failure_report: what failed trials share, once there are too many of them since the study was last paused; or what keeps
            machines from running any trial.
        infeasible_report: what infeasible trials share, once there are as many of them and no trial has fitted into memory.
        exhausted: whether a proposal was wanted and every allocation that the targets reach was in the study already.
        register: the trials so far, counted; to be read only.
        ledger: what they have cost, with all that counts together with them; once a limit is reached no further trial begins.
    """

    def __init__(
        self, study: optuna.Study, spec: StudySpec, proposals: Proposals, *, num_trials: int | None, ledger: Ledger | None = None
    ) -> None:
        self.num_trials = num_trials
        self.ledger = ledger or Ledger()
        self.failure_report: str | None = None
        self.infeasible_report: str | None = None
        self.exhausted = False
        self._study, self._spec, self._proposals = study, spec, proposals
        self._storage: BaseStorage = study._storage  # noqa: SLF001 - the public attribute for this was never added
        self._lock = threading.RLock()
        self.register = Register(spec.metric)
        self._hindrances: list[str] = []  # by machines, since the last trial that ran
        self._again: deque[int] = deque()
        self._waiting: deque[int] = deque()
        self._ids: dict[int, int] = {}
        self._artifacts = set(artifacts.linked(study))
        self._base: SeedScore | None = records.base_score(study)
        frozen = study.get_trials(deepcopy=False)
        records.check_ours(study.study_name, map(records.row_of, frozen))
        self._mirror = None if num_trials is None else self._new_mirror(num_trials)
        for trial in frozen:
            self._take_in(trial)
        # A study that too many failures have paused is opened again once their cause is mended: they are not held against it twice.
        self._num_forgiven = self.register.num_failed if self.register.num_failed >= self._max_in_vain else 0

    def ask(self) -> Assignment | None:
        """The next trial to run: one that was left behind, then a warm start, then a new proposal; None when none is wanted now."""
        with self._lock:
            assignment = self._next()
            # Until a trial has brought the frozen base's score, each scores it: nothing can be added to a finished trial.
            return None if assignment is None else replace(assignment, score_base=self._base is None)

    def tell(self, number: int, outcome: Outcome) -> Trial:
        """Record how trial `number` ended; a second word about a finished trial changes nothing."""
        with self._lock:
            trial = self.register[number]
            if trial.outcome is not None:
                return trial
            if isinstance(outcome, Measured) and not outcome.finite:
                reason = "the NLL must be finite on every row, but it is not"
                outcome = Failed(reason, outcome.seconds, outcome.worker, outcome.gpus, outcome.tokens)
            if isinstance(outcome, Lost):
                return trial if number in self._again else self._lose(trial, outcome)  # a loss told twice is one loss
            if number in self._again:  # given up for lost, and yet it ended
                self._again.remove(number)
            return self._end(trial, outcome)

    def trials(self) -> Sequence[Trial]:
        """Every trial so far, by number."""
        with self._lock:
            return self.register.trials

    def enqueue(self, allocation: Allocation, origin: str) -> bool:
        """Put a starting point in line; one that the space cannot express runs as a baseline, outside the sampler's sight.

        Returns whether it is in line: an allocation that the study has already is not trained twice. One over the budget is refused.
        """
        return self.enqueue_assignment(self._draft(allocation), origin)

    def enqueue_assignment(self, draft: Assignment, origin: str) -> bool:
        """`enqueue` with seeds, rungs and a split of its own. The draft's number is not used."""
        with self._lock:
            if self.register.has(draft):
                return False
            point = self._proposals.space.encode(draft.allocation) if self._proposals.space.expresses(draft.allocation) else {}
            number = self._insert(draft, point, origin=origin, state=TrialState.WAITING, share=1.0, notes={})
            self._waiting.append(number)
            return True

    @property
    def artifacts(self) -> frozenset[str]:
        """Names of the weights that are kept."""
        with self._lock:
            return frozenset(self._artifacts)

    def forget_artifact(self, name: str) -> None:
        """These weights are about to be deleted."""
        with self._lock:
            artifacts.unlink(self._study, name)
            self._artifacts.discard(name)

    def is_over(self) -> bool:
        """Whether a limit is reached, and no trial was left behind that must still come to an end."""
        with self._lock:
            return self.ledger.reached is not None and not self._again

    @property
    def num_finished(self) -> int:
        """Trials that count towards the target: measured, stopped at a rung, or infeasible."""
        with self._lock:
            return self.register.num_finished

    def _next(self) -> Assignment | None:
        if len(self._hindrances) >= self._spec.limits.max_attempts:
            self.failure_report = records.common(self._hindrances)
            return None
        if self._again:
            return self._dispatch_again(self._again.popleft())
        if (
            self.ledger.reached
            or self._too_many_failed()
            or self._nothing_fits()
            or (self.num_trials is not None and self._num_open_or_finished >= self.num_trials)
        ):
            return None
        if self._waiting:
            return self._dispatch_waiting(self._waiting.popleft())
        return None if self.num_trials is None else self._propose()

    def _propose(self) -> Assignment | None:
        if self._spec.proposal_batch is not None and len(self.register) % self._spec.proposal_batch == 0 and self.register.num_open:
            return None  # the next batch is proposed from what this one has found
        for aim, point, notes in () if self.exhausted else candidates(self._mirror, self._proposals, len(self.register)):
            allocation = self._proposals.space.decode(point)
            if not self.register.knows(allocation):
                origin = self._spec.sampler if notes is not None else "random"
                share = self._proposals.share(aim)
                draft = self._draft(allocation)
                number = self._insert(draft, point, origin=origin, state=TrialState.RUNNING, share=share, notes=notes or {})
                if self._mirror is not None:
                    self._mirror.start(number, point, notes or {})
                return self.register[number].assignment
        self.exhausted = True  # every allocation that the targets reach is in the study
        return None

    def _dispatch_waiting(self, number: int) -> Assignment:
        trial = self._storage.get_trial(self._ids[number])
        if self._mirror is not None and trial.params:
            _, notes = self._mirror.propose(number)  # a genetic sampler counts generations in its notes
            for key, value in notes.items():
                self._storage.set_trial_system_attr(self._ids[number], key, value)
            self._mirror.start(number, trial.params, notes)
        self._storage.set_trial_state_values(self._ids[number], TrialState.RUNNING)
        return self.register[number].assignment

    def _dispatch_again(self, number: int) -> Assignment:
        trial = replace(self.register[number], attempt=self.register[number].attempt + 1)
        self._storage.set_trial_user_attr(self._ids[number], "attempt", trial.attempt)
        self.register.put(trial)
        return trial.assignment

    def _lose(self, trial: Trial, outcome: Lost) -> Trial:
        if outcome.by_machine:
            self._hindrances.append(outcome.reason)
            self._again.append(trial.number)
            return trial
        losses = 1 + int(self._storage.get_trial(self._ids[trial.number]).user_attrs.get("losses", 0))
        self._storage.set_trial_user_attr(self._ids[trial.number], "losses", losses)
        if losses >= self._spec.limits.max_attempts:
            return self._end(trial, Failed(f"its worker died {losses} times, last: {outcome.reason}"))
        self._again.append(trial.number)
        return trial

    def _end(self, trial: Trial, outcome: Ended) -> Trial:
        self._hindrances.clear()
        if isinstance(outcome, Measured) and outcome.base is not None and self._base is None:
            self._base = outcome.base
            records.store_base_score(self._study, outcome.base)
        self._set_attrs(trial.number, records.outcome_attrs(outcome, trial.cost, self._base))
        if isinstance(outcome, Measured) and outcome.artifact is not None:
            artifacts.link(self._study, outcome.artifact)
            self._artifacts.add(outcome.artifact)
        state, values = self._verdict(trial, outcome)
        notes = records.infeasible_notes(trial.cost) if isinstance(outcome, Infeasible) else {}
        for key, value in notes.items():
            self._storage.set_trial_system_attr(self._ids[trial.number], key, value)
        self._storage.set_trial_state_values(self._ids[trial.number], state, values)
        if self._mirror is not None:
            self._mirror.finish(trial.number, state, values, notes)
        self.ledger.charge(Charge(time.time(), outcome.seconds, outcome.gpus, outcome.tokens))
        ended = replace(trial, outcome=outcome)
        self.register.put(ended)
        return ended

    def _verdict(self, trial: Trial, outcome: Ended) -> tuple[TrialState, list[float] | None]:
        """A stopped trial must carry no values: its score is not comparable with a finished one's. An infeasible one has none."""
        if not isinstance(outcome, Measured):
            return (TrialState.FAIL if isinstance(outcome, Failed) else TrialState.PRUNED), None
        by_name = {"accuracy": outcome.accuracy, "trainable_params": float(trial.cost.trainable), "nll": outcome.nll}
        return TrialState.COMPLETE, [by_name[name] for name in METRICS[self._spec.objective]]

    def _draft(self, allocation: Allocation) -> Assignment:
        proxy = self._spec.proxy
        return Assignment(len(self.register), allocation, self._proposals.space.routing, proxy.seeds, proxy.rungs)

    def _insert(
        self, draft: Assignment, point: Mapping[str, int], *, origin: str, state: TrialState, share: float, notes: Mapping[str, Any]
    ) -> int:
        """One row, complete from its first moment: a crash cannot leave half a trial."""
        total = cost(draft.allocation, self._proposals.space.shape, draft.routing)
        self._proposals.admit(draft.allocation, total)
        template = create_trial(
            state=state,
            params=dict(point),
            distributions={d.name: distribution(d) for d in self._proposals.space.dimensions} if point else {},
            user_attrs=records.start_attrs(draft, total, origin=origin, share=share),
            system_attrs=dict(notes),
        )
        trial_id = self._storage.create_new_trial(self._study._study_id, template_trial=template)  # noqa: SLF001 - see _storage
        frozen = self._storage.get_trial(trial_id)
        self._ids[frozen.number] = trial_id
        self.register.put(records.trial_of(records.row_of(frozen)))
        return frozen.number

    def _take_in(self, frozen: FrozenTrial) -> None:
        self._ids[frozen.number] = frozen._trial_id  # noqa: SLF001 - see _storage
        self.register.put(records.trial_of(records.row_of(frozen)))
        if frozen.state == TrialState.WAITING:
            self._waiting.append(frozen.number)
        elif frozen.state == TrialState.RUNNING:
            self._again.append(frozen.number)
        if self._mirror is not None:
            self._mirror.replay(frozen)

    @property
    def _num_open_or_finished(self) -> int:
        return len(self.register) - len(self._waiting) - self.register.num_failed

    def _too_many_failed(self) -> bool:
        if self.failure_report is None and self.register.num_failed - self._num_forgiven >= self._max_in_vain:
            self.failure_report = records.failure_report(self.register.failed)
        return self.failure_report is not None

    def _nothing_fits(self) -> bool:
        """An infeasible trial tells the sampler something and counts towards the target; but where there is nothing else, why go on?"""
        enough = min(self._max_in_vain, self.num_trials or math.inf)
        if enough <= self.register.num_infeasible == self.register.num_finished:
            self.infeasible_report = records.failure_report(self.register.infeasible)
        return self.infeasible_report is not None

    @property
    def _max_in_vain(self) -> float:
        return max(3, self._spec.limits.max_failed_share * (self.num_trials or len(self.register)))

    def _set_attrs(self, number: int, attrs: Mapping[str, Any]) -> None:
        for key, value in attrs.items():
            self._storage.set_trial_user_attr(self._ids[number], key, value)

    def _new_mirror(self, num_trials: int) -> SamplerMirror | SobolSequence | None:
        spec = self._spec
        return proposer(
            spec.sampler,
            proposals=self._proposals,
            directions=DIRECTIONS[spec.objective],
            num_trials=num_trials,
            seed=spec.seed,
            batch=spec.proposal_batch,
        )
