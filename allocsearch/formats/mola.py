"""The arguments of MoLA's training script (arXiv 2402.08562): comma strings with one number per layer."""

from collections.abc import Iterable

from allocsearch.core.errors import InputError
from allocsearch.formats.recipe import Document, Recipe, check_frozen, check_router, check_same_targets, text_of

_FORM = "mola"


def export(recipe: Recipe) -> Document:
    """One line of arguments.

    Experts per token are cut to a layer's number of experts, since that script takes exactly `top_k` of them.

    Raises:
        InputError: where targets of a layer differ, a layer is frozen or mixes ranks, or the router is another.
    """
    check_router(recipe, _FORM, ("topk",))
    check_frozen(recipe, _FORM)
    sites = check_same_targets(recipe, _FORM)
    plans = [_shared(recipe, number) for number in range(len(recipe.allocation))]
    counts, ranks = [count for count, _ in plans], [rank for _, rank in plans]
    top_k = [min(recipe.routing.top_k_of(number), count) for number, count in enumerate(counts)]
    alpha, notes = _alpha(recipe, ranks)
    arguments = {
        "number_experts": f'"{_joined(counts)}"',
        "top_k": f'"{_joined(top_k)}"',
        "lora_r": f'"{_joined(ranks)}"',
        "lora_alpha": alpha,
        "lora_target_modules": f'"{_joined(site.path.rpartition(".")[2] for site in sites)}"',
        "obalance": "True",
    }
    if not recipe.shape.architecture.startswith("Llama"):
        notes.append(f"MoLA's script trains Llama models; {recipe.shape.architecture} needs a port of it")
    line = " ".join(f"--{name} {value}" for name, value in arguments.items()) + "\n"
    return Document({"mola.txt": line}, tuple(notes), line)


def _shared(recipe: Recipe, layer: int) -> tuple[int, int]:
    """The number of experts and the rank that all linears of a layer have."""
    sizes = recipe.layer(layer)
    first, ranks = next(iter(sizes.items()))
    for site, own in sizes.items():
        if own != ranks:
            raise InputError(
                f"the mola format gives all targets of a layer the same experts, but in layer {layer} {first.name} has ranks {list(ranks)} "
                f"and {site.name} {list(own)}: export it with --format guilomo, which names each linear"
            )
    if len(set(ranks)) > 1:
        raise InputError(
            f"the mola format has one rank per layer, but the experts of layer {layer} have {list(ranks)}: export it with --format guilomo"
        )
    return len(ranks), ranks[0]


def _alpha(recipe: Recipe, ranks: list[int]) -> tuple[str, list[str]]:
    """One α for all layers. Where each rank had its own, that of the smallest: then no expert is scaled by more than it was."""
    alphas = {rank: recipe.alpha_of(rank) for rank in ranks}
    alpha = text_of(min(alphas.values()))
    if len(set(alphas.values())) == 1:
        return alpha, []
    scaled = ", ".join(f"{float(alpha) / rank:.3g} at rank {rank}" for rank in sorted(alphas))
    return alpha, [
        f"MoLA takes one alpha for all layers: with {alpha} experts are scaled by {scaled}; the search used alpha {recipe.alpha}"
    ]


def _joined(values: Iterable[object]) -> str:
    return ",".join(map(str, values))
