"""Runs trials one after another in this process: for debugging, and as the reference that other executors are held against."""

from collections.abc import Iterator

from allocsearch.backends.evaluation import limit_threads, outcome_of, reporter
from allocsearch.core.ports import Evaluator, Scheduler, Study
from allocsearch.core.trial import Trial


class InlineExecutor:
    """The Executor port without an engine."""

    def run(self, study: Study, evaluator: Evaluator, *, scheduler: Scheduler | None = None) -> Iterator[Trial]:
        """Ask, evaluate, tell, on one thread like a worker of the local default."""
        import torch  # noqa: PLC0415 - seconds to import

        gpus = float(torch.cuda.is_available())
        limit_threads(1)
        if scheduler is not None:
            scheduler.replay(study.trials())
        while (assignment := study.ask()) is not None:
            yield study.tell(assignment.number, outcome_of(evaluator, assignment, reporter(scheduler, assignment), gpus=gpus))
