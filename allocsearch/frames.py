"""A study as pandas frames, with what `--json` prints as columns; an interval is two of them, `low` and `high`.

Accuracies and leads in accuracy are shares, NLL is in nats per row, seconds are of worker time.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from allocsearch.backends.study_record import StudyRecord
from allocsearch.evidence import Evidence, evidence_json
from allocsearch.logs import trial_fields
from allocsearch.search import results
from allocsearch.views import point_json

if TYPE_CHECKING:  # half a second to import
    import pandas as pd

_SCORE: Final = ("trainable", "active", "accuracy", "low", "high", "nll")
_FRONT: Final = ("trial", *_SCORE, "rows", "seeds", "seconds", "origin", "allocation")
_TRIALS: Final = ("trial", "state", "on_front", *_SCORE, "seconds", "step", "reason", "worker", "attempt", "origin", "allocation")
_CONFIRMED: Final = ("label", "trial", *_SCORE, "accuracy_by_seed", "rows", "seconds", "is_baseline", "origin", "allocation")
_LEADS: Final = ("against", "difference", "low", "high", "p_value", "p_adjusted", "verdict", "seeds", "rows", "covers_seeds")


def trials(record: StudyRecord) -> "pd.DataFrame":
    """Every trial, whatever became of it."""
    measured = {point.trial.number: _flat(point_json(point)) for point in results.points(record.trials)}
    front = {point.trial.number for point in results.pareto(record.trials, record.spec.metric)}
    rows = []
    for trial in record.trials:
        state = {"state": "waiting"} if trial.number in record.waiting else {}
        row = {**trial_fields(trial), **measured.get(trial.number, {}), **state}
        rows.append({**row, "on_front": trial.number in front})
    return _frame(rows, _TRIALS)


def front(record: StudyRecord) -> "pd.DataFrame":
    """The Pareto front of accuracy against trainable parameters on the search rows, smallest first."""
    return _frame([_flat(point_json(point)) for point in results.pareto(record.trials, record.spec.metric)], _FRONT)


def confirmed(record: StudyRecord, found: Evidence | None) -> "pd.DataFrame":
    """What was trained anew and scored on the test rows, the winner first; no rows where nothing was."""
    rows = [] if found is None else evidence_json(record, found)["confirmed"]
    return _frame([_flat(row) for row in rows], _CONFIRMED)


def leads(record: StudyRecord, found: Evidence | None) -> "pd.DataFrame":
    """The winner's leads on the test rows, paired, in the evidence's metric; no rows where nothing was confirmed."""
    rows = [] if found is None else evidence_json(record, found)["comparisons"]
    return _frame([{**_flat(row), "against": row["baseline"]["label"]} for row in rows], _LEADS)


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    low, high = row["interval"]
    return {**row, "low": low, "high": high}


def _frame(rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> "pd.DataFrame":
    import pandas as pd  # noqa: PLC0415 - half a second

    return pd.DataFrame(rows, columns=list(columns))
