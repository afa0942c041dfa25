"""How a study stands, without reading all of it: a few statements, and only the trials that may be the best are read whole."""

import json
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import sqlalchemy as sa

from allocsearch.backends.trial_records import Row, state_of
from allocsearch.core.choices import Metric
from allocsearch.core.front import Candidate, pareto_front
from allocsearch.core.trial import Ended, Failed, Infeasible, Stopped, Trial
from allocsearch.search import results
from allocsearch.search.results import Point

_TRIALS: Final = sa.table(
    "trials", *(sa.column(name) for name in ("trial_id", "study_id", "number", "state")),
    sa.column("datetime_start", sa.DateTime), sa.column("datetime_complete", sa.DateTime),
)  # fmt: skip
_ATTRS: Final = sa.table("trial_user_attributes", *(sa.column(name) for name in ("trial_id", "key", "value_json")))
_READ: Final = sa.select(_ATTRS.c.trial_id, _ATTRS.c.key, _ATTRS.c.value_json)
_KEYS: Final = ("seconds", "trainable_params", "failure", "infeasible")
_USUAL: Final[Mapping[str, Sequence[str]]] = {"attempt": ("1",), "gpus": ("0", "0.0"), "tokens": ("0",)}
"""What most trials say: left in the database, since reading ten values of each trial takes longer than all else."""


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
    failures = [(row.number, row.reason) for row in rows if row.state == "failed"]
    infeasible = [(row.number, row.reason) for row in rows if row.state == "infeasible"]
    steps = Counter(int(row.attrs["rungs"][-1][1]) for row in rows if row.state == "stopped" and row.attrs.get("rungs"))
    retried = [(row.number, row.attrs["attempt"]) for row in rows if row.attrs.get("attempt", 1) > 1]
    by_state = {state: counts[state] for state in results.STATES}
    return Standing(by_state, seconds, wall_seconds, best, failures, infeasible, steps, retried)


def short_rows(engine: sa.Engine, study_id: int, *also: str) -> list[Row]:
    """All trials of a study, by number, in two statements; `also` names attributes to read besides those that are always needed."""
    mine = _TRIALS.c.study_id == study_id
    told = _READ.join(_TRIALS, _TRIALS.c.trial_id == _ATTRS.c.trial_id).where(mine, _telling((*_KEYS, *also)))
    with engine.connect() as connection:
        # In this order: a driver that writes meanwhile ends a trial by its state, when its attributes are there.
        found = connection.execute(sa.select(_TRIALS).where(mine).order_by(_TRIALS.c.number)).all()
        attrs = _by_trial(connection.execute(told))
    return [_row(row, attrs[row.trial_id]) for row in found]


def whole_rows(engine: sa.Engine, rows: Sequence[Row]) -> list[Row]:
    """The same trials, which have ended, with all of their attributes, in one statement."""
    with engine.connect() as connection:
        attrs = _by_trial(connection.execute(_READ.where(_ATTRS.c.trial_id.in_([row.trial_id for row in rows]))))
    return [replace(row, attrs=attrs[row.trial_id]) for row in rows]


def promising(rows: Sequence[Row], *, replicated: Collection[str], metric: Metric, whole_front: bool = False) -> list[Row]:
    """Those of which one must be the best: all that have replicas, and the first of the others, or with `whole_front` all of their front.

    Replicas change only the scores of what has them, so what another without them beats is beaten in the end, too.
    """
    measured = {row.number: row for row in rows if row.state == "finished"}
    alone = [_candidate(row, metric) for row in measured.values() if row.attrs.get("allocation") not in replicated]
    together = [row for row in measured.values() if row.attrs.get("allocation") in replicated]
    leading = pareto_front(alone)
    return together + [measured[each.number] for each in (leading if whole_front else leading[-1:])]


def _telling(keys: Sequence[str]) -> sa.ColumnElement[bool]:
    """Attributes under `keys`, those that are not as usual, and the rungs of stopped trials."""
    stopped = sa.cast(_TRIALS.c.state, sa.String) == "PRUNED"  # PostgreSQL does not compare its own enumeration with a text
    unusual = [sa.and_(_ATTRS.c.key == key, _ATTRS.c.value_json.not_in(usual)) for key, usual in _USUAL.items()]
    return sa.or_(_ATTRS.c.key.in_(keys), *unusual, sa.and_(_ATTRS.c.key == "rungs", stopped))


def _by_trial(found: Iterable[Any]) -> defaultdict[int, dict[str, Any]]:
    attrs: defaultdict[int, dict[str, Any]] = defaultdict(dict)
    for trial_id, key, value in found:
        attrs[trial_id][key] = json.loads(value)
    return attrs


def _row(found: sa.Row[Any], attrs: Mapping[str, Any]) -> Row:
    return Row(found.trial_id, found.number, state_of(str(found.state), attrs), attrs, found.datetime_start, found.datetime_complete)


def _candidate(row: Row, metric: Metric) -> Candidate:
    """A point of the front, without an interval."""
    score = row.attrs["accuracy"] if metric == "accuracy" else -row.attrs["nll"]
    return Candidate(row.number, score, row.attrs["trainable_params"], (score, score))
