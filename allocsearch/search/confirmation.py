"""The last word: few candidates and all baselines, trained again with fresh seeds and scored on the test split.

Candidates were named before the test split was looked at, so no selection has to be paid for; but every pair that is tested counts
(Holm). Two to five seeds are enough for an honest interval, not for a short one: `paired` says how.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from allocsearch.core.choices import Metric
from allocsearch.search.comparison import holm
from allocsearch.search.paired import Differences, differences
from allocsearch.search.replicates import Array, Replicated, common_seeds, table
from allocsearch.search.variance_components import mean_squares

Verdict = Literal["better", "worse", "not distinguishable"]
ALPHA: Final = 0.05


@dataclass(frozen=True, slots=True)
class Confirmed:
    """A candidate against a baseline, on the test split.

    Attributes:
        candidate: its trial's number.
        baseline: its trial's number.
        difference: mean lead of the candidate, in shares of accuracy, or in nats of NLL saved; positive is better.
        interval: 95 %, over seeds and rows (over rows alone without `covers_seeds`); of this pair by itself.
        p_value: two-sided, of no difference.
        p_adjusted: Holm's, over all pairs tested.
        verdict: `better` or `worse` where `p_adjusted` is below 0.05.
        seeds: common to all that were confirmed.
        num_rows: of the test split.
        covers_seeds: whether the seeds' noise is counted. With one seed it cannot be: the verdict is then about this seed's adapters.
    """

    candidate: int
    baseline: int
    difference: float
    interval: tuple[float, float]
    p_value: float
    p_adjusted: float
    verdict: Verdict
    seeds: tuple[int, ...]
    num_rows: int
    covers_seeds: bool


def confirm(
    candidates: Sequence[Replicated], baselines: Sequence[Replicated], *, metric: Metric = "accuracy", seed: int = 0
) -> list[Confirmed]:
    """Every candidate against every baseline but itself: the first candidate's pairs first.

    Args:
        candidates: named by the search, before the test split was scored.
        baselines: what they are held against.
        metric: what differences are measured in.
        seed: of the resampling.

    Raises:
        InputError: where they share no seed, or were scored on other rows.
    """
    everyone = list({one.number: one for one in [*candidates, *baselines]}.values())
    pairs = [(a.number, b.number) for a in candidates for b in baselines if a.number != b.number]
    if not pairs:
        return []
    trained = TrainedTogether.of(everyone, metric=metric)
    found = trained.differences(pairs, seed=seed)
    p_values = [float(p) for p in found.p_values()]
    results = zip(pairs, found.observed, found.intervals(ALPHA), p_values, holm(p_values), strict=True)
    return [
        Confirmed(a, b, float(d), (float(low), float(high)), p, q, _verdict(d, q), trained.seeds, trained.num_rows, len(trained.seeds) > 1)
        for (a, b), d, (low, high), p, q in results
    ]


@dataclass(frozen=True, slots=True)
class TrainedTogether:
    """Allocations trained with common seeds and scored on the same rows: `values` is K×S×R in the order of `numbers`, larger is better."""

    numbers: tuple[int, ...]
    seeds: tuple[int, ...]
    values: Array

    @classmethod
    def of(cls, everyone: Sequence[Replicated], *, metric: Metric) -> "TrainedTogether":
        """On the seeds that all have.

        Raises:
            InputError: where they share no seed, or were scored on other rows.
        """
        seeds = common_seeds([one.seeds for one in everyone])
        return cls(tuple(one.number for one in everyone), seeds, table([one.scores for one in everyone], seeds, metric))

    @property
    def num_rows(self) -> int:
        """That scored each."""
        return int(self.values.shape[2])

    def differences(self, pairs: Sequence[tuple[int, int]], *, seed: int) -> Differences:
        """Of pairs of numbers, the first minus the second."""
        place = {number: i for i, number in enumerate(self.numbers)}
        first, second = ([place[pair[side]] for pair in pairs] for side in (0, 1))
        pooled = float(mean_squares(self.values).values[3]) if len(self.seeds) > 1 else 0.0
        return differences(self.values[first] - self.values[second], pooled=pooled, num_allocations=len(self.numbers), seed=seed)


def _verdict(difference: float, p_adjusted: float) -> Verdict:
    if p_adjusted >= ALPHA:
        return "not distinguishable"
    return "better" if difference > 0 else "worse"
