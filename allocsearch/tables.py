"""Results as grids of text: the cells that the terminal and the report show alike."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from allocsearch.core.budget import short_count
from allocsearch.core.choices import Metric
from allocsearch.core.trial import Failed, Infeasible, Trial
from allocsearch.evidence import Evidence, Row
from allocsearch.search.calibration import Calibration
from allocsearch.search.comparison import Comparison
from allocsearch.search.confirmation import Confirmed
from allocsearch.search.recommendation import UNITS
from allocsearch.search.results import Point

_SEEDS: Final = (1, 2, 3, 5)
_ROWS: Final = (256, 512, 1024, 2048)
_SHORT_UNITS: Final = {"accuracy": (100, "points"), "nll": (1000, "mnat")}
_ALLOCATION: Final = "allocation, bottom to top"

Cell = str | int


@dataclass(frozen=True, slots=True)
class Grid:
    """A table: each row has a cell per heading."""

    title: str
    headings: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


def front(points: Sequence[Point], *, title: str) -> Grid:
    """Measured trials."""
    return Grid(
        title,
        ("trial", "trainable", "active", "accuracy", "95 % rows", "NLL", "origin", _ALLOCATION),
        tuple(
            (
                point.trial.number,
                short_count(point.trial.cost.trainable),
                short_count(point.trial.cost.active),
                f"{point.accuracy:.3f}",
                _between(point.interval),
                f"{point.nll:.3f}",
                point.trial.origin,
                str(point.trial.assignment.allocation),
            )
            for point in points
        ),
    )


def compared(comparisons: Sequence[Comparison], *, metric: Metric) -> Grid:
    """The winner's leads on the search rows: in points of accuracy, or in thousandths of a nat."""
    scale, unit = _SHORT_UNITS[metric]
    return Grid(
        "",
        ("against", "trainable", "accuracy", f"lead, {unit}", "95 % interval", "p", "verdict"),
        tuple(
            (
                c.baseline.trial.origin,
                short_count(c.baseline.trial.cost.trainable),
                f"{c.baseline.accuracy:.3f}",
                *_lead(c, scale),
                c.verdict if c.verdict != "better" else "winner is better" if c.covers_seeds else "winner is better with this seed",
            )
            for c in comparisons
        ),
    )


def confirmed(rows: Sequence[Row], *, title: str) -> Grid:
    """Allocations on the test rows."""
    return Grid(
        title,
        ("which", "trainable", "accuracy", "95 % rows", "NLL", "seeds", "seconds", _ALLOCATION),
        tuple(
            (
                row.label,
                short_count(row.trial.cost.trainable),
                f"{row.accuracy:.3f}",
                _between(row.interval),
                f"{row.nll:.3f}",
                len(row.results.scores),
                f"{row.seconds:.0f}",
                str(row.trial.assignment.allocation),
            )
            for row in rows
        ),
    )


def leads(found: Evidence) -> Grid:
    """The winner's leads on the test rows: in points of accuracy, or in thousandths of a nat."""
    scale, unit = _SHORT_UNITS[found.metric]
    return Grid(
        "",
        ("against", f"lead, {unit}", "95 % interval", "p", "verdict"),
        tuple(
            (
                found.row(c.baseline).label,
                *_lead(c, scale),
                c.verdict if c.verdict == "not distinguishable" else f"winner is {c.verdict}",
            )
            for c in found.comparisons
        ),
    )


def smallest(found: Evidence) -> Grid | None:
    """The candidates for the smallest allocation that is not worse, in the order of their tests; None where none was asked for."""
    if found.smallest is None:
        return None
    scale, unit = _SHORT_UNITS[found.metric]
    return Grid(
        f"not worse than {found.row(found.smallest.reference).label} by more than {scale * found.smallest.margin:g} {unit}",
        ("candidate", "trainable", f"difference, {unit}", "surely above", "p", "passed"),
        tuple(
            (
                found.row(one.number).label,
                short_count(one.params),
                f"{scale * one.difference:+.1f}",
                f"{scale * one.lower:+.1f}",
                f"{one.p_value:.3f}",
                "yes" if one.passed else "no",
            )
            for one in found.smallest.sequence
        ),
    )


def calibrated(found: Calibration, *, metric: Metric, name: str) -> tuple[Grid, Grid, Grid]:
    """Noise, rank agreement with the end, and what seeds and rows can resolve."""
    return _noise(found, metric=metric, name=name), _agreement(found, metric=metric), _resolvable(found, metric=metric)


def _noise(found: Calibration, *, metric: Metric, name: str) -> Grid:
    (scale, unit), signal = UNITS[metric], found.signal(metric)
    kinds = (
        ("seeds of one allocation", signal.seed_sd),
        ("left of it in pairs of common seeds", signal.paired_seed_sd),
        ("between allocations, noise taken off", signal.allocation_sd),
    )
    return Grid(
        f"{name}: {found.num_allocations} allocations × {len(found.seeds)} seeds, {found.num_rows} search rows, {metric}",
        ("noise", unit, "95 % interval"),
        tuple((label, f"{scale * one.value:.2f}", f"[{scale * one.low:.2f}, {scale * one.high:.2f}]") for label, one in kinds),
    )


def _agreement(found: Calibration, *, metric: Metric) -> Grid:
    signal = found.signal(metric)
    with_end = [("another seed's end (the ceiling)", signal.noise_ceiling), ("number of parameters", signal.parameters)]
    with_end += [(f"rung {step} of {found.num_steps} steps", signal.rungs[step]) for step in sorted(signal.rungs)]
    with_end += [(f"score {label}", signal.scores[label]) for label in signal.scores]
    return Grid(
        "rank agreement with the end on other seeds",
        ("of", "Spearman", "95 % interval", "Kendall"),
        tuple(
            (label, f"{one.spearman.value:+.2f}", f"[{one.spearman.low:+.2f}, {one.spearman.high:+.2f}]", f"{one.kendall.value:+.2f}")
            for label, one in with_end
        ),
    )


def _resolvable(found: Calibration, *, metric: Metric) -> Grid:
    scale, unit = UNITS[metric]
    return Grid(
        f"smallest difference that a paired test finds with power 0.8, in {unit}",
        ("seeds", *(f"{rows} rows" for rows in _ROWS)),
        tuple((seeds, *(f"{scale * found.resolvable(seeds, rows, metric=metric):.1f}" for rows in _ROWS)) for seeds in _SEEDS),
    )


def failures(trials: Sequence[Trial]) -> Grid:
    """The trials that failed or did not fit into memory, with the reason."""
    return Grid(
        "",
        ("trial", "origin", "reason", _ALLOCATION),
        tuple(
            (trial.number, trial.origin, trial.outcome.reason, str(trial.assignment.allocation))
            for trial in trials
            if isinstance(trial.outcome, Failed | Infeasible)
        ),
    )


def _between(interval: tuple[float, float]) -> str:
    return f"[{interval[0]:.3f}, {interval[1]:.3f}]"


def _lead(each: Comparison | Confirmed, scale: float) -> tuple[str, str, str]:
    low, high = each.interval
    return f"{scale * each.difference:+.1f}", f"[{scale * low:+.1f}, {scale * high:+.1f}]", f"{each.p_adjusted:.3f}"
