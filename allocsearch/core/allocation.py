"""`Allocation`: which experts of which rank each layer gets, and its text form.

    4x8                     four experts of rank 8 on every target
    8+8+4                   three experts of ranks 8, 8 and 4
    0                       a frozen layer
    attn:2x8,ffn:4x16       different plans per group; a target's own name (`q:`, `down:`) is finer
    parallel:16,prompt:10   MoA's other kinds: an adapter beside the FFN (width), a prompt (length)
    2x8*8 4x8*8             layers bottom to top; `*n` repeats

Values are canonical: two allocations that say the same are equal, and print the same.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Final

from allocsearch.core.errors import InputError, quoted, shown
from allocsearch.core.geometry import Site
from allocsearch.core.plugins import KINDS, PROBLEMS
from allocsearch.core.targets import GROUP_OF, GROUPS, canonical_selector

BLOCK_KINDS: Final = ("parallel", "prompt", *KINDS)
"""Kinds that belong to a transformer block instead of one of its linears; only a block router can gate them."""

Sizes = tuple[int, ...]

_MAX_SIZE: Final = 65_536
_MAX_EXPERTS: Final = 4_096
_MAX_LAYERS: Final = 4_096
_ORDER: Final = {
    name: i
    for i, name in enumerate([*(n for group in GROUPS for n in (group, *(t for t, g in GROUP_OF.items() if g == group))), *BLOCK_KINDS])
}
_LAYER: Final = re.compile(r"^(?P<plan>[^*]+)(?:\*(?P<times>\d{1,9}))?$")
_TERM: Final = re.compile(r"^(?:(?P<count>\d{1,9})x)?(?P<size>\d{1,9})$")


@dataclass(frozen=True, slots=True, order=True)
class Expert:
    """One expert: a LoRA of rank `size`, a parallel adapter of width `size`, a prompt of length `size`, or of a plug-in's kind."""

    size: int
    kind: str = "lora"
    target: str = ""


@dataclass(frozen=True, slots=True)
class LayerPlan:
    """The experts of one layer: `parts` maps a group, a target or a block kind to its experts' sizes, largest first.

    A target takes the plan under its own name, else its group's; a target that nothing names stays frozen. Experts under one
    router are exchangeable, so sizes are kept sorted.
    """

    parts: tuple[tuple[str, Sizes], ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "parts", _canonical_parts(self.parts))

    @classmethod
    def of(cls, num_experts: int, rank: int) -> "LayerPlan":
        """`num_experts` experts of one rank on every target (MoLA)."""
        return cls.on_all((rank,) * num_experts)

    @classmethod
    def on_all(cls, sizes: Iterable[int]) -> "LayerPlan":
        """The same expert sizes on every target."""
        shared = tuple(sizes)
        return cls(tuple((group, shared) for group in GROUPS))

    @classmethod
    def parse(cls, text: str) -> "LayerPlan":
        """Read one layer of the text form, such as `4x8` or `attn:2x8,ffn:4x16`."""
        if ":" not in text:
            return cls.on_all(_parse_sizes(text, of=text))
        parts: dict[str, Sizes] = {}
        for item in text.split(","):
            name, colon, sizes = item.partition(":")
            selector = name if name in BLOCK_KINDS else canonical_selector(name)
            if not colon or selector is None:
                raise InputError(
                    f"each part of a plan must be `target:sizes` with a target of {shown(_ORDER, limit=20)}, "
                    f"but got {quoted(item)} in {quoted(text)}" + "".join(f"; {problem}" for problem in PROBLEMS)
                )
            if selector in parts:
                raise InputError(f"a plan must name a target once, but got {selector!r} twice in {quoted(text)}")
            parts[selector] = _parse_sizes(sizes, of=text)
        return cls(tuple(parts.items()))

    def sizes(self, target: str) -> Sizes:
        """Ranks of the LoRA experts on `target` (largest first), or the sizes under a block kind; empty where there are none."""
        parts = dict(self.parts)
        return parts.get(target, parts.get(GROUP_OF.get(target, ""), ()))

    def experts(self, sites: Iterable[Site]) -> tuple[Expert, ...]:
        """All experts of this plan on a block with `sites`: LoRA experts in the sites' order, then block kinds."""
        loras = tuple(Expert(size, "lora", site.name) for site in sites for size in self.sizes(site.name))
        blocks = tuple(Expert(size, kind) for kind in BLOCK_KINDS for size in self.sizes(kind))
        return loras + blocks

    @property
    def is_frozen(self) -> bool:
        """Whether this layer has no experts."""
        return not self.parts

    @property
    def uniform(self) -> Sizes | None:
        """The sizes that every target shares, or None where targets differ."""
        if not self.parts:
            return ()
        names = tuple(name for name, _ in self.parts)
        return self.parts[0][1] if names == GROUPS and self.parts[0][1] == self.parts[1][1] else None

    def __str__(self) -> str:
        shared = self.uniform
        if shared is not None:
            return _sizes_text(shared)
        return ",".join(f"{name}:{_sizes_text(sizes)}" for name, sizes in self.parts)


