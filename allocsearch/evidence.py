"""What the test rows say of a study's allocations: its finalists and baselines, trained anew, and those of other studies beside them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from allocsearch.backends.catalog import Catalog
from allocsearch.backends.study_record import StudyRecord
from allocsearch.core.allocation import Allocation
from allocsearch.core.choices import Metric
from allocsearch.core.errors import InputError
from allocsearch.core.front import wilson_interval
from allocsearch.core.geometry import Routing
from allocsearch.core.origins import is_baseline
from allocsearch.core.trial import Trial
from allocsearch.search import results
from allocsearch.search.calibration import Calibration
from allocsearch.search.confirmation import Confirmed, confirm
from allocsearch.search.finalists import finalists
from allocsearch.search.margins import Smallest, smallest_not_worse
from allocsearch.search.replicates import Replicated, replicated
from allocsearch.search.variance_components import Components
from allocsearch.spec import StudySpec

_SAME: Final = ("task_digest", "model_digest")

RESULT: Final = "calibration"
"""Where a calibration keeps what it measured, among the attributes of its companion study."""


@dataclass(frozen=True, slots=True)
class Row:
    """One allocation on the test rows.

    Attributes:
        label: `uniform`, `mola-8642`, `random, best of 8`, or `trial 12 (tpe)`; with its study's name where that is another one.
        trial: one of its trials on the test rows.
        results: of all its seeds.
        searched: its trial number in the search; None for the best of the random allocations.
        is_baseline: whether nobody searched for it.
        seconds: of training and scoring, the mean over its seeds.
    """

    label: str
    trial: Trial
    results: Replicated
    searched: int | None
    is_baseline: bool
    seconds: float

    @property
    def accuracy(self) -> float:
        """Mean over seeds."""
        return sum(score.accuracy for score in self.results.scores) / len(self.results.scores)

    @property
    def nll(self) -> float:
        """Mean over seeds, in nats."""
        return sum(score.mean_nll for score in self.results.scores) / len(self.results.scores)

    @property
    def interval(self) -> tuple[float, float]:
        """95 % Wilson over the test rows, of the mean over seeds; it does not cover the seeds' noise."""
        return wilson_interval(self.accuracy, len(self.results.scores[0].correct))


@dataclass(frozen=True, slots=True)
class Evidence:
    """A winner that was named on the search rows, against all others on the test rows.

    Attributes:
        rows: everything that was confirmed, the winner first.
        comparisons: of the winner with each baseline and each other study's winner, by `Row.results.number`.
        smallest: the smallest allocation that is not worse than the winner by more than a margin, where one was asked for and the
            search's front has a smaller one that was confirmed. What another trial beat on the search rows is not asked about: it would
            stand in the way of smaller ones.
    """

    winner: Row
    rows: tuple[Row, ...]
    comparisons: tuple[Confirmed, ...]
    metric: Metric
    smallest: Smallest | None = None

    def row(self, number: int) -> Row:
        """By `Row.results.number`."""
        return next(row for row in self.rows if row.results.number == number)


def evidence(
    catalog: Catalog,
    record: StudyRecord,
    *,
    trial: int,
    metric: Metric = "accuracy",
    margin: float | None = None,
    against: Sequence[str] = (),
    noise: Components | None = None,
) -> Evidence | None:
    """What the test rows say of one trial of a study; None where it was not confirmed.

    Args:
        catalog: where its companions are.
        record: the study.
        trial: the winner's number, as named on the search rows.
        metric: what differences and the margin are measured in.
        margin: in shares of accuracy, or in nats.
        against: other studies whose winners stand beside the baselines.
        noise: of the proxy, from a calibration; it says what margin can be resolved better than the few confirmed allocations do.

    Raises:
        InputError: where another study has other data, another model, or nothing that was confirmed.
    """
    rows = _rows(catalog, record)
    winner = next((row for row in rows if row.searched == trial), None)
    if winner is None:
        return None
    baselines = [row for row in rows if row.is_baseline and row is not winner]
    for place, name in enumerate(against, start=1):
        baselines.append(_winner_of(catalog, name, record, shift=place * 1_000_000))
    found = confirm([winner.results], [row.results for row in baselines], metric=metric) if baselines else []
    others = [row for row in rows if row is not winner]
    everyone = (winner, *others, *(row for row in baselines if row not in rows))
    front = {point.trial.number for point in results.pareto(record.trials, record.spec.metric)}
    smaller = [row.results for row in others if row.searched in front and row.results.params < winner.results.params]
    answer = smallest_not_worse(winner.results, smaller, margin, metric=metric, noise=noise) if margin is not None and smaller else None
    return Evidence(winner, everyone, tuple(found), metric, answer)


