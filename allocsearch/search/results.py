"""What a study has found so far: the front, the best, the counts. Read-only views of its trials."""

import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Final, Literal, get_args

from allocsearch.core import front
from allocsearch.core.choices import Metric
from allocsearch.core.errors import InputError
from allocsearch.core.front import Candidate
from allocsearch.core.origins import is_baseline
from allocsearch.core.trial import Ended, Failed, Infeasible, Measured, Stopped, Trial

Pick = Literal["best", "knee", "smallest"]
_Z: Final = 1.96
_Effect = tuple[float, float]
_KNEE: Final = 3
"""Fewer points are their own line."""
State = Literal["finished", "stopped", "infeasible", "failed", "running", "waiting"]
STATES: Final[tuple[State, ...]] = get_args(State)


@dataclass(frozen=True, slots=True)
class Point:
    """A measured trial with its interval: 95 % Wilson over the search rows. It does not cover seed noise or selection.

    Attributes:
        accuracy: mean over its seeds, on the scale of the seeds that all trials have. A seed that only some have moves all of these
            alike, so what it moves them by on average is taken off; else a hard further seed would count against who had it.
        nll: likewise, in nats.
    """

    trial: Trial
    measured: Measured
    accuracy: float
    nll: float
    interval: tuple[float, float]

    @property
    def num_seeds(self) -> int:
        """Seeds that it was trained with."""
        return len(self.measured.scores)

    @property
    def num_rows(self) -> int:
        """Rows of the search split that scored it."""
        return len(self.measured.scores[0].correct)

    @property
    def nll_interval(self) -> tuple[float, float]:
        """95 % normal interval of the mean NLL over the search rows, in nats; like `interval`, it covers the rows alone."""
        per_row = [fmean(seeds) for seeds in zip(*(score.nll for score in self.measured.scores), strict=True)]
        half = _Z * stdev(per_row) / math.sqrt(len(per_row)) if len(per_row) > 1 else math.inf
        return self.nll - half, self.nll + half


@dataclass(frozen=True, slots=True)
class Progress:
    """Counts and compute of a study."""

    counts: dict[State, int]
    num_trials: int
    seconds_spent: float
    best: Point | None


def points(trials: Sequence[Trial]) -> list[Point]:
    """The measured trials, by number."""
    measured = [(trial, trial.outcome) for trial in trials if isinstance(trial.outcome, Measured)]
    effects = _seed_effects([outcome for _, outcome in measured])
    return [_point(trial, outcome, effects) for trial, outcome in measured]


def _point(trial: Trial, measured: Measured, effects: Mapping[int, _Effect]) -> Point:
    own = [effects.get(score.seed, (0.0, 0.0)) for score in measured.scores]
    accuracy = measured.accuracy - fmean(effect for effect, _ in own)
    nll = measured.nll - fmean(effect for _, effect in own)
    rows = len(measured.scores[0].correct)
    return Point(trial, measured, accuracy, nll, front.wilson_interval(min(1.0, max(0.0, accuracy)), rows))


def _seed_effects(found: Sequence[Measured]) -> dict[int, _Effect]:
    """By how much each seed that only some trials have moves accuracy and NLL, on average over those, against the seeds that all have."""
    if not found:
        return {}
    shared = set.intersection(*({score.seed for score in one.scores} for one in found))
    moves: dict[int, list[_Effect]] = {}
    for one in found if shared else ():
        base = [score for score in one.scores if score.seed in shared]
        accuracy, nll = fmean(score.accuracy for score in base), fmean(score.mean_nll for score in base)
        for score in one.scores:
            if score.seed not in shared:
                moves.setdefault(score.seed, []).append((score.accuracy - accuracy, score.mean_nll - nll))
    return {seed: (fmean(a for a, _ in each), fmean(n for _, n in each)) for seed, each in moves.items()}


def pareto(trials: Sequence[Trial], metric: Metric = "accuracy") -> list[Point]:
    """The front of `metric` against trainable parameters, smallest first."""
    by_number = {point.trial.number: point for point in points(trials)}
    return [by_number[candidate.number] for candidate in front.pareto_front(_candidates(list(by_number.values()), metric))]


