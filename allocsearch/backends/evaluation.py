"""What a worker does with an assignment, whichever executor runs it."""

import socket
import time
from dataclasses import replace
from typing import Final

from allocsearch.core.errors import MachineError, line_of
from allocsearch.core.ports import Evaluator, Referee, Report
from allocsearch.core.trial import Assignment, Failed, Lost, Outcome, RungScore

_MAX_REASON: Final = 500


def outcome_of(evaluator: Evaluator, assignment: Assignment, report: Report, *, gpus: float = 0.0) -> Outcome:
    """The evaluator's outcome, on a worker with `gpus`; whatever it raises is that trial's failure and nobody else's.

    But for what the system refuses (a disk that is full, a network that is gone): no allocation does that, so the trial is to run again.
    """
    started = time.perf_counter()
    try:
        outcome = evaluator(assignment, report)
    except MachineError as error:
        return Lost(line_of(error, limit=_MAX_REASON), by_machine=True)
    except OSError as error:
        return Lost(_named(error, on=f" on {socket.gethostname()}"), by_machine=True)
    except Exception as error:  # noqa: BLE001 - what an allocation breaks is an outcome of its own trial
        outcome = Failed(_named(error), time.perf_counter() - started)
    return outcome if isinstance(outcome, Lost) else replace(outcome, gpus=gpus)


def _named(error: Exception, *, on: str = "") -> str:
    text = f": {error}" if str(error).strip() else ""
    return line_of(f"{type(error).__name__}{on}{text}", limit=_MAX_REASON)


def reporter(referee: Referee | None, assignment: Assignment) -> Report:
    """What an evaluator calls at each rung: the referee hears of every trial and stops those that may be stopped."""

    def report(rung: RungScore) -> bool:
        return referee is None or referee.go_on(assignment.number, rung, params=assignment.params) or not assignment.stoppable

    return report


def limit_threads(threads: int) -> None:
    """What a worker may use of the CPU. Fixed, since sums are rounded differently with other numbers of threads."""
    import torch  # noqa: PLC0415 - imported in the worker, where training needs it anyway

    torch.set_num_threads(threads)
