"""The smallest allocation that is not worse than a reference by more than a stated margin.

A test of non-inferiority: "worse by the margin or more" is the hypothesis to be rejected, so a small or noisy test split leads to
"cannot say", never to a false all-clear. Candidates are tested in a fixed sequence from the largest to the smallest, each at level
α, up to the first that fails. The sequence is set by parameters, which no score can change, so the chance that any allocation passes
that is truly worse by the margin is at most α (Maurer, Hothorn and Lehmacher, 1995). A smaller one cannot pass over a larger that
fails: leave out candidates that are dominated on the search split.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from allocsearch.core.choices import Metric
from allocsearch.core.errors import InputError
from allocsearch.search.confirmation import TrainedTogether
from allocsearch.search.replicates import Replicated
from allocsearch.search.resolution import Design, resolvable, rows_needed, seeds_needed
from allocsearch.search.variance_components import Components, components, mean_squares

ALPHA: Final = 0.05


@dataclass(frozen=True, slots=True)
class NotWorse:
    """One candidate of the sequence.

    Attributes:
        number: its trial's.
        params: its trainable parameters.
        difference: candidate minus reference; positive is better.
        lower: what the difference surely exceeds (one-sided, 95 %).
        p_value: of "worse by the margin or more".
        passed: whether it and all larger ones are not worse by more than the margin.
    """

    number: int
    params: int
    difference: float
    lower: float
    p_value: float
    passed: bool


@dataclass(frozen=True, slots=True)
class Smallest:
    """The answer.

    Attributes:
        reference: its trial's number.
        margin: stated, in shares of accuracy or in nats.
        number: the smallest allocation that passed; None where none did, so that the reference itself stands.
        sequence: every candidate, from the largest on.
        resolvable: the smallest margin that an equal candidate would pass with a chance of 0.8, on these splits.
        rows_needed: with as many seeds, for the stated margin; None where it is resolved, or where no number of rows would do.
        seeds_needed: on as many rows, likewise.
        covers_seeds: whether the seeds' noise is counted; one seed cannot show it.
    """

    reference: int
    margin: float
    number: int | None
    sequence: tuple[NotWorse, ...]
    resolvable: float
    rows_needed: int | None
    seeds_needed: int | None
    num_seeds: int
    num_rows: int
    covers_seeds: bool

    @property
    def resolved(self) -> bool:
        """Whether the splits can resolve the margin."""
        return self.resolvable <= self.margin

    @property
    def remark(self) -> str | None:
        """One line where they cannot."""
        if self.resolved:
            return None
        ways = [f"about {self.rows_needed} rows"] if self.rows_needed else []
        ways += [f"{self.seeds_needed} seeds"] if self.seeds_needed else []
        return (
            f"a margin of {self.margin:g} cannot be resolved with these splits ({self.num_seeds} seeds, {self.num_rows} rows resolve "
            f"{self.resolvable:.4f}); it would take {' or '.join(ways) or 'more seeds and more rows'}"
        )


def smallest_not_worse(
    reference: Replicated,
    candidates: Sequence[Replicated],
    margin: float,
    *,
    metric: Metric = "accuracy",
    noise: Components | None = None,
    seed: int = 0,
) -> Smallest:
    """Test the candidates against the reference, on a split that named neither of them.

    Args:
        reference: what must not be missed by more than the margin.
        candidates: allocations to be had instead; of equal parameters the earlier trial comes first. The reference itself is left out.
        margin: above zero, in shares of accuracy (0.01 is a point) or in nats.
        metric: what the margin is measured in.
        noise: a calibration's, for what the splits can resolve; by default that of the tested allocations, a rough guess with few seeds.
        seed: of the resampling.

    Raises:
        InputError: where the margin is not above zero, where there is no candidate, where they share no seed, or were scored on other rows.
    """
    ordered = sorted((one for one in candidates if one.number != reference.number), key=lambda one: (-one.params, one.number))
    if not margin > 0 or not ordered:
        raise InputError(f"a margin above zero and a candidate besides the reference must hold, but got {margin:g} and {len(ordered)}")
    trained = TrainedTogether.of([reference, *ordered], metric=metric)
    found = trained.differences([(one.number, reference.number) for one in ordered], seed=seed)
    passing, sequence = True, []
    lowers = found.intervals(2 * ALPHA)[:, 0]
    for one, difference, lower, p in zip(ordered, found.observed, lowers, found.p_greater(-margin), strict=True):
        passing = passing and bool(p < ALPHA)
        sequence.append(NotWorse(one.number, one.params, float(difference), float(lower), float(p), passing))
    return _answer(reference, margin, tuple(sequence), trained, noise=noise or _noise(trained))


def _answer(
    reference: Replicated, margin: float, sequence: tuple[NotWorse, ...], trained: TrainedTogether, *, noise: Components
) -> Smallest:
    passed = [one.number for one in sequence if one.passed]
    num_seeds, num_rows = len(trained.seeds), trained.num_rows
    design = Design(num_allocations=len(trained.numbers), alpha=ALPHA, sides=1)
    seen = resolvable(noise, num_seeds=num_seeds, num_rows=num_rows, design=design)
    short = seen > margin
    return Smallest(
        reference=reference.number,
        margin=margin,
        number=passed[-1] if passed else None,
        sequence=sequence,
        resolvable=seen,
        rows_needed=rows_needed(noise, margin, num_seeds=num_seeds, design=design) if short else None,
        seeds_needed=seeds_needed(noise, margin, num_rows=num_rows, design=design) if short and num_seeds > 1 else None,
        num_seeds=num_seeds,
        num_rows=num_rows,
        covers_seeds=num_seeds > 1,
    )


def _noise(trained: TrainedTogether) -> Components:
    """Of the tested allocations themselves. One seed shows no seed noise: then all of a row's noise is the rows'."""
    if len(trained.seeds) > 1:
        return components(mean_squares(trained.values))
    spread = float((trained.values[1:, 0] - trained.values[:1, 0]).var(axis=1, ddof=1).mean()) if trained.num_rows > 1 else math.inf
    return Components(0.0, 0.0, 0.0, 0.0, spread / 2, 0.0, 0.0)
