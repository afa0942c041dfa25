"""What to do with a calibration: proxy length, rung ladder, seeds and rows; and a warning where a plan asks for more than it can see."""

from dataclasses import asdict, dataclass
from typing import Any, Final

from allocsearch.core.choices import Metric
from allocsearch.search.calibration import Calibration
from allocsearch.search.signal import Signal

POINT: Final = 0.01
WEAK, STRONG = 0.2, 0.6
CEILING_TOLERANCE: Final = 0.05
_SPACING: Final = 2
_MAX_SEEDS: Final = 8
UNITS: Final = {"accuracy": (100, "points of accuracy"), "nll": (1000, "mnat of NLL")}


@dataclass(frozen=True, slots=True)
class Plan:
    """What a study is about to do, and the `difference` that it hopes to see (a share of accuracy, or nats)."""

    num_seeds: int
    num_rows: int
    rungs: tuple[int, ...] = ()
    metric: Metric = "accuracy"
    difference: float = POINT


@dataclass(frozen=True, slots=True)
class Recommendation:
    """What the calibration speaks for.

    Attributes:
        first_informative: the first rung that is worth stopping trials at; None where none is.
        rungs: a ladder of measured rungs from there, each at least twice the one before.
        num_steps: of the proxy: where the ranks first agree with the end as well as another seed's end does.
        long_enough: whether that is before the proxy's end. Otherwise ranks still change when it ends: make it longer.
        num_seeds: with `num_rows` the cheapest split that resolves `difference`; both None where eight seeds do not.
        num_rows: of the search split.
        difference: wanted, as a share of accuracy or in nats.
    """

    metric: Metric
    first_informative: int | None
    rungs: tuple[int, ...]
    num_steps: int
    long_enough: bool
    num_seeds: int | None
    num_rows: int | None
    difference: float

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {**asdict(self), "rungs": list(self.rungs)}


def recommend(
    calibration: Calibration, *, metric: Metric = "accuracy", difference: float = POINT, rows_per_training: float = 1000.0
) -> Recommendation:
    """From the metric's signal.

    Args:
        calibration: measured.
        metric: by which trials will be ranked.
        difference: to be resolved, as a share of accuracy or in nats.
        rows_per_training: rows whose scoring takes as long as one training; it trades seeds for rows.
    """
    signal = calibration.signal(metric)
    first = first_informative(signal)
    reached = [step for step in sorted(signal.rungs) if _reaches_the_ceiling(signal, step)]
    num_steps = reached[0] if reached else calibration.num_steps
    num_seeds, num_rows = _cheapest(calibration, metric=metric, difference=difference, rows_per_training=rows_per_training)
    ladder = () if first is None else _ladder(signal, first=first, before=num_steps)
    return Recommendation(metric, first, ladder, num_steps, bool(reached), num_seeds, num_rows, difference)


def first_informative(signal: Signal) -> int | None:
    """The first rung from which on every rung's correlation with the end is surely above what is known without training.

    "Surely": the lower bound of Spearman's interval. "What is known": the parameter count's correlation, which costs nothing, held
    between 0.2 (a rung that says less is not worth stopping for, however little parameters say) and 0.6 (a rung that says that much
    is, however much they say).
    """
    threshold = min(STRONG, max(WEAK, signal.parameters.spearman.value))
    found = None
    for step in sorted(signal.rungs, reverse=True):
        if signal.rungs[step].spearman.low <= threshold:
            break
        found = step
    return found


def warning(plan: Plan, calibration: Calibration) -> str | None:
    """One line where the plan cannot resolve what it looks for, or would stop trials before they tell anything; else None."""
    return "; ".join(filter(None, (_blind(plan, calibration), _hasty(plan, calibration)))) or None


def _blind(plan: Plan, calibration: Calibration) -> str | None:
    seen = calibration.resolvable(plan.num_seeds, plan.num_rows, metric=plan.metric)
    if seen <= plan.difference:
        return None
    scale, unit = UNITS[plan.metric]
    rows = calibration.rows_needed(plan.difference, max(2, plan.num_seeds), metric=plan.metric)
    seeds = calibration.seeds_needed(plan.difference, plan.num_rows, metric=plan.metric)
    ways = [f"{rows} rows with {max(2, plan.num_seeds)} seeds"] if rows else []
    ways += [f"{seeds} seeds on {plan.num_rows} rows"] if seeds else []
    remedy = f"it would take {' or '.join(ways)}" if ways else "it would take more seeds and more rows"
    noun = "seed" if plan.num_seeds == 1 else "seeds"
    return (
        f"{plan.num_seeds} {noun} on {plan.num_rows} rows resolve {scale * seen:.1f} {unit}, not the {scale * plan.difference:.1f} "
        f"that are looked for: {remedy}"
    )


def _hasty(plan: Plan, calibration: Calibration) -> str | None:
    first = first_informative(calibration.signal(plan.metric))
    early = [step for step in plan.rungs if step < calibration.num_steps and (first is None or step < first)]
    if not early:
        return None
    known = f"the first one that does is {first}" if first is not None else "none does"
    return f"rung {early[0]} does not yet tell how trials will end ({known})"


def _reaches_the_ceiling(signal: Signal, step: int) -> bool:
    return signal.rungs[step].spearman.value >= signal.noise_ceiling.spearman.value - CEILING_TOLERANCE


def _ladder(signal: Signal, *, first: int, before: int) -> tuple[int, ...]:
    ladder = [first] if first < before else []
    for step in sorted(signal.rungs):
        if ladder and _SPACING * ladder[-1] <= step < before:
            ladder.append(step)
    return tuple(ladder)


def _cheapest(
    calibration: Calibration, *, metric: Metric, difference: float, rows_per_training: float
) -> tuple[int, int] | tuple[None, None]:
    """Two seeds or more, as one seed cannot show its own noise."""
    ways = []
    for num_seeds in range(2, _MAX_SEEDS + 1):
        num_rows = calibration.rows_needed(difference, num_seeds, metric=metric)
        if num_rows is not None:
            ways.append((num_seeds * (rows_per_training + num_rows), num_seeds, num_rows))
    return min(ways)[1:] if ways else (None, None)
