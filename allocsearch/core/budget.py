"""Exact parameter counts of an allocation, and the budgets that they must stay in."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from difflib import get_close_matches
from fractions import Fraction
from math import inf
from typing import Final

from allocsearch.core.allocation import BLOCK_KINDS, Allocation, Expert, LayerPlan
from allocsearch.core.errors import InputError, quoted, shown
from allocsearch.core.geometry import ModelShape, Routing, Site
from allocsearch.core.plugins import KINDS
from allocsearch.core.targets import GROUPS

_UNITS: Final = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9}
_TERM: Final = re.compile(r"^(?P<number>\d{1,30}(?:\.\d{1,30})?)(?:(?P<unit>[KMB]?)-(?P<what>params|active)|(?P<percent>%))$")
_SHARE: Final = re.compile(r"^\d{1,2}(?:\.\d{1,30})?$")


@dataclass(frozen=True, slots=True)
class Cost:
    """Parameters of an allocation: `trainable`, and the upper bound that is `active` for one token. Exact counts, not bytes."""

    trainable: int
    active: int

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.trainable + other.trainable, self.active + other.active)


@dataclass(frozen=True, slots=True)
class Budget:
    """Upper limits, inclusive. `max_percent` is of the base model's parameters until `resolve` turns it into `max_trainable`."""

    max_trainable: int | None = None
    max_active: int | None = None
    max_percent: float | None = None

    def __post_init__(self) -> None:
        limits = (self.max_trainable, self.max_active, self.max_percent)
        if all(limit is None for limit in limits) or not all(limit is None or 0 < limit < inf for limit in limits):
            raise InputError(f"a budget must have at least one limit and each must be positive, but got {self}")

    @classmethod
    def parse(cls, text: str) -> "Budget":
        """Read `50M-params` (trainable), `8M-active` (per token) or `1.5%` (of the base), joined by commas; K, M, B are powers of 1,000."""
        found: dict[str, Fraction] = {}
        for term in text.split(","):
            match = _TERM.match(term.strip())
            if match is None:
                raise InputError(
                    f"a budget must be like 50M-params, 8M-active or 1.5%, joined by commas, but got {quoted(text)}{_hint(term)}"
                )
            what = "percent" if match["percent"] else match["what"]
            if what in found:
                raise InputError(f"a budget must state each limit once, but got {what!r} twice in {quoted(text)}")
            found[what] = Fraction(match["number"]) * (1 if match["percent"] else _UNITS[match["unit"]])
        whole = {what: None if what not in found else round(found[what]) for what in ("params", "active")}
        percent = float(found["percent"]) if "percent" in found else None
        return cls(max_trainable=whole["params"], max_active=whole["active"], max_percent=percent)

    def resolve(self, shape: ModelShape) -> "Budget":
        """The same budget with `max_percent` turned into trainable parameters of `shape`."""
        if self.max_percent is None:
            return self
        share = int(shape.num_parameters * Fraction(repr(self.max_percent)) / 100)  # of the percentage as written: no binary rounding
        if share < 1:
            raise InputError(f"a budget must allow at least one parameter, but {self.max_percent}% of {shape.num_parameters:,} is none")
        limit = share if self.max_trainable is None else min(share, self.max_trainable)
        return Budget(max_trainable=limit, max_active=self.max_active)

    def excess(self, cost: Cost) -> dict[str, int]:
        """By how many parameters `cost` is over, per limit; empty when it is inside."""
        if self.max_percent is not None:
            raise InputError(f"a budget in percent must be resolved against a model first, but got {self}")
        over = {
            "trainable": cost.trainable - (cost.trainable if self.max_trainable is None else self.max_trainable),
            "active": cost.active - (cost.active if self.max_active is None else self.max_active),
        }
        return {what: by for what, by in over.items() if by > 0}

    def scaled(self, share: float) -> "Budget":
        """This budget with every limit times `share`, at least one parameter each."""
        if self.max_percent is not None:
            raise InputError(f"a budget in percent must be resolved against a model first, but got {self}")
        cut = [None if limit is None else max(1, int(limit * share)) for limit in (self.max_trainable, self.max_active)]
        return Budget(max_trainable=cut[0], max_active=cut[1])

    def __str__(self) -> str:
        terms = [
            None if self.max_trainable is None else f"{_exact(self.max_trainable)}-params",
            None if self.max_active is None else f"{_exact(self.max_active)}-active",
            None if self.max_percent is None else f"{_decimal(self.max_percent)}%",
        ]
        return ",".join(term for term in terms if term)


def cost(allocation: Allocation, shape: ModelShape, routing: Routing = Routing()) -> Cost:  # noqa: B008 - a frozen value
    """Trainable and active parameters of `allocation` on `shape`, as `numel` of an injected model would count them.

    Raises:
        InputError: where layers, targets or kinds do not fit the model or the router.
    """
    total = Cost(0, 0)
    for layer in layer_costs(allocation, shape, routing):
        total = total + layer
    return total


