"""One driver's work on one study: its search, and what follows it."""

from collections.abc import Iterator
from typing import Final

from allocsearch.backends.catalog import Catalog
from allocsearch.backends.optuna_study import OptunaStudy
from allocsearch.backends.storage import written
from allocsearch.backends.study_record import StudyRecord
from allocsearch.beside import MADE_WITH, Beside, StageTrial
from allocsearch.board import Board
from allocsearch.core.allocation import Allocation
from allocsearch.core.choices import Metric
from allocsearch.core.errors import InfeasibleError
from allocsearch.core.trial import Measured, Trial
from allocsearch.options import Options
from allocsearch.planning import Plan
from allocsearch.scores.starts import ScoredStart
from allocsearch.search import results
from allocsearch.search.register import Register
from allocsearch.search.schedule import halving
from allocsearch.search.transfer import Transferred
from allocsearch.spec import ConfirmationSpec
from allocsearch.stages import Stages
from allocsearch.training.finetune import ProxyEvaluator
from allocsearch.workplace import LimitReachedError, Say, TooManyFailuresError, executor_of

SCORED: Final = "scored_starts"
TRANSFERRED: Final = "transferred_starts"
"""The attributes of a study that hold what was found before it began."""


class Run:
    """One driver on one study: iterating runs trials and yields each as it ends.

    Attributes:
        name: the study's.
        record: the study as it stood when the run began.
        metric: what its trials are ranked by.
    """

    def __init__(
        self,
        catalog: Catalog,
        record: StudyRecord,
        plan_: Plan,
        *,
        evaluator: ProxyEvaluator,
        options: Options,
        say: Say,
        confirmation: ConfirmationSpec | None = None,
    ) -> None:
        self.name, self.record, self.plan = record.name, record, plan_
        self.metric: Metric = record.spec.metric
        self.pace = results.Pace()
        self._evaluator, self._options, self._say = evaluator, options, say
        made_with = {key: record.attrs[key] for key in MADE_WITH if key in record.attrs}
        self._ledger = record.ledger
        self._stages = Stages(Beside(catalog, plan_, record.name, evaluator, options, say, made_with, self._ledger))
        self._url = catalog.url
        self._board = Board(catalog, record.name, say)
        self._confirmation = confirmation or record.confirmation
        self._study: OptunaStudy = catalog.open(record.name, record.spec, plan_.proposals, self._ledger)

    @property
    def trials(self) -> tuple[Trial, ...]:
        """Every trial so far, by number."""
        return tuple(self._study.trials())

    @property
    def register(self) -> Register:
        """The trials so far, counted."""
        return self._study.register

    def __iter__(self) -> Iterator[Trial]:
        """Run until the target is reached.

        Raises:
            TooManyFailuresError: where the share of failed trials passes the spec's limit, or no machine can run any. Everything is kept.
            InfeasibleError: where no allocation fits into memory.
            InputError: where the database no longer takes what is written.
        """
        with written(self._url):
            yield from self._search()

    def _search(self) -> Iterator[Trial]:
        if self.record.num_missing == 0:
            return  # no engine is started for nothing
        for name, allocation in self._starts()[: self.plan.spec.trials]:
            self._study.enqueue(allocation, name)  # those that the study has already are passed over
        self.pace = results.Pace()
        self._board.draw()
        if self._study.is_over():
            self._say_limit()
            return
        executor = executor_of(self.plan, self.record.num_missing, self._options, self._say)
        for trial in executor.run(self._study, self._evaluator, scheduler=halving(self.plan.spec)):
            if trial.outcome is not None:
                self.pace.count()
            self._evaluator.forget(trial)
            if isinstance(trial.outcome, Measured):
                self._keep_the_fronts_weights()
            self._board.refresh()
            yield trial
        self._board.draw()
        self._conclude()

    def _conclude(self) -> None:
        """Says or raises why the search ended before its target, where it did."""
        if self._study.is_over() and self._study.num_finished < self.record.num_trials:
            self._say_limit()
        elif self._study.exhausted:
            self._say(
                f"the space has no further allocation at these targets: {self._study.num_finished} of {self._study.num_trials} trials"
            )
        if self._study.failure_report is not None:
            raise TooManyFailuresError(self._study.failure_report)
        if self._study.infeasible_report is not None:
            raise InfeasibleError(
                f"at least one allocation must fit into memory, but none has: {self._study.infeasible_report}: start a new study with a "
                "smaller budget, model or `proxy.max_tokens`, or on a device with more memory"
            )

    def _starts(self) -> list[tuple[str, Allocation]]:
        """Published patterns, then what an earlier study found, then scored allocations; the last two as computed at the beginning."""
        attrs = self.record.attrs
        published = [(start.name, start.allocation) for start in self.plan.starts]
        earlier = [(start.name, start.allocation) for start in map(Transferred.from_json, attrs.get(TRANSFERRED, []))]
        scores = map(ScoredStart.from_json, attrs.get(SCORED, []))
        return published + earlier + [(score.name, score.allocation) for score in scores if score.allocation is not None]

    def follow_up(self) -> Iterator[StageTrial]:
        """What follows the search: replication, then confirmation; see `Stages`. Nothing follows one that a limit has cut short."""
        if self._study.is_over() and self._study.num_finished < self.record.num_trials:
            return
        with written(self._url):
            try:
                for staged in self._stages.follow_up(self.record.spec.replication, self._confirmation):
                    self._board.refresh()
                    yield staged
            except LimitReachedError:
                self._say_limit()
            self._board.draw()

    def _say_limit(self) -> None:
        done = f"{self._study.num_finished} of {self.record.num_trials} trials"
        name = str(self._ledger.reached)
        self._say(
            f"the study ends here with {done}, since `limits.{name}` of {getattr(self._ledger.limits, name):,} is reached; "
            f"to go on, give more: {self._options.command('resume', self.name)} --{name.replace('_', '-')} …"
        )

    def _keep_the_fronts_weights(self) -> None:
        """Adapters off the front are deleted: thousands of trials would fill a disk."""
        front = {trial.outcome.artifact for trial in self._study.register.front if isinstance(trial.outcome, Measured)}
        for name in self._study.artifacts - front:
            self._study.forget_artifact(name)
            self._evaluator.discard(name)
