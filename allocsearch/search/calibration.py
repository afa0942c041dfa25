"""What a study's proxy can resolve, measured on a table of replicated trainings.

A handful of allocations are trained with the same seeds and scored on the same rows; `signal` says what is read off them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, get_args

from allocsearch.core.choices import Metric
from allocsearch.core.errors import InputError
from allocsearch.search import resolution
from allocsearch.search.replicates import Replicated, common_seeds, table
from allocsearch.search.resolution import STANDARD, Design
from allocsearch.search.signal import Signal, measure, signal_from_json

_MIN_ALLOCATIONS: Final = 4


@dataclass(frozen=True, slots=True)
class Calibration:
    """What `calibrate` found, with the table's extent; `num_steps` is the full proxy's training steps."""

    num_allocations: int
    seeds: tuple[int, ...]
    num_rows: int
    num_steps: int
    accuracy: Signal
    nll: Signal

    def signal(self, metric: Metric) -> Signal:
        """Of one metric."""
        return self.accuracy if metric == "accuracy" else self.nll

    def resolvable(self, num_seeds: int, num_rows: int, *, metric: Metric = "accuracy", design: Design = STANDARD) -> float:
        """The smallest true difference that a paired test finds, as a share of accuracy or in nats; see `resolution`."""
        return resolution.resolvable(self.signal(metric).variances, num_seeds=num_seeds, num_rows=num_rows, design=design)

    def rows_needed(self, difference: float, num_seeds: int, *, metric: Metric = "accuracy", design: Design = STANDARD) -> int | None:
        """The fewest rows that resolve `difference`; None where no number of rows does."""
        return resolution.rows_needed(self.signal(metric).variances, difference, num_seeds=num_seeds, design=design)

    def seeds_needed(self, difference: float, num_rows: int, *, metric: Metric = "accuracy", design: Design = STANDARD) -> int | None:
        """The fewest seeds, two or more, that resolve `difference`; None where fifty do not."""
        return resolution.seeds_needed(self.signal(metric).variances, difference, num_rows=num_rows, design=design)

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        data = asdict(self)
        return {**data, "seeds": list(self.seeds)} | {
            metric: {**data[metric], "rungs": {str(step): found for step, found in data[metric]["rungs"].items()}}
            for metric in ("accuracy", "nll")
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Calibration":
        """Read what `to_json` wrote."""
        signals = {metric: signal_from_json(data[metric]) for metric in ("accuracy", "nll")}
        return cls(**{**data, **signals, "seeds": tuple(data["seeds"])})


def calibrate(
    allocations: Sequence[Replicated], *, num_steps: int, scores: Mapping[str, Sequence[float]] | None = None, seed: int = 0
) -> Calibration:
    """Measure noise and rank agreement.

    Args:
        allocations: four or more, with two or more seeds in common, on the same rows. Rungs that some lack are left out.
        num_steps: training steps of the full proxy; rungs at or beyond it are its end.
        scores: training-free scores by name, one value per allocation, larger for "better".
        seed: of the resampling.

    Raises:
        InputError: where the table is too small, or rows or scores do not match.
    """
    seeds = common_seeds([one.seeds for one in allocations]) if allocations else ()
    if len(allocations) < _MIN_ALLOCATIONS or len(seeds) < 2:  # noqa: PLR2004 - noise takes two
        raise InputError(
            f"calibration needs {_MIN_ALLOCATIONS} allocations and 2 common seeds, but has {len(allocations)} and {len(seeds)}: train more"
        )
    for name, values in (scores or {}).items():
        if len(values) != len(allocations):
            raise InputError(f"score {name!r} must have one value per allocation, but has {len(values)} for {len(allocations)}")
    metrics: tuple[Metric, ...] = get_args(Metric)
    tables = {metric: table([one.scores for one in allocations], seeds, metric) for metric in metrics}
    found = {m: measure(allocations, seeds, tables[m], metric=m, num_steps=num_steps, scores=scores or {}, seed=seed) for m in metrics}
    return Calibration(len(allocations), seeds, tables["nll"].shape[-1], num_steps, found["accuracy"], found["nll"])
