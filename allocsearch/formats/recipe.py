"""What a format is given (`Recipe`), what it gives back (`Document`), and the questions that several formats ask."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from allocsearch.core.allocation import Allocation, Sizes
from allocsearch.core.errors import InputError
from allocsearch.core.geometry import ModelShape, Routing, Site


@dataclass(frozen=True, slots=True)
class Recipe:
    """An allocation with all that gives it a meaning outside this package.

    Attributes:
        allocation: the experts of each layer.
        shape: the base model's.
        routing: what turns plans into modules.
        alpha: LoRA's α for every expert, or `2r` for twice each expert's rank.
        base_model: what an adapter names as its base.
        weights: the trained weights, as this package's tuner saves them, where they were kept.
    """

    allocation: Allocation
    shape: ModelShape
    routing: Routing
    alpha: float | str
    base_model: str
    weights: Path | None = None

    def layer(self, number: int) -> dict[Site, Sizes]:
        """The linears of a layer that carry experts, with their ranks, in the model's order."""
        plan = self.allocation.layers[number]
        sites = (site for site in self.shape.layers[number] if self.routing.admits(site))
        return {site: plan.sizes(site.name) for site in sites if plan.sizes(site.name)}

    @property
    def layers(self) -> list[dict[Site, Sizes]]:
        """`layer` of all layers, bottom to top."""
        return [self.layer(number) for number in range(len(self.allocation))]

    def module(self, layer: int, site: Site) -> str:
        """The full name of a linear."""
        return f"{self.shape.stack}.{layer}.{site.path}"

    def alpha_of(self, rank: int) -> float:
        """α of an expert of `rank`."""
        return float(str(self.alpha).removesuffix("r")) * rank if isinstance(self.alpha, str) else self.alpha


@dataclass(frozen=True, slots=True)
class Document:
    """The files of an export by name, and what their reader should know that they cannot say.

    `text` is the one file's, where the export is one line to paste and not a folder to point to.
    """

    files: Mapping[str, str | bytes]
    notes: tuple[str, ...] = ()
    text: str | None = None


def check_router(recipe: Recipe, form: str, routers: tuple[str, ...]) -> None:
    """Refuse a router that the format's code does not have."""
    if recipe.routing.router not in routers:
        raise InputError(
            f"the {form} format needs the router {' or '.join(routers)}, but the allocation was found under {recipe.routing.router!r}: "
            "export it with --format yaml"
        )


def check_frozen(recipe: Recipe, form: str) -> None:
    """Refuse a layer without experts, for code that puts some on every layer."""
    for number, sites in enumerate(recipe.layers):
        if not sites:
            raise InputError(f"the {form} format needs experts in every layer, but layer {number} is frozen: export it with --format yaml")


def check_same_targets(recipe: Recipe, form: str) -> tuple[Site, ...]:
    """The linears of a layer that carry experts, for code that takes one list of targets for all layers."""
    layers = [tuple(sites) for sites in recipe.layers]
    names = [tuple(site.path for site in sites) for sites in layers]
    for number, own in enumerate(names):
        if own != names[0]:
            raise InputError(
                f"the {form} format takes one list of targets for all layers, but layer 0 has experts on {', '.join(names[0]) or 'none'} "
                f"and layer {number} on {', '.join(own) or 'none'}: export it with --format yaml"
            )
    last = {path.rpartition(".")[2] for path in names[0]}
    for sites in recipe.shape.layers:
        for site in sites:
            if site.path not in names[0] and any(site.path.endswith(name) for name in last):
                raise InputError(
                    f"the {form} format names targets by the end of their path, but that would also reach {site.path!r}, which is frozen: "
                    "export it with --format yaml"
                )
    return layers[0]


def text_of(number: float) -> str:
    """A number without a needless `.0`, for scripts that expect a whole one."""
    return str(int(number)) if number == int(number) else str(number)
