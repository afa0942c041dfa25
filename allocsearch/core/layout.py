"""The coordinates of a search space: listed values, which layers share them, and the sizes that they give each layer."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate
from statistics import fmean
from typing import Final, Literal

from allocsearch.core.allocation import BLOCK_KINDS, Sizes
from allocsearch.core.errors import InputError, shown
from allocsearch.core.targets import GROUP_OF, GROUPS

Point = Mapping[str, int]
Order = Literal["free", "ascending", "descending"]

ALL: Final = "all"
SELECTORS: Final = (ALL, *GROUPS, *GROUP_OF, *BLOCK_KINDS)


@dataclass(frozen=True, slots=True)
class Sharing:
    """Which layers share a value: `groups` equal stretches of the depth, or `tie` neighbours at a time; neither is one for all."""

    groups: int | None = None
    tie: int | None = None

    def __post_init__(self) -> None:
        given = [n for n in (self.groups, self.tie) if n is not None]
        if len(given) > 1 or any(n < 1 for n in given):
            raise InputError(f"`share` must be `model`, `groups: n` or `tie: n` with n >= 1, but got {self}")

    def group_of_layer(self, num_layers: int) -> tuple[int, ...]:
        """The group index of every layer, bottom to top."""
        if self.tie is not None:
            return tuple(layer // self.tie for layer in range(num_layers))
        num_groups = min(self.groups or 1, num_layers)
        return tuple(layer * num_groups // num_layers for layer in range(num_layers))


@dataclass(frozen=True, slots=True)
class Axis:
    """Listed values of one quantity, who shares them, and whether they must rise or fall with depth."""

    choices: tuple[int, ...]
    share: Sharing = Sharing()
    order: Order = "free"

    def __post_init__(self) -> None:
        if not self.choices or list(self.choices) != sorted(set(self.choices)) or self.choices[0] < 0:
            raise InputError(f"`choices` must be distinct whole numbers >= 0 in rising order, but got {list(self.choices)}")


@dataclass(frozen=True, slots=True)
class PartSpace:
    """The plans of one selector (`all`, a group, a target or a block kind).

    Without `experts` there is one expert, and size 0 means none. With `per_expert` each expert has a size of its own.
    """

    selector: str
    rank: Axis
    experts: Axis | None = None
    per_expert: bool = False

    def __post_init__(self) -> None:
        if self.selector not in SELECTORS:
            raise InputError(f"a part of a space must be one of {shown(SELECTORS, limit=20)}, but got {self.selector!r}")
        if self.experts is not None and self.rank.choices[0] < 1:
            raise InputError(f"`rank >= 1` must hold where `experts` is searched, but {self.selector!r} lists {list(self.rank.choices)}")
        if self.per_expert and (self.experts is None or self.rank.order != "free"):
            raise InputError(f"a rank per expert needs `experts` and `order: free`, but {self.selector!r} has not both")


@dataclass(frozen=True, slots=True)
class Dimension:
    """One coordinate of a point and its listed values, rising."""

    name: str
    choices: tuple[int, ...]


class Layout:
    """One part of a space on a stack of layers: its dimensions, and the sizes that a point gives each layer."""

    def __init__(self, part: PartSpace, num_layers: int) -> None:
        self.part = part
        self.selectors = GROUPS if part.selector == ALL else (part.selector,)
        prefix = "" if part.selector == ALL else f"{part.selector}."
        self.rank_group = part.rank.share.group_of_layer(num_layers)
        self.count_group = part.experts.share.group_of_layer(num_layers) if part.experts else (0,) * num_layers
        self.counts = [] if part.experts is None else _names(f"{prefix}experts", part.experts.share, self.count_group)
        ranks = _names(f"{prefix}rank", part.rank.share, self.rank_group)
        self.num_ranks = part.experts.choices[-1] if part.per_expert and part.experts else 1
        self.ranks = [[f"{name}.e{i}" for i in range(self.num_ranks)] if part.per_expert else [name] for name in ranks]
        counted = [Dimension(name, part.experts.choices) for name in self.counts] if part.experts else []
        self.dimensions = (*counted, *(Dimension(name, part.rank.choices) for names in self.ranks for name in names))

    def sizes(self, point: Point) -> list[Sizes]:
        """The sizes of every layer, bottom to top, largest first."""
        counts = _ordered([point[name] for name in self.counts], self.part.experts.order) if self.part.experts else [1]
        if self.part.per_expert:
            own = [[point[name] for name in names] for names in self.ranks]
            return [tuple(sorted(own[r][: counts[c]], reverse=True)) for r, c in zip(self.rank_group, self.count_group, strict=True)]
        ranks = _ordered([point[names[0]] for names in self.ranks], self.part.rank.order)
        return [(ranks[r],) * (counts[c] if ranks[r] else 0) for r, c in zip(self.rank_group, self.count_group, strict=True)]

    @property
    def depths(self) -> dict[str, float]:
        """For each dimension the mean relative depth of the layers that share it: 0 is the bottom, 1 the top."""
        ranks = [(name, depth) for names, depth in zip(self.ranks, _depths(self.rank_group), strict=True) for name in names]
        return dict([*zip(self.counts, _depths(self.count_group), strict=False), *ranks])  # without `experts` there are no counts

    def encode(self, layers: list[Sizes]) -> dict[str, int]:
        """Coordinates of per-layer sizes; what is not determined (the rank of a frozen stretch) takes its smallest listed value."""
        point: dict[str, int] = {}
        for i, name in enumerate(self.counts):
            point[name] = max(len(sizes) for sizes, group in zip(layers, self.count_group, strict=True) if group == i)
        known = [[sizes for sizes, group in zip(layers, self.rank_group, strict=True) if group == i] for i in range(len(self.ranks))]
        floor = self.part.rank.choices[0]
        if self.part.per_expert:
            for names, group in zip(self.ranks, known, strict=True):
                point |= zip(names, _expert_ranks(group, self.num_ranks, floor=floor), strict=True)
            return point
        found = [max((sizes[0] for sizes in group if sizes), default=floor) for group in known]
        return point | dict(zip([names[0] for names in self.ranks], _ordered(found, self.part.rank.order), strict=True))


def _depths(group_of_layer: tuple[int, ...]) -> list[float]:
    """The mean relative depth of each group's layers: 0 is the bottom, 1 the top."""
    top = max(1, len(group_of_layer) - 1)
    members = [[layer for layer, group in enumerate(group_of_layer) if group == i] for i in range(group_of_layer[-1] + 1)]
    return [fmean(layers) / top for layers in members]