def _rows(catalog: Catalog, record: StudyRecord) -> list[Row]:
    beside = catalog.companion(record.name, "confirmation")
    points = [] if beside is None else results.points(beside.trials)
    by_work: dict[tuple[Allocation, Routing], list[results.Point]] = {}
    for point in points:
        by_work.setdefault((point.trial.assignment.allocation, point.trial.assignment.routing), []).append(point)
    numbers = {trial.assignment.allocation: trial.number for trial in record.trials}
    named = {point.trial.number for point in finalists(record.trials, max(1, record.confirmation.candidates), record.spec.metric)}
    random = catalog.companion(record.name, "random")
    num_random = 0 if random is None else len(results.points(random.trials))
    rows = []
    for (allocation, _), group in by_work.items():
        trial, number = group[0].trial, numbers.get(allocation)
        label = trial.origin if is_baseline(trial.origin) else f"trial {number} ({trial.origin})"
        baseline = is_baseline(trial.origin) or number not in named
        if number is None:
            label = f"random, best of {num_random}"
        seconds = sum(point.measured.seconds for point in group) / len(group)
        rows.append(Row(label, trial, replicated(group)[0], number, baseline, seconds))
    return rows


def _winner_of(catalog: Catalog, name: str, here: StudyRecord, *, shift: int) -> Row:
    """Another study's winner, under a number that no trial here has."""
    other = catalog.record(name)
    differing = [key for key in _SAME if other.attrs.get(key) != here.attrs.get(key)]
    if differing:
        raise InputError(f"studies must share model and data to be compared, but {name!r} differs in {', '.join(differing)}")
    found = evidence(catalog, other, trial=results.picked(other.trials, "best", other.spec.metric).trial.number)
    if found is None:
        raise InputError(f"a study to compare with must have been confirmed, but {name!r} has not: {catalog.command('confirm', name)}")
    row = found.winner
    own = Replicated(row.results.number + shift, row.results.params, row.results.scores)
    return Row(f"{name}: {row.label}", row.trial, own, None, is_baseline=True, seconds=row.seconds)


def evidence_json(record: StudyRecord, found: Evidence) -> dict[str, Any]:
    """As one JSON document."""
    return {
        "study": record.name,
        "split": "test",
        "metric": found.metric,
        "winner": _row_json(found.winner),
        "confirmed": [_row_json(row) for row in found.rows],
        "comparisons": [_comparison_json(found, each) for each in found.comparisons],
        "smallest": None if found.smallest is None else _smallest_json(found, found.smallest),
    }


def _row_json(row: Row) -> dict[str, Any]:
    return {
        "label": row.label,
        "trial": row.searched,
        "origin": row.trial.origin,
        "allocation": str(row.trial.assignment.allocation),
        "trainable": row.trial.cost.trainable,
        "active": row.trial.cost.active,
        "accuracy": row.accuracy,
        "interval": list(row.interval),
        "nll": row.nll,
        "accuracy_by_seed": {str(score.seed): score.accuracy for score in row.results.scores},
        "rows": len(row.results.scores[0].correct),
        "seconds": row.seconds,
        "is_baseline": row.is_baseline,
    }


def _comparison_json(found: Evidence, each: Confirmed) -> dict[str, Any]:
    return {
        "baseline": _row_json(found.row(each.baseline)),
        "difference": each.difference,
        "interval": list(each.interval),
        "p_value": each.p_value,
        "p_adjusted": each.p_adjusted,
        "verdict": each.verdict,
        "seeds": list(each.seeds),
        "rows": each.num_rows,
        "covers_seeds": each.covers_seeds,
    }


def _smallest_json(found: Evidence, answer: Smallest) -> dict[str, Any]:
    return {
        "margin": answer.margin,
        "reference": _row_json(found.row(answer.reference)),
        "allocation": None if answer.number is None else _row_json(found.row(answer.number)),
        "sequence": [
            {"label": found.row(one.number).label, "trainable": one.params, "difference": one.difference, "lower": one.lower,
             "p_value": one.p_value, "passed": one.passed}
            for one in answer.sequence
        ],
        "resolvable": answer.resolvable,
        "remark": answer.remark,
    }  # fmt: skip


def calibration_of(catalog: Catalog, spec: StudySpec) -> Calibration | None:
    """What was measured of this spec's proxy; None where nothing was, or of another model, task or training."""
    beside = catalog.companion(spec.name, "calibration")
    if beside is None or RESULT not in beside.attrs or _training(beside.spec) != _training(spec):
        return None
    return Calibration.from_json(beside.attrs[RESULT])


def _training(spec: StudySpec) -> dict[str, Any]:
    """All of a spec that noise depends on; rows and seeds are what a calibration is asked about."""
    asked = {"seeds", "rungs", "search_rows", "test_rows", "router_statistics"}
    return {**spec.model_dump(mode="json", include={"model", "revision", "task", "routing"}), **spec.proxy.model_dump(exclude=asked)}
