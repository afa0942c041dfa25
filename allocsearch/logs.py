"""What a command says while it works, on stderr: lines for people, or with `ALLOCSEARCH_LOG=json` one JSON object a line for machines.

Every object has `time` (UTC, ISO 8601), `level` and `event`; `note` and `error` have a `message`. A `trial` says which trial of which study
ended how, and on which worker.
"""

import math
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, Literal

from allocsearch.core.errors import InputError
from allocsearch.core.trial import Failed, Infeasible, Lost, Measured, Stopped, Trial

Level = Literal["info", "error"]

_FORMS: Final = ("text", "json")


def check() -> None:
    """Raise InputError where `ALLOCSEARCH_LOG` is neither `text` nor `json`."""
    wanted = os.environ.get("ALLOCSEARCH_LOG") or "text"
    if wanted not in _FORMS:
        raise InputError(f"ALLOCSEARCH_LOG must be `text` or `json`, but it is {wanted!r}")


def as_json() -> bool:
    """Whether machines read along."""
    return os.environ.get("ALLOCSEARCH_LOG") == "json"


@contextmanager
def about(**fields: str) -> Iterator[None]:
    """Puts `fields` into every object that is logged within."""
    if not as_json():
        yield
        return
    from structlog.contextvars import bound_contextvars  # noqa: PLC0415 - not needed for lines

    with bound_contextvars(**fields):
        yield


def log(event: str, *, level: Level = "info", **fields: Any) -> None:
    """One object on stderr, at once."""
    import structlog  # noqa: PLC0415 - not needed for lines

    logger = structlog.wrap_logger(
        structlog.PrintLogger(sys.stderr),
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
            structlog.processors.JSONRenderer(ensure_ascii=False, allow_nan=False),
        ],
    )
    getattr(logger, level)(event, **{key: _finite(value) for key, value in fields.items()})


def note(line: str) -> None:
    """A line of progress on stderr, or its object."""
    if as_json():
        log("note", message=line)
    else:
        print(line, file=sys.stderr, flush=True)  # noqa: T201 - progress


def log_trial(trial: Trial, *, stage: str, done: int, total: int) -> None:
    """One trial of a study's `stage`, `search` or what follows it, that has ended or has lost its worker and runs again."""
    lost = {"state": "lost"} if trial.outcome is None else {}
    log("trial", stage=stage, **{**trial_fields(trial), **lost}, done=done, total=total)


def trial_fields(trial: Trial) -> dict[str, Any]:
    """A trial as flat JSON values; `worker` is host/process."""
    return {
        "trial": trial.number,
        **_outcome_fields(trial),
        "attempt": trial.attempt,
        "origin": trial.origin,
        "trainable": trial.cost.trainable,
        "active": trial.cost.active,
        "allocation": str(trial.assignment.allocation),
    }


def _outcome_fields(trial: Trial) -> dict[str, Any]:
    match trial.outcome:
        case Measured() as measured:
            found = {"accuracy": measured.accuracy, "nll": measured.nll}
            return {"state": "finished", "worker": measured.worker, "seconds": measured.seconds, **found}
        case Stopped() as stopped:
            found = {"step": stopped.rungs[-1].step, "accuracy": stopped.rungs[-1].accuracy} if stopped.rungs else {}
            return {"state": "stopped", "worker": stopped.worker, "seconds": stopped.seconds, **found}
        case Failed() | Infeasible() as vain:
            state = "failed" if isinstance(vain, Failed) else "infeasible"
            return {"state": state, "worker": vain.worker, "seconds": vain.seconds, "reason": vain.reason}
        case Lost() as lost:
            return {"state": "lost", "reason": lost.reason}
        case None:
            return {"state": "running"}


def _finite(value: Any) -> Any:
    """JSON knows no NaN and no infinity."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