@dataclass(frozen=True, slots=True)
class Allocation:
    """The plans of all layers, bottom to top. `str` gives the text form and `parse` reads it back."""

    layers: tuple[LayerPlan, ...]

    def __post_init__(self) -> None:
        if not self.layers:
            raise InputError("an allocation must have at least one layer, but got none: write `0` for a frozen layer")

    @classmethod
    def uniform(cls, num_layers: int, *, num_experts: int, rank: int) -> "Allocation":
        """The same `num_experts` experts of `rank` in every layer."""
        return cls((LayerPlan.of(num_experts, rank),) * num_layers)

    @classmethod
    def parse(cls, text: str) -> "Allocation":
        """Read the text form; errors name the layer's text that does not parse."""
        layers: list[LayerPlan] = []
        for token in text.split():
            match = _LAYER.match(token)
            if match is None:
                raise InputError(f"a layer must be `plan` or `plan*times`, such as 4x8*8, but got {quoted(token)}")
            times = int(match["times"] or 1)
            if not 1 <= times <= _MAX_LAYERS:
                raise InputError(f"`1 <= times <= {_MAX_LAYERS}` must hold, but got {quoted(token)}")
            layers += [LayerPlan.parse(match["plan"])] * times
            if len(layers) > _MAX_LAYERS:
                raise InputError(f"`layers <= {_MAX_LAYERS}` must hold, but got {len(layers)} up to {quoted(token)}")
        return cls(tuple(layers))

    @property
    def num_layers(self) -> int:
        """Number of layers, frozen ones included."""
        return len(self.layers)

    @property
    def digest(self) -> str:
        """Sixteen hex digits of the canonical text."""
        return hashlib.sha256(str(self).encode()).hexdigest()[:16]

    def __len__(self) -> int:
        return len(self.layers)

    def __iter__(self) -> Iterator[LayerPlan]:
        return iter(self.layers)

    def __str__(self) -> str:
        runs = ((str(plan), len(list(run))) for plan, run in groupby(self.layers))
        return " ".join(text if times == 1 else f"{text}*{times}" for text, times in runs)


def _parse_sizes(text: str, *, of: str) -> Sizes:
    if text == "0":
        return ()
    sizes: list[int] = []
    for term in text.split("+"):
        match = _TERM.match(term)
        if match is None:
            raise InputError(f"sizes must be like `8`, `4x8` or `8+8+4`, but got {quoted(term)} in {quoted(of)}")
        count = int(match["count"]) if match["count"] is not None else 1
        if not 0 < count <= _MAX_EXPERTS:
            raise InputError(f"`1 <= experts <= {_MAX_EXPERTS}` must hold, but got {quoted(term)} in {quoted(of)}: write `0` for none")
        sizes += [int(match["size"])] * count
    return tuple(sizes)


def _sizes_text(sizes: Sizes) -> str:
    if not sizes:
        return "0"
    if len(sizes) > 1 and len(set(sizes)) == 1:
        return f"{len(sizes)}x{sizes[0]}"
    return "+".join(map(str, sizes))


def _canonical_parts(parts: Iterable[tuple[str, Sizes]]) -> tuple[tuple[str, Sizes], ...]:
    """Sizes sorted, selectors in order, nothing said twice: a target equal to its group's plan, or a group without experts, goes."""
    given: Mapping[str, Sizes] = {name: tuple(sorted(sizes, reverse=True)) for name, sizes in parts}
    for name, sizes in given.items():
        if name not in _ORDER:
            raise InputError(f"a plan's target must be one of {shown(_ORDER, limit=20)}, but got {name!r}")
        if any(not 1 <= size <= _MAX_SIZE for size in sizes) or len(sizes) > _MAX_EXPERTS:
            raise InputError(
                f"`1 <= size <= {_MAX_SIZE}` must hold for each of at most {_MAX_EXPERTS} experts, but {name!r} got {shown(sizes)}"
            )
    kept = {name: sizes for name, sizes in given.items() if sizes != given.get(GROUP_OF.get(name, ""), ())}
    return tuple(sorted(kept.items(), key=lambda part: _ORDER[part[0]]))
