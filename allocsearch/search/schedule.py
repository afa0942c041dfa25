"""How long a trial runs: asynchronous successive halving, by Pareto rank or on one metric.

At each rung a trial is held against all that have reported there so far and goes on while it is among the best share of
1/eta: successive halving that waits for nobody (ASHA; Li et al., MLSys 2020, in its stopping form). With two objectives the
order is by non-dominated fronts and, inside the front that the share cuts, by an epsilon-net, so that what goes on is spread
over the sizes (MO-ASHA; Schmucker et al., 2021, arXiv:2106.12639). We differ from both in two ways: fewer than eta reports
decide nothing, and no trial on the first front is stopped, for it would be for its neighbours and not for being worse.

Nothing here knows an engine: to replay a table of results, call `Halving.go_on` with each trial's rungs in the order in which
they would have come in, and cut a trial where the answer is False.
"""

import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from allocsearch.core.trial import Measured, RungScore, Stopped, Trial
from allocsearch.spec import StudySpec


@dataclass(frozen=True, slots=True)
class Entry:
    """A trial's report at one rung: `score` is better when larger, `params` when smaller; `nll` (in nats) parts equals."""

    number: int
    score: float
    params: int
    nll: float


class Halving:
    """Successive halving at rungs. The same reports in the same order give the same answers.

    A trial's second report at a rung replaces its first, so that a trial that runs again after a worker's death counts once.
    Which trials are the best at a rung (`kept`) depends on the latest reports alone; what was answered depends on their order.

    Args:
        seed: the training seed whose rungs are compared, the study's first. All trials share its rows and their order, which
            cancels most of the noise, and stopping on the first seed saves the others.
        eta: the best share of 1/eta goes on.
        first_rung: the first training step at which anything is decided; earlier ranks must not be trusted.
        by_nll: compare NLL, else accuracy.
        pareto: set few trainable parameters against the metric; else the metric alone decides.

    Raises:
        ValueError: where eta is below 2.
    """

    def __init__(self, *, seed: int, first_rung: int, eta: int = 3, by_nll: bool = True, pareto: bool = True) -> None:
        if eta < 2:  # noqa: PLR2004 - a share of one stops nothing
            raise ValueError(f"`eta >= 2` must hold, but got {eta}: the best share of 1/eta goes on")
        self.seed, self.first_rung, self.eta, self.by_nll, self.pareto = seed, first_rung, eta, by_nll, pareto
        self._rungs: dict[int, dict[int, Entry]] = {}

    def go_on(self, number: int, rung: RungScore, *, params: int) -> bool:
        """Take in what trial `number`, of `params` trainable parameters, reports; False where it must end here.

        A score that is no number says nothing of the others: its trial goes on, to fail by itself.
        """
        return not self._enter(number, rung, params) or number in self.kept(rung.step)

    def replay(self, trials: Iterable[Trial]) -> None:
        """Take in the rungs of ended trials, whatever came of them. Those of failed trials aren't stored, so they're left out."""
        for trial in trials:
            if isinstance(trial.outcome, Measured | Stopped):
                for rung in trial.outcome.rungs:
                    self._enter(trial.number, rung, trial.cost.trainable)

    def kept(self, step: int) -> frozenset[int]:
        """The trials that would go on from `step` by the reports so far: the first front and the best ceil(n / eta) of n."""
        entries = list(self._rungs.get(step, {}).values())
        if len(entries) < self.eta:
            return frozenset(entry.number for entry in entries)
        return frozenset(entry.number for entry in best(entries, math.ceil(len(entries) / self.eta)))

    def _enter(self, number: int, rung: RungScore, params: int) -> bool:
        """Whether the report is one of those that are compared."""
        score = -rung.nll if self.by_nll else rung.accuracy
        if rung.seed != self.seed or rung.step < self.first_rung or not math.isfinite(score):
            return False
        self._rungs.setdefault(rung.step, {})[number] = Entry(number, score, params if self.pareto else 0, rung.nll)
        return True


def halving(spec: StudySpec) -> Halving | None:
    """The scheduler that a spec asks for; None where every trial runs to its end."""
    asked = spec.scheduler
    if asked.kind == "none":
        return None
    assert asked.first_rung is not None, "the spec was validated"
    by_nll = spec.objective != "accuracy" if asked.metric is None else asked.metric == "nll"
    return Halving(seed=spec.proxy.seeds[0], first_rung=asked.first_rung, eta=asked.eta, by_nll=by_nll, pareto=spec.objective == "pareto")


def best(entries: Sequence[Entry], limit: int) -> list[Entry]:
    """The whole first front, then further ones up to `limit` entries in all, the last of them thinned by `spread`."""
    first, *others = fronts(entries)
    chosen = list(first)
    for front in others:
        room = limit - len(chosen)
        if room <= 0:
            break
        chosen += front if len(front) <= room else spread(front)[:room]
    return chosen


def fronts(entries: Sequence[Entry]) -> list[list[Entry]]:
    """Non-dominated fronts, best first, each by rising parameters; equals share a front. O(n log n), since there are two objectives."""
    found: list[list[Entry]] = []
    floors: list[float] = []  # minus the best score in each front so far: rising, so that a front is found by bisection
    before: tuple[int, float] | None = None
    rank = 0
    for entry in sorted(entries, key=lambda e: (e.params, *_merit(e))):
        if (entry.params, entry.score) != before:
            rank = bisect_right(floors, -entry.score)  # the first front in which nothing of this size or less scores as well
        before = entry.params, entry.score
        if rank == len(found):
            found.append([])
            floors.append(-entry.score)
        found[rank].append(entry)
        floors[rank] = -entry.score
    return found


def spread(front: Sequence[Entry]) -> list[Entry]:
    """A front in the order of an epsilon-net: the best score, then always the entry farthest from those before it.

    Distances are Euclidean in the score and the logarithm of the parameters, each scaled to the front's own range.
    """
    left = sorted(front, key=_merit)
    scores = _unit([entry.score for entry in left])
    sizes = _unit([math.log(max(entry.params, 1)) for entry in left])
    place = {entry.number: (score, size) for entry, score, size in zip(left, scores, sizes, strict=True)}
    order = [left.pop(0)]
    gaps = dict.fromkeys(place, math.inf)
    while left:
        for entry in left:
            gaps[entry.number] = min(gaps[entry.number], math.dist(place[entry.number], place[order[-1].number]))
        farthest = max(left, key=lambda entry: gaps[entry.number])  # of equals the first, which has more merit
        left.remove(farthest)
        order.append(farthest)
    return order


def _merit(entry: Entry) -> tuple[float, int, float, int]:
    """Sorts the better first; of full equals the earlier trial."""
    return -entry.score, entry.params, entry.nll, entry.number


def _unit(values: Sequence[float]) -> list[float]:
    low, high = min(values), max(values)
    return [(value - low) / (high - low) if high > low else 0.0 for value in values]
