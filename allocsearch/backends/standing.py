"""How a study stands, without reading all of it: a few statements, and only the trials that may be the best are read whole."""

import json
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import func

from allocsearch.core.choices import Metric
from allocsearch.core.front import Candidate, pareto_front
from allocsearch.core.trial import Ended, Failed, Infeasible, Stopped, Trial
from allocsearch.search import results
from allocsearch.search.ledger import Charge
from allocsearch.search.results import Point

_TRIALS: Final = sa.table(
    "trials", *(sa.column(name) for name in ("trial_id", "study_id", "number", "state")),
    sa.column("datetime_start", sa.DateTime), sa.column("datetime_complete", sa.DateTime),
)  # fmt: skip
_ATTRS: Final = sa.table("trial_user_attributes", *(sa.column(name) for name in ("trial_id", "key", "value_json")))
_KEYS: Final = ("seconds", "trainable_params", "failure", "infeasible")
_USUAL: Final[Mapping[str, Sequence[str]]] = {"attempt": ("1",), "gpus": ("0", "0.0"), "tokens": ("0",)}
"""What most trials say: left in the database, since reading ten values of each trial takes longer than all else."""
_PLAIN: Final[Mapping[str, results.State]] = {"COMPLETE": "finished", "FAIL": "failed", "RUNNING": "running", "WAITING": "waiting"}


@dataclass(frozen=True, slots=True)
class Standing:
    """Counts per state, worker seconds, the best so far, and what went otherwise.

    Attributes:
        failures, infeasible: numbers of trials, each with its reason.
        stopped_at: trials that were stopped, by the training step of their last rung.
        retried: numbers of trials that were dispatched more than once, each with how often.
    """

    counts: Mapping[results.State, int]
    seconds_spent: float
    wall_seconds: float
    best: Point | None
    failures: Sequence[tuple[int, str]]
    infeasible: Sequence[tuple[int, str]]
    stopped_at: Mapping[int, int]
    retried: Sequence[tuple[int, int]]

    @property
    def num_done(self) -> int:
        """Trials that count towards the target."""
        return self.counts["finished"] + self.counts["stopped"] + self.counts["infeasible"]


@dataclass(frozen=True, slots=True)
class Row:
    """What a stored trial says of itself in short."""

    trial_id: int
    number: int
    state: results.State
    attrs: Mapping[str, Any]
    ended_at: datetime | None = None

    def candidate(self, metric: Metric) -> Candidate:
        """As a point of the front, without an interval."""
        score = self.attrs["accuracy"] if metric == "accuracy" else -self.attrs["nll"]
        return Candidate(self.number, score, self.attrs["trainable_params"], (score, score))


def standing_of(trials: Sequence[Trial], waiting: frozenset[int], *, metric: Metric, wall_seconds: float) -> Standing:
    """Of a study that has been read whole."""
    found = results.progress(trials, waiting, num_trials=len(trials), metric=metric)
    ended = [(trial.number, trial.outcome) for trial in trials if isinstance(trial.outcome, Ended)]
    failures = [(number, outcome.reason) for number, outcome in ended if isinstance(outcome, Failed)]
    infeasible = [(number, outcome.reason) for number, outcome in ended if isinstance(outcome, Infeasible)]
    steps = Counter(outcome.rungs[-1].step for _, outcome in ended if isinstance(outcome, Stopped) and outcome.rungs)
    retried = [(trial.number, trial.attempt) for trial in trials if trial.attempt > 1]
    return Standing(found.counts, found.seconds_spent, wall_seconds, found.best, failures, infeasible, steps, retried)


