"""The Pareto front of accuracy (up) against trainable parameters (down), and ways to pick one trial from it."""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Candidate:
    """A finished trial as a point: `score` is better when larger, `params` when smaller; `interval` bounds the score."""

    number: int
    score: float
    params: int
    interval: tuple[float, float]


def dominates(a: Candidate, b: Candidate) -> bool:
    """Whether `a` is at least as good as `b` in both and better in one."""
    return a.score >= b.score and a.params <= b.params and (a.score > b.score or a.params < b.params)


def pareto_front(candidates: Sequence[Candidate]) -> list[Candidate]:
    """The candidates that none dominates, smallest first; of equals the earliest trial stands for all."""
    front: list[Candidate] = []
    for candidate in sorted(candidates, key=lambda c: (c.params, -c.score, c.number)):
        if not front or candidate.score > front[-1].score:
            front.append(candidate)
    return front


class GrowingFront:
    """The front of all candidates so far: `pareto_front` of them, without looking at those that are off it again."""

    def __init__(self) -> None:
        self._members: list[Candidate] = []  # by rising parameters, and so by rising score

    def __iter__(self) -> Iterator[Candidate]:
        return iter(self._members)

    @property
    def best(self) -> Candidate:
        """The highest score; of equals the smaller, then the earlier."""
        return self._members[-1]

    def add(self, candidate: Candidate) -> None:
        """Take `candidate` in where none dominates it, and drop those that it dominates."""
        at = bisect_left(self._members, candidate.params, key=lambda c: c.params)
        if any(_stands_for(member, candidate) for member in self._members[max(0, at - 1) : at + 1]):
            return
        end = bisect_right(self._members, candidate.score, lo=at, key=lambda c: c.score)
        self._members[at:end] = [candidate]


def _stands_for(a: Candidate, b: Candidate) -> bool:
    """Whether `a` dominates `b`, or is its equal and earlier."""
    return dominates(a, b) or (a.score == b.score and a.params == b.params and a.number <= b.number)


def hypervolume(candidates: Sequence[Candidate], *, worst_score: float, max_params: int) -> float:
    """Area that the front dominates, down to `worst_score` and up to `max_params`, in units of score × parameters."""
    area, floor = 0.0, worst_score
    for candidate in pareto_front([c for c in candidates if c.params <= max_params]):
        if candidate.score > floor:
            area += (candidate.score - floor) * (max_params - candidate.params)
            floor = candidate.score
    return area


def best(candidates: Sequence[Candidate]) -> Candidate:
    """The highest score; of equals the smaller, then the earlier."""
    return min(candidates, key=lambda c: (-c.score, c.params, c.number))


def knee(candidates: Sequence[Candidate]) -> Candidate:
    """The front's point farthest above the line between its ends, on a log scale of parameters, both axes scaled to one."""
    front = pareto_front(candidates)
    first, last = front[0], front[-1]
    if len(front) < 3:  # noqa: PLR2004 - two points are their own line
        return best(front)
    rise = last.score - first.score
    run = math.log(max(last.params, 1)) - math.log(max(first.params, 1))

    def height(c: Candidate) -> float:
        return (c.score - first.score) / rise - (math.log(max(c.params, 1)) - math.log(max(first.params, 1))) / run

    return max(front, key=lambda c: (height(c), -c.params))


def smallest_within(candidates: Sequence[Candidate], reference: Candidate | None = None) -> Candidate:
    """The smallest candidate whose score lies inside the interval of the reference, by default the best one."""
    floor = (reference or best(candidates)).interval[0]
    return min((c for c in candidates if c.score >= floor), key=lambda c: (c.params, -c.score, c.number))


def wilson_interval(share: float, num_rows: int, *, z: float = 1.96) -> tuple[float, float]:
    """Wilson's 95 % interval of a share over `num_rows` rows. It covers the rows' sampling, not the training seed's."""
    centre = (share + z * z / (2 * num_rows)) / (1 + z * z / num_rows)
    half = z / (1 + z * z / num_rows) * math.sqrt(share * (1 - share) / num_rows + z * z / (4 * num_rows**2))
    return max(0.0, centre - half), min(1.0, centre + half)
