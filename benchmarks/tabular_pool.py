"""Which allocations a tabular benchmark holds: half at one size, half spread over sizes, from a union of spaces.

The pool is decided by the study and a seed, so every machine that builds the table chooses the same allocations.
"""

import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from allocsearch import spec as specs
from allocsearch.core.allocation import Allocation
from allocsearch.core.budget import Budget, cost
from allocsearch.core.errors import InfeasibleError, InputError
from allocsearch.core.space import SearchSpace
from allocsearch.core.warm_starts import WARM_STARTS, scaled
from allocsearch.planning import Plan

SPACES = ("free", "hilo", "mola", "uniform")
MATCHED_SHARE = 0.99  # of the budget: what counts as matched
_ATTEMPTS = 60  # per wanted allocation; coarse spaces seldom meet a size to a percent


@dataclass(frozen=True, slots=True)
class Entry:
    """One allocation of the pool.

    `origin` names the space it was drawn from (`-thinned`: with a random stretch of layers left frozen) or the published pattern;
    `share` is the part of the budget that it aimed at.
    """

    number: int
    allocation: str
    origin: str
    share: float
    trainable: int
    active: int
    matched: bool

    def to_json(self) -> dict[str, object]:
        return asdict(self)


def pool(planned: Plan, num_allocations: int, *, seed: int) -> tuple[Entry, ...]:
    """`num_allocations` distinct allocations, half of them within 1 % of the budget. Published patterns come first.

    Raises:
        InputError: where the spaces have not that many.
    """
    spaces = _spaces(planned)
    half = num_allocations // 2
    wanted = {True: num_allocations - half, False: half}
    found: dict[str, Entry] = {}
    for text, origin, share in (*_published(planned), *_drawn(spaces, planned, num=num_allocations, seed=seed)):
        total = cost(Allocation.parse(text), planned.shape, planned.space.routing)
        matched = total.trainable >= MATCHED_SHARE * _limit(planned.budget)
        if text not in found and total.trainable and wanted[matched]:
            wanted[matched] -= 1
            found[text] = Entry(len(found), text, origin, share, total.trainable, total.active, matched)
        if not any(wanted.values()):
            break
    if any(wanted.values()):
        raise InputError(f"the spaces must offer {num_allocations} allocations, but got {len(found)}: ask for fewer")
    return tuple(found.values())


def _spaces(planned: Plan) -> dict[str, SearchSpace]:
    """The study's own space and the shipped ones, on the study's model and routing."""
    routing = planned.space.routing
    shipped = {name: specs.load_space(name).template().bind(planned.shape, routing) for name in SPACES}
    return {planned.space.template.name: planned.space, **shipped}


def _published(planned: Plan) -> Iterator[tuple[str, str, float]]:
    for name, pattern in WARM_STARTS.items():
        allocation = scaled(pattern, shape=planned.shape, routing=planned.space.routing, budget=planned.budget)
        if allocation is not None:
            yield str(allocation), name, 1.0


def _drawn(spaces: dict[str, SearchSpace], planned: Plan, *, num: int, seed: int) -> Iterator[tuple[str, str, float]]:
    """Random points, projected: sizes and spaces in turn, so that a full half stops neither."""
    shares = [share for share in sorted(set(planned.spec.ladder)) if share < MATCHED_SHARE] or [1.0]
    recipes = [(name, thin) for name, space in spaces.items() for thin in ((False, True) if _can_thin(space) else (False,))]
    for attempt in range(num * _ATTEMPTS):
        name, thin = recipes[attempt % len(recipes)]
        rng = random.Random(f"{seed}/{attempt}")
        share = 1.0 if rng.random() < 0.5 else rng.choice(shares)
        space = spaces[name]
        point = space.sample(rng)
        if thin:
            point = _thinned(space, point, rng)
        try:
            projected = space.decode(space.project_point(point, planned.budget.scaled(share)))
        except InfeasibleError:
            continue  # the smallest point of this space is above that share
        yield str(projected), f"{name}-thinned" if thin else name, share


def _counts(space: SearchSpace) -> list[str]:
    return [d.name for d in space.dimensions if "experts" in d.name and 0 in d.choices]


def _can_thin(space: SearchSpace) -> bool:
    return len(_counts(space)) > 1


def _thinned(space: SearchSpace, point: dict[str, int], rng: random.Random) -> dict[str, int]:
    """`point` with experts in one random stretch of the depth only; the rest is frozen until the stretch is full."""
    names = _counts(space)
    width = rng.randint(1, len(names) - 1)
    first = rng.randint(0, len(names) - width)
    kept = names[first : first + width]
    return space.canonical({**point, **{name: (max(1, point[name]) if name in kept else 0) for name in names}})


def _limit(budget: Budget) -> int:
    if budget.max_trainable is None:
        raise InputError(f"a table needs a budget of trainable parameters to match, but got {budget}: give N-params")
    return budget.max_trainable
