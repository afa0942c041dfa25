"""Published allocations, scaled to a budget: starting points of a search, never rules.

The papers disagree about where experts belong (arXiv 2402.08562 puts more of them high, its NAACL version in the middle), so
each pattern is one trial among others.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from allocsearch.core.allocation import BLOCK_KINDS, Allocation, LayerPlan
from allocsearch.core.budget import Budget, cost
from allocsearch.core.geometry import ModelShape, Routing
from allocsearch.core.layout import Sharing

_MAX_RANK: Final = 256


@dataclass(frozen=True, slots=True)
class Pattern:
    """Expert counts per equal group of layers, bottom to top, and the proportion of their ranks."""

    counts: tuple[int, ...]
    ranks: tuple[int, ...] = (1,)
    about: str = ""

    def fits(self, shape: ModelShape, routing: Routing) -> bool:  # noqa: ARG002
        """Whether the pattern means what was published: a router per linear."""
        return not routing.per_block

    def at(self, rank: Fraction, num_layers: int, *, divisor: int = 1) -> Allocation:
        """The pattern with `rank` times its rank proportions (rounded, at least 1), and its counts divided (rounded up)."""
        layers = zip(_spread(self.counts, num_layers), _spread(self.ranks, num_layers), strict=True)
        return Allocation(tuple(LayerPlan.of(-(-count // divisor), max(1, round(share * rank))) for count, share in layers))


@dataclass(frozen=True, slots=True)
class BlockPattern:
    """One expert of each kind in every block, and the proportion of their sizes."""

    sizes: tuple[tuple[str, int], ...]
    about: str = ""

    def fits(self, shape: ModelShape, routing: Routing) -> bool:
        """Whether one router serves a block, and every linear of the pattern is there and may carry experts."""
        named = {name for name, _ in self.sizes} - set(BLOCK_KINDS)
        offered = [{site.name for site in sites if routing.admits(site)} for sites in shape.layers]
        return routing.per_block and all(named <= names for names in offered)

    def at(self, rank: Fraction, num_layers: int, *, divisor: int = 1) -> Allocation:
        """The pattern with the rounded `rank` times its proportions. One expert of a kind cannot be halved, so it is kept."""
        del divisor
        plan = LayerPlan(tuple((name, (share * round(rank),)) for name, share in self.sizes))
        return Allocation((plan,) * num_layers)


WARM_STARTS: Final[Mapping[str, Pattern | BlockPattern]] = {
    "uniform": Pattern((5,), about="five experts everywhere (MoLA's rectangle 5555)"),
    "mola-2468": Pattern((2, 4, 6, 8), about="MoLA's inverted triangle"),
    "mola-8642": Pattern((8, 6, 4, 2), about="MoLA's triangle"),
    "mola-8228": Pattern((8, 2, 2, 8), about="MoLA's hourglass"),
    "mola-2882": Pattern((2, 8, 8, 2), about="MoLA's diamond"),
    "mola-8888": Pattern((8,), about="MoLA's large variant"),
    "hilo-2468": Pattern((2, 4, 6, 8), (1, 2, 3, 4), about="HILO: counts and ranks rise with depth"),
    "hilo-8642": Pattern((2, 4, 6, 8), (4, 3, 2, 1), about="HILO's counts with falling ranks"),
    "lora": Pattern((1,), about="one expert everywhere: plain LoRA"),
    "moa-default": BlockPattern(
        (("q", 1), ("k", 1), ("v", 1), ("o", 1), ("down", 1), ("parallel", 2)),
        about="MoA's block: one expert of each kind, the parallel one of twice the width",
    ),
}

ONE_SHOT: Final = "one-shot"
"""The score of whole allocations; the others are of layers."""

SCORED_STARTS: Final = ("alphalora", "gradient", "eva", "complexity", ONE_SHOT)
"""Starting points that need the model's weights, most of them data, and `one-shot` a training of its own.

`allocsearch.scores` computes them when a study is made."""


def scaled(pattern: Pattern | BlockPattern, *, shape: ModelShape, routing: Routing, budget: Budget) -> Allocation | None:
    """`pattern` at the largest rank inside `budget`; where even rank 1 is over, with its counts halved; else None.

    None too where the pattern does not fit the router or the model. Ranks grow in quarters before they are rounded, so that
    unequal ones scale finely. Counts are kept as published, so the result may leave some of the budget unused: its exact cost stands
    beside its score.
    """
    if not pattern.fits(shape, routing):
        return None
    for divisor in (1, 2):
        inside = None
        for quarters in range(4, 4 * _MAX_RANK + 1):
            candidate = pattern.at(Fraction(quarters, 4), shape.num_layers, divisor=divisor)
            if budget.excess(cost(candidate, shape, routing)):
                break
            inside = candidate
        if inside is not None:
            return inside
    return None


def _spread(values: tuple[int, ...], num_layers: int) -> list[int]:
    groups = Sharing(groups=len(values)).group_of_layer(num_layers)
    return [values[group] for group in groups]