def _expert_ranks(layers: list[Sizes], num_ranks: int, *, floor: int) -> list[int]:
    """Ranks of the first, second, … expert of layers that share them: a layer with fewer experts keeps the first ones."""
    ranks: list[int] = []
    for sizes in sorted(layers, key=len):
        ranks += sorted((Counter(sizes) - Counter(ranks)).elements(), reverse=True)
    return (ranks + [floor] * num_ranks)[:num_ranks]


def _names(prefix: str, share: Sharing, group_of_layer: tuple[int, ...]) -> list[str]:
    """`rank` for one value, `rank.g0` for groups, `rank.l00-01` for tied layers: what a user sees in the database."""
    num_groups = group_of_layer[-1] + 1
    if share.groups is None and share.tie is None:
        return [prefix]
    if share.tie is None:
        return [f"{prefix}.g{i}" for i in range(num_groups)]
    ends = [(group_of_layer.index(i), len(group_of_layer) - 1 - group_of_layer[::-1].index(i)) for i in range(num_groups)]
    return [f"{prefix}.l{a:02d}" if a == b else f"{prefix}.l{a:02d}-{b:02d}" for a, b in ends]


def _ordered(values: list[int], order: Order) -> list[int]:
    """The least values that are no smaller and keep the order; this makes every combination of coordinates a valid point."""
    if order == "ascending":
        return list(accumulate(values, max))
    if order == "descending":
        return list(accumulate(reversed(values), max))[::-1]
    return values
