"""How a trial stands in the database: the user attributes that `optuna.load_study` shows to anyone."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import optuna
from optuna.trial import FrozenTrial

from allocsearch.core import codec
from allocsearch.core.allocation import Allocation
from allocsearch.core.budget import Cost
from allocsearch.core.errors import InputError, shown
from allocsearch.core.origins import is_baseline
from allocsearch.core.trial import Assignment, Ended, Failed, Infeasible, Measured, SeedScore, Stopped, Trial
from allocsearch.search import results
from allocsearch.search.ledger import Charge

_BASE: Final = "frozen_base"
_INFEASIBLE: Final = "infeasible"
_MARKED: Final = "it was marked as failed outside allocsearch"
_MILLION: Final = 10**6
_NUMBER: Final = re.compile(r"0x[0-9a-f]+|\d+")
_PLAIN: Final[Mapping[str, results.State]] = {"COMPLETE": "finished", "FAIL": "failed", "RUNNING": "running", "WAITING": "waiting"}


@dataclass(frozen=True, slots=True)
class Row:
    """A stored trial.

    Attributes:
        trial_id: the storage's own number for it, over all studies.
        attrs: its user attributes, or those of them that were asked for.
        started_at, ended_at: local times; None where it has not.
    """

    trial_id: int
    number: int
    state: results.State
    attrs: Mapping[str, Any]
    started_at: datetime | None
    ended_at: datetime | None

    @property
    def reason(self) -> str:
        """Why it failed or is infeasible."""
        return str(self.attrs[_INFEASIBLE] if self.state == "infeasible" else self.attrs.get("failure", _MARKED))


def row_of(frozen: FrozenTrial) -> Row:
    """A trial that Optuna has read."""
    attrs, trial_id = frozen.user_attrs, frozen._trial_id  # noqa: SLF001 - nothing public gives it
    return Row(trial_id, frozen.number, state_of(frozen.state.name, attrs), attrs, frozen.datetime_start, frozen.datetime_complete)


def state_of(stored: str, attrs: Mapping[str, Any]) -> results.State:
    """The state of a trial with `attrs` that Optuna calls `stored`."""
    return _PLAIN.get(stored) or ("infeasible" if _INFEASIBLE in attrs else "stopped")


def start_attrs(assignment: Assignment, total: Cost, *, origin: str, share: float) -> dict[str, Any]:
    """What is known of a trial before it runs."""
    return {
        "allocation": str(assignment.allocation),
        "routing": codec.routing_to_json(assignment.routing),
        "trainable_params": total.trainable,
        "active_params": total.active,
        "seeds": list(assignment.seeds),
        "split": assignment.split,
        "rungs_planned": list(assignment.rungs),
        "keep_weights": assignment.keep_weights,
        "origin": origin,
        "budget_share": share,
        "attempt": 1,
    }


def outcome_attrs(outcome: Ended, total: Cost, base: SeedScore | None) -> dict[str, Any]:
    """What is known of a trial after it ended."""
    attrs: dict[str, Any] = {"seconds": round(outcome.seconds, 3), "worker": outcome.worker, "gpus": outcome.gpus, "tokens": outcome.tokens}
    if isinstance(outcome, Failed | Infeasible):
        return {**attrs, ("failure" if isinstance(outcome, Failed) else _INFEASIBLE): outcome.reason}
    attrs["rungs"] = codec.rungs_to_json(outcome.rungs)
    if isinstance(outcome, Stopped):
        return attrs
    attrs |= {
        "accuracy": outcome.accuracy,
        "nll": outcome.nll,
        "rows": [codec.score_to_json(score) for score in outcome.scores],
        "artifact": outcome.artifact,
        "statistics": dict(outcome.statistics),
    }
    return attrs | _gain_attrs(outcome, total, base)


def infeasible_notes(total: Cost) -> dict[str, Any]:
    """System attributes of a trial that did not fit into memory: a constraint that it breaks, the more the larger it is.

    Under the name and in the form that Optuna's samplers and its dashboard both read; under `set_constraint`'s the dashboard would
    show it as feasible.
    """
    return {"constraints": [float(max(1, total.trainable))]}


def _gain_attrs(outcome: Measured, total: Cost, base: SeedScore | None) -> dict[str, Any]:
    """Accuracy per million trainable parameters, and the same for the gain over the frozen base, where that is known."""
    if total.trainable == 0:
        return {}
    millions = total.trainable / _MILLION
    attrs = {"accuracy_per_million_params": outcome.accuracy / millions}
    return attrs if base is None else attrs | {"gain_per_million_params": (outcome.accuracy - base.accuracy) / millions}


def check_ours(name: str, rows: Iterable[Row]) -> None:
    """Raise InputError where study `name` has trials of somebody else's."""
    strange = [row.number for row in rows if "trainable_params" not in row.attrs]
    if strange:
        raise InputError(
            f"every trial of study {name!r} must have been made by allocsearch, but these were not: {shown(strange)}; "
            "search under another name"
        )