def picked(trials: Sequence[Trial], pick: Pick, metric: Metric = "accuracy") -> Point:
    """The trial that `pick` chooses by `metric`: the best, the knee of the front, or the smallest within the best one's interval.

    Where trials have been replicated, the best is sought among those with the most seeds: the others lost, or had one chance only.

    Raises:
        InputError: where no trial has finished.
    """
    found = points(trials)
    if not found:
        raise InputError("at least one finished trial must exist to pick from, but there is none yet")
    most = max(point.num_seeds for point in found)
    best = front.best(_candidates([point for point in found if point.num_seeds == most], metric))
    number = {
        "best": lambda: best,
        "knee": lambda: front.knee(_candidates(found, metric)),
        "smallest": lambda: front.smallest_within(_candidates(found, metric), best),
    }[pick]().number
    return next(point for point in found if point.trial.number == number)


def baselines(trials: Sequence[Trial]) -> list[Point]:
    """The measured trials that nobody searched for: uniform, published patterns, plain LoRA, scored allocations."""
    return [point for point in points(trials) if is_baseline(point.trial.origin)]


def reason(pick: Pick, chosen: Point, trials: Sequence[Trial], metric: Metric = "accuracy") -> str:
    """Why `picked` chose it, in one line, with what the interval does not cover."""
    value, (low, high) = (chosen.accuracy, chosen.interval) if metric == "accuracy" else (chosen.nll, chosen.nll_interval)
    return (
        f"{_why(pick, chosen, trials, metric)}; {value:.3f} in [{low:.3f}, {high:.3f}] over {chosen.num_rows} rows, seeds {_seeds(chosen)}"
    )


def _why(pick: Pick, chosen: Point, trials: Sequence[Trial], metric: Metric) -> str:
    of, members = len(points(trials)), len(pareto(trials, metric))
    best = picked(trials, "best", metric)
    if pick == "smallest" and chosen.trial.number != best.trial.number:
        share = chosen.trial.cost.trainable / max(1, best.trial.cost.trainable)
        inside = f"fewest parameters among the trials inside the 95 % interval of the best of {of}"
        return f"{inside}, {share:.0%} of those of the best, trial {best.trial.number}"
    if pick == "knee" and members >= _KNEE:
        return f"the front's point farthest above the line between its ends, of {members} on the front"
    highest = {"accuracy": "highest accuracy", "nll": "lowest NLL"}[metric]
    so = {"best": "", "knee": f"; a front of {members} has no knee", "smallest": "; no smaller one is inside its 95 % interval"}[pick]
    return f"{highest} of {of} trials on the search split, so biased upwards by the selection{so}"


def progress(trials: Sequence[Trial], waiting: frozenset[int], *, num_trials: int, metric: Metric = "accuracy") -> Progress:
    """Counts per state, the compute spent in seconds of worker time, and the best so far."""
    counts = Counter(_state(trial, waiting) for trial in trials)
    seconds = sum(trial.outcome.seconds for trial in trials if isinstance(trial.outcome, Ended))
    best = picked(trials, "best", metric) if counts["finished"] else None
    return Progress({state: counts[state] for state in STATES}, num_trials, seconds, best)


class Pace:
    """Throughput of this run: trials per hour, and seconds left until a target."""

    def __init__(self) -> None:
        self._start = time.monotonic()
        self._ended = 0

    def count(self) -> None:
        """One more trial has ended."""
        self._ended += 1

    @property
    def seconds(self) -> float:
        """Since the start of this run."""
        return time.monotonic() - self._start

    @property
    def trials_per_hour(self) -> float:
        """Ended trials per hour of this run; 0 before the first."""
        return 3600 * self._ended / self.seconds if self._ended else 0.0

    def seconds_left(self, num_missing: int) -> float | None:
        """At this pace; None before the first trial has ended."""
        return None if not self._ended else num_missing * self.seconds / self._ended


def _candidates(found: Sequence[Point], metric: Metric) -> list[Candidate]:
    return [_candidate(point, metric) for point in found]


def _candidate(point: Point, metric: Metric) -> Candidate:
    number, params = point.trial.number, point.trial.cost.trainable
    if metric == "accuracy":
        return Candidate(number, point.accuracy, params, point.interval)
    low, high = point.nll_interval
    return Candidate(number, -point.nll, params, (-high, -low))


def _state(trial: Trial, waiting: frozenset[int]) -> State:
    if trial.number in waiting:
        return "waiting"
    match trial.outcome:
        case Measured():
            return "finished"
        case Stopped():
            return "stopped"
        case Infeasible():
            return "infeasible"
        case Failed():
            return "failed"
        case _:
            return "running"


def _seeds(point: Point) -> str:
    return ", ".join(str(score.seed) for score in point.measured.scores)
