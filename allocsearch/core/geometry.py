"""What a base model looks like to an allocation, and what turns plans into modules. Value types only."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal, get_args

from allocsearch.core.errors import InputError, shown
from allocsearch.core.targets import GROUP_OF, GROUPS, canonical_selector

Router = Literal["topk", "dense", "sigmoid", "threshold"]
ROUTERS: Final[tuple[Router, ...]] = get_args(Router)
BLOCK_ROUTERS: Final = frozenset({"sigmoid", "threshold"})
"""Routers that stand once per transformer block (MoA) instead of once per adapted linear (MoLA)."""


@dataclass(frozen=True, slots=True)
class Site:
    """One linear that can carry experts: a weight of `d_out × d_in`, `path` below its layer."""

    name: str
    group: str
    d_in: int
    d_out: int
    path: str = ""


@dataclass(frozen=True, slots=True)
class ModelShape:
    """The linears of every transformer layer, bottom to top, with what budgets and block adapters need of the rest.

    `num_parameters` counts the base model (tied weights once); `stack` is the dotted name of the list of layers.
    """

    architecture: str
    layers: tuple[tuple[Site, ...], ...]
    hidden_size: int
    num_heads: int
    num_parameters: int
    stack: str = ""

    @property
    def num_layers(self) -> int:
        """Number of transformer layers."""
        return len(self.layers)

    @property
    def targets(self) -> tuple[str, ...]:
        """The names of the targets that any layer has, in canonical order."""
        present = {site.name for sites in self.layers for site in sites}
        return tuple(name for name in GROUP_OF if name in present)

    @property
    def digest(self) -> str:
        """Sixteen hex digits that change whenever an allocation would mean something else on this model."""
        text = repr((self.layers, self.hidden_size, self.num_heads))
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Routing:
    """What turns a layer's plan into modules; with the allocation it is a trial's identity.

    Attributes:
        router: `topk` (MoLA, HILO) or `dense` per adapted linear; `sigmoid` (MoA soft) or `threshold` (MoA sparse) per block.
        top_k: experts per token, one number or one per layer; only `topk` uses it.
        targets: groups or target names that may carry experts.
        swi_x: hidden width of a block router per expert (MoA's `swi_x`); 0 means a single linear.
    """

    router: Router = "topk"
    top_k: int | tuple[int, ...] = 2
    targets: tuple[str, ...] = GROUPS
    swi_x: int = 4

    def __post_init__(self) -> None:
        if self.router not in ROUTERS:
            raise InputError(f"`router` must be one of {shown(ROUTERS)}, but got {self.router!r}")
        ks = self.top_k if isinstance(self.top_k, tuple) else (self.top_k,)
        if not ks or any(isinstance(k, bool) or not isinstance(k, int) or k < 1 for k in ks):
            raise InputError(f"`top_k >= 1` must hold for every layer, but got {self.top_k}")
        if self.swi_x < 0:
            raise InputError(f"`swi_x >= 0` must hold, but got {self.swi_x}")
        object.__setattr__(self, "targets", _canonical_targets(self.targets))

    @property
    def per_block(self) -> bool:
        """Whether one router serves a whole transformer block."""
        return self.router in BLOCK_ROUTERS

    def top_k_of(self, layer: int) -> int:
        """Experts that one token uses in `layer`."""
        return self.top_k[layer] if isinstance(self.top_k, tuple) else self.top_k

    def admits(self, site: Site) -> bool:
        """Whether `site` may carry experts."""
        return site.name in self.targets or site.group in self.targets


def _canonical_targets(targets: Iterable[str]) -> tuple[str, ...]:
    if isinstance(targets, str):
        targets = [name.strip() for name in targets.split(",")]
    chosen = set()
    for name in targets:
        canonical = canonical_selector(name)
        if canonical is None:
            raise InputError(f"a target must be one of {shown([*GROUPS, *GROUP_OF], limit=20)}, but got {name!r}")
        chosen.add(canonical)
    if not chosen:
        raise InputError("`targets` must name at least one target, but got none")
    order = (*GROUPS, *GROUP_OF)
    kept = {name for name in chosen if name in GROUPS or GROUP_OF[name] not in chosen}
    return tuple(name for name in order if name in kept)