def summed(rows: Sequence[Row], *, best: Point | None, wall_seconds: float) -> Standing:
    """Of a study's short rows."""
    counts = Counter(row.state for row in rows)
    seconds = sum(float(row.attrs.get("seconds", 0.0)) for row in rows)
    failures = [
        (row.number, row.attrs.get("failure", "it was marked as failed outside allocsearch")) for row in rows if row.state == "failed"
    ]
    infeasible = [(row.number, row.attrs["infeasible"]) for row in rows if row.state == "infeasible"]
    steps = Counter(int(row.attrs["rungs"][-1][1]) for row in rows if row.state == "stopped" and row.attrs.get("rungs"))
    retried = [(row.number, row.attrs["attempt"]) for row in rows if row.attrs.get("attempt", 1) > 1]
    by_state = {state: counts[state] for state in results.STATES}
    return Standing(by_state, seconds, wall_seconds, best, failures, infeasible, steps, retried)


def short_rows(connection: sa.Connection, study_id: int, *also: str) -> list[Row]:
    """All trials of a study, by number, in two statements; `also` names attributes to read besides those that are always needed."""
    mine = _TRIALS.c.study_id == study_id
    attrs: defaultdict[int, dict[str, Any]] = defaultdict(dict)
    joined = sa.select(_ATTRS.c.trial_id, _ATTRS.c.key, _ATTRS.c.value_json).join(_TRIALS, _TRIALS.c.trial_id == _ATTRS.c.trial_id)
    for trial_id, key, value in connection.execute(joined.where(mine, _telling((*_KEYS, *also)))):
        attrs[trial_id][key] = json.loads(value)
    columns = (_TRIALS.c.trial_id, _TRIALS.c.number, _TRIALS.c.state, _TRIALS.c.datetime_complete)
    found = connection.execute(sa.select(*columns).where(mine).order_by(_TRIALS.c.number))
    return [_row(attrs[row.trial_id], *row) for row in found]


def charges_of(rows: Sequence[Row]) -> list[Charge]:
    """What the trials that ended have cost."""
    ended = [(row.ended_at, row.attrs) for row in rows if row.ended_at is not None]
    return [Charge(at.timestamp(), own.get("seconds", 0.0), own.get("gpus", 0.0), own.get("tokens", 0)) for at, own in ended]


def wall_seconds(connection: sa.Connection, study_id: int) -> float:
    """From the start of the first trial to the last end of one."""
    span = sa.select(func.min(_TRIALS.c.datetime_start), func.max(_TRIALS.c.datetime_complete)).where(_TRIALS.c.study_id == study_id)
    start, end = connection.execute(span).one()
    return float((end - start).total_seconds()) if start and end else 0.0


def promising(rows: Sequence[Row], *, replicated: Collection[str], metric: Metric, whole_front: bool = False) -> list[Row]:
    """Those of which one must be the best: all that have replicas, and the first of the others, or with `whole_front` all of their front.

    Replicas change only the scores of what has them, so what another without them beats is beaten in the end, too.
    """
    measured = {row.number: row for row in rows if row.state == "finished"}
    alone = [row.candidate(metric) for row in measured.values() if row.attrs.get("allocation") not in replicated]
    together = [row for row in measured.values() if row.attrs.get("allocation") in replicated]
    leading = pareto_front(alone)
    return together + [measured[each.number] for each in (leading if whole_front else leading[-1:])]


def _telling(keys: Sequence[str]) -> sa.ColumnElement[bool]:
    """Attributes under `keys`, those that are not as usual, and the rungs of stopped trials."""
    stopped = sa.cast(_TRIALS.c.state, sa.String) == "PRUNED"  # PostgreSQL does not compare its own enumeration with a text
    unusual = [sa.and_(_ATTRS.c.key == key, _ATTRS.c.value_json.not_in(usual)) for key, usual in _USUAL.items()]
    return sa.or_(_ATTRS.c.key.in_(keys), *unusual, sa.and_(_ATTRS.c.key == "rungs", stopped))


def _row(attrs: Mapping[str, Any], trial_id: int, number: int, state: object, ended_at: datetime | None) -> Row:
    return Row(trial_id, number, _state(str(state), attrs), attrs, ended_at)


def _state(stored: str, attrs: Mapping[str, Any]) -> results.State:
    return _PLAIN.get(stored) or ("infeasible" if "infeasible" in attrs else "stopped")