def layer_costs(allocation: Allocation, shape: ModelShape, routing: Routing = Routing()) -> tuple[Cost, ...]:  # noqa: B008
    """The cost of each layer, bottom to top."""
    if len(allocation) != shape.num_layers:
        raise InputError(
            f"an allocation must have one plan per layer, but got {len(allocation)} plans for {shape.num_layers} layers "
            f"of {shape.architecture}: repeat a plan with *n, as in 4x8*{shape.num_layers}"
        )
    if isinstance(routing.top_k, tuple) and len(routing.top_k) != shape.num_layers:
        raise InputError(f"`top_k` must be one number or one per layer, but got {len(routing.top_k)} for {shape.num_layers} layers")
    return tuple(plan_cost(plan, shape, layer=i, routing=routing) for i, plan in enumerate(allocation))


def plan_cost(plan: LayerPlan, shape: ModelShape, *, layer: int, routing: Routing) -> Cost:
    """The cost of `plan` in one layer of `shape`."""
    sites = tuple(site for site in shape.layers[layer] if routing.admits(site))
    _check_fits(plan, sites=sites, layer=layer, routing=routing)
    if routing.per_block:
        return _block_cost(plan, sites, shape, routing)
    total = Cost(0, 0)
    for site in sites:
        total = total + _linear_cost(plan.sizes(site.name), site, routing, top_k=routing.top_k_of(layer))
    return total


def _linear_cost(ranks: tuple[int, ...], site: Site, routing: Routing, *, top_k: int) -> Cost:
    """MoLA's per-linear router and experts (arXiv 2402.08562): Σ r_i (d_in + d_out) + N d_in, the router only where N > 1."""
    router = len(ranks) * site.d_in if len(ranks) > 1 else 0
    used = ranks if routing.router == "dense" else ranks[:top_k]  # sizes are sorted, so these are the largest
    width = site.d_in + site.d_out
    return Cost(trainable=router + sum(ranks) * width, active=router + sum(used) * width)


def _block_cost(plan: LayerPlan, sites: Iterable[Site], shape: ModelShape, routing: Routing) -> Cost:
    """MoA's block (arXiv 2506.05928): gated MLP router with biases, experts by kind, and the threshold's d + 1 where it is sparse."""
    by_name = {site.name: site for site in sites}
    experts = plan.experts(by_name.values())
    if not experts:
        return Cost(0, 0)
    d, n = shape.hidden_size, len(experts)
    hidden = n * routing.swi_x
    router = 2 * (d * hidden + hidden) + hidden * n + n if hidden else d * n + n
    threshold = d + 1 if routing.router == "threshold" else 0
    total = router + threshold + sum(_expert_cost(expert, by_name, shape) for expert in experts)
    return Cost(trainable=total, active=total)


def _expert_cost(expert: Expert, sites: dict[str, Site], shape: ModelShape) -> int:
    d, size = shape.hidden_size, expert.size
    if expert.kind == "parallel":  # down and up projections with biases
        return 2 * size * d + size + d
    if expert.kind == "prompt":  # the prompt and one gate per head
        return size * d + shape.num_heads
    if expert.kind in KINDS:
        return KINDS[expert.kind].parameters(d, size)
    return size * (sites[expert.target].d_in + sites[expert.target].d_out)


def _check_fits(plan: LayerPlan, *, sites: Iterable[Site], layer: int, routing: Routing) -> None:
    known = {site.name for site in sites}
    for name, sizes in plan.parts:
        if name in BLOCK_KINDS:
            if not routing.per_block:
                raise InputError(
                    f"a {name!r} expert needs a block router, but layer {layer} has one under {routing.router!r}: use sigmoid or threshold"
                )
        elif name not in GROUPS and sizes and name not in known:
            raise InputError(
                f"each target of a plan must be adaptable, but layer {layer} names {name!r} and the model offers {shown(known)}"
            )


def _hint(term: str) -> str:
    """The limit that a malformed term may have meant; nobody means a budget of two parameters."""
    if _SHARE.match(term.strip()):
        return f": did you mean {term.strip()}%?"
    count, _, what = term.strip().upper().partition("-")
    meant = next(iter(get_close_matches(what.lower(), ("params", "active"), n=1)), "params")
    found = f"{count}-{meant}"
    return f": did you mean {found}?" if _TERM.match(found) else ""


def _exact(count: int) -> str:
    """`count` in the largest unit that six digits state exactly, so that a printed budget parses back."""
    for unit in ("B", "M", "K"):
        text = f"{count / _UNITS[unit]:.6f}".rstrip("0").rstrip(".")
        if count >= _UNITS[unit] and Fraction(text) * _UNITS[unit] == count:
            return text + unit
    return str(count)


def short_count(count: int) -> str:
    """`count` to three digits, for tables: `6.91M`."""
    rounded = round(count, 3 - len(str(count)))  # first, so that 999,999 is 1M
    for unit in ("B", "M", "K"):
        if rounded >= _UNITS[unit]:
            return f"{rounded / _UNITS[unit]:.3g}{unit}"
    return str(count)


def _decimal(number: float) -> str:
    """All digits of `number` and no exponent, so that it parses back."""
    return f"{Decimal(repr(number)):f}".removesuffix(".0")