def trial_of(row: Row) -> Trial:
    """The trial that a row with all of its attributes stands for."""
    attrs = row.attrs
    assignment = Assignment(
        number=row.number,
        allocation=Allocation.parse(attrs["allocation"]),
        routing=codec.routing_from_json(attrs["routing"]),
        seeds=tuple(attrs["seeds"]),
        rungs=tuple(attrs.get("rungs_planned", ())),
        keep_weights=attrs.get("keep_weights", True),
        split=attrs.get("split", "search"),
        params=attrs["trainable_params"],
        stoppable=not is_baseline(attrs["origin"]),  # comparisons need the baselines
    )
    total = Cost(attrs["trainable_params"], attrs["active_params"])
    return Trial(assignment, total, attrs["origin"], attrs["attempt"], attrs.get("budget_share", 1.0), _outcome_of(row))


def base_score(study: optuna.Study) -> SeedScore | None:
    """The frozen base's score, if a trial has measured it."""
    stored = study.user_attrs.get(_BASE)
    return None if stored is None else codec.score_from_json(stored["rows"])


def store_base_score(study: optuna.Study, base: SeedScore) -> None:
    """Keep the frozen base's score with the study."""
    study.set_user_attr(_BASE, {"accuracy": base.accuracy, "nll": base.mean_nll, "rows": codec.score_to_json(base)})


def failure_report(failed: Iterable[Trial]) -> str:
    """What failed or infeasible trials share; see `common`."""
    return common(trial.outcome.reason for trial in failed if isinstance(trial.outcome, Failed | Infeasible))


def common(reasons: Iterable[str]) -> str:
    """The three most common reasons, each with its count. Those that differ only in numbers (steps, seeds, bytes) are one."""
    alike: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for reason in reasons:
        alike[_NUMBER.sub("#", reason)][reason] += 1
    return "; ".join(map(_counted, sorted(alike.values(), key=Counter.total, reverse=True)[:3]))


def _counted(reasons: Counter[str]) -> str:
    [(example, same)] = reasons.most_common(1)
    others = reasons.total() - same
    return f"{reasons.total()} × {example}" + (f" ({others} with other numbers)" if others else "")


def charges_of(rows: Sequence[Row]) -> tuple[Charge, ...]:
    """What the trials that ended have cost."""
    ended = [(row.ended_at, row.attrs) for row in rows if row.ended_at is not None]
    return tuple(Charge(at.timestamp(), own.get("seconds", 0.0), own.get("gpus", 0.0), own.get("tokens", 0)) for at, own in ended)


def wall_seconds(rows: Sequence[Row]) -> float:
    """From the start of the first trial to the last end of one."""
    starts = [row.started_at for row in rows if row.started_at is not None]
    ends = [row.ended_at for row in rows if row.ended_at is not None]
    return (max(ends) - min(starts)).total_seconds() if starts and ends else 0.0


def _outcome_of(row: Row) -> Ended | None:
    attrs = row.attrs
    cost = {key: attrs[key] for key in ("seconds", "worker", "gpus", "tokens") if key in attrs}
    if row.state == "failed":
        return Failed(row.reason, **cost)
    if row.state == "infeasible":
        return Infeasible(row.reason, **cost)
    if row.state == "stopped":
        return Stopped(codec.rungs_from_json(attrs.get("rungs", [])), **{"seconds": 0.0, **cost})
    if row.state != "finished":
        return None
    return Measured(
        scores=tuple(codec.score_from_json(row) for row in attrs["rows"]),
        artifact=attrs.get("artifact"),
        rungs=codec.rungs_from_json(attrs.get("rungs", [])),
        statistics=attrs.get("statistics", {}),
        **{"seconds": 0.0, **cost},
    )
