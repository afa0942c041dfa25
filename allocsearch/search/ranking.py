"""Order by several objectives at once: Pareto rank, then crowding (Deb et al. 2002, NSGA-II, sections III-A and III-B)."""

import math
from collections.abc import Sequence

Losses = Sequence[float]


def pareto_ranks(losses: Sequence[Losses]) -> list[int]:
    """For each row of losses (smaller is better): 0 where none dominates it, 1 where only rank 0 does, and so on."""
    ranks = [-1] * len(losses)
    left = set(range(len(losses)))
    rank = 0
    while left:
        front = {i for i in left if not any(_dominates(losses[j], losses[i]) for j in left)}
        for i in front:
            ranks[i] = rank
        left -= front
        rank += 1
    return ranks


def crowding(front: Sequence[Losses]) -> list[float]:
    """How much room each row of one front has: the sum over objectives of its neighbours' distance; infinite at the ends."""
    room = [0.0] * len(front)
    for column in range(len(front[0]) if front else 0):
        order = sorted(range(len(front)), key=lambda i: front[i][column])
        span = front[order[-1]][column] - front[order[0]][column]
        room[order[0]] = room[order[-1]] = math.inf
        if not 0 < span < math.inf:
            continue
        for below, i, above in zip(order, order[1:], order[2:], strict=False):
            room[i] += (front[above][column] - front[below][column]) / span
    return room


def best_first(losses: Sequence[Losses]) -> list[int]:
    """Indices by Pareto rank, the least crowded of a rank first; of equals the earlier."""
    ranks = pareto_ranks(losses)
    room = [0.0] * len(losses)
    for rank in set(ranks):
        members = [i for i, own in enumerate(ranks) if own == rank]
        for i, value in zip(members, crowding([losses[i] for i in members]), strict=True):
            room[i] = value
    return sorted(range(len(losses)), key=lambda i: (ranks[i], -room[i], i))


def _dominates(a: Losses, b: Losses) -> bool:
    return all(x <= y for x, y in zip(a, b, strict=True)) and any(x < y for x, y in zip(a, b, strict=True))
