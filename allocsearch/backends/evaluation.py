"""What a worker does with an assignment, whichever executor runs it."""

from typing import Final

from allocsearch.core.ports import Evaluator, Report
from allocsearch.core.trial import Assignment, Failed, Outcome

_MAX_REASON: Final = 500


def outcome_of(evaluator: Evaluator, assignment: Assignment, report: Report) -> Outcome:
    """The evaluator's outcome; whatever it raises is that trial's failure and nobody else's."""
    try:
        return evaluator(assignment, report)
    except Exception as error:  # noqa: BLE001 - what an allocation breaks is an outcome of its own trial
        return Failed(f"{type(error).__name__}: {' '.join(str(error).split())}"[:_MAX_REASON])


def limit_threads(threads: int) -> None:
    """What a worker may use of the CPU. Fixed, since sums are rounded differently with other numbers of threads."""
    import torch  # noqa: PLC0415 - imported in the worker, where training needs it anyway

    torch.set_num_threads(threads)
