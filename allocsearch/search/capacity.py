"""How allocations spread experts and ranks over layers and targets: what heat maps, parallel coordinates and bars show.

Capacity here is the sum of an expert list's sizes (ranks, widths or lengths). It leaves routers out, and needs no model.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from statistics import fmean
from typing import Final

from allocsearch.core.allocation import BLOCK_KINDS, Allocation
from allocsearch.core.targets import GROUP_OF, GROUPS

_ORDER: Final = (*GROUPS, *GROUP_OF, *BLOCK_KINDS)
_EVERY: Final = "all targets"
_BARS: Final = "·▁▂▃▄▅▆▇█"


@dataclass(frozen=True, slots=True)
class Dimension:
    """One thing that differs between allocations: `values` has one number for each of them, in their order."""

    label: str
    values: tuple[float, ...]


def parts(allocations: Sequence[Allocation]) -> dict[str, str]:
    """What the allocations tell apart within a layer: label → the name that `LayerPlan.sizes` takes.

    One entry where every layer treats all targets alike, else every group, target and block kind that any of them names.
    """
    plans = {plan for allocation in allocations for plan in allocation}
    if all(plan.uniform is not None for plan in plans):
        return {_EVERY: GROUPS[0]}
    named = {name for plan in plans for name, _ in plan.parts}
    return {name: name for name in _ORDER if name in named}


def capacity(allocation: Allocation, part: str) -> tuple[int, ...]:
    """Total size of the experts on `part`, per layer from the bottom to the top."""
    return tuple(sum(plan.sizes(part)) for plan in allocation)


def profile(allocation: Allocation) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Per layer from the bottom to the top: experts on the part that has most of them, and the mean size of all parts' experts."""
    sizes = [[size for _, of in plan.parts for size in of] for plan in allocation]
    return tuple(float(max((len(of) for _, of in plan.parts), default=0)) for plan in allocation), tuple(map(_mean, sizes))


def bars(values: Sequence[float], *, top: float) -> str:
    """A character per value: a dot for zero, else a bar that is full at `top`."""
    return "".join(_BARS[math.ceil((len(_BARS) - 1) * value / top)] if value else _BARS[0] for value in values)


def dimensions(allocations: Sequence[Allocation], *, most: int = 12) -> list[Dimension]:
    """Numbers of experts and mean ranks that differ between allocations of one depth.

    Neighbouring layers that are alike in every allocation make one dimension, so that what a space shares comes out as one. Where that
    leaves more than `most`, layers are averaged over bands of equal depth.
    """
    told_apart = parts(allocations)
    found = [one for label, part in told_apart.items() for one in _of_part(allocations, label, part, bands=None)]
    if len(found) <= most:
        return found
    bands = max(1, most // (2 * len(told_apart)))
    return [one for label, part in told_apart.items() for one in _of_part(allocations, label, part, bands=bands)]


def _of_part(allocations: Sequence[Allocation], label: str, part: str, *, bands: int | None) -> Iterator[Dimension]:
    where = "" if label == _EVERY else f"{label} "
    depth = len(allocations[0])
    for what, of in (("experts", _number), ("mean rank", _mean)):
        series = [tuple(of(allocation.layers[layer].sizes(part)) for allocation in allocations) for layer in range(depth)]
        for layers in _alike(series) if bands is None else _bands(depth, bands):
            values = tuple(fmean(column) for column in zip(*(series[layer] for layer in layers), strict=True))
            if len(set(values)) > 1:
                yield Dimension(f"{where}{what}, {_span(layers)}", values)


def _number(sizes: Sequence[int]) -> float:
    return float(len(sizes))


def _mean(sizes: Sequence[int]) -> float:
    return fmean(sizes) if sizes else 0.0


def _alike(series: Sequence[tuple[float, ...]]) -> Iterator[list[int]]:
    for _, run in groupby(range(len(series)), key=lambda layer: series[layer]):
        yield list(run)


def _bands(depth: int, number: int) -> Iterator[list[int]]:
    edges = [round(i * depth / number) for i in range(number + 1)]
    for low, high in pairwise(edges):
        if high > low:
            yield list(range(low, high))


def _span(layers: Sequence[int]) -> str:
    return f"layer {layers[0]}" if len(layers) == 1 else f"layers {layers[0]}–{layers[-1]}"
