"""The flags of MoA's training script (arXiv 2506.05928): one size per kind of adapter, and the layers that have it."""

from collections.abc import Callable
from typing import Final

from allocsearch.core.errors import InputError
from allocsearch.core.plugins import KINDS
from allocsearch.formats.recipe import Document, Recipe, check_router, text_of
from allocsearch.moelora.block import MAX_THRESHOLD

_FORM: Final = "moa"
_TARGETS: Final = {"q": "Q", "k": "K", "v": "V", "o": "O", "up": "FFN_UP", "gate": "FFN_GATE", "down": "FFN_DOWN"}


def export(recipe: Recipe) -> Document:
    """One line of flags, for the soft script (`sigmoid`) or the sparse one (`threshold`).

    Raises:
        InputError: where a kind has more than one expert or several sizes, layers with LoRA experts differ in targets, or the router is
            another.
    """
    check_router(recipe, _FORM, ("sigmoid", "threshold"))
    foreign = next((kind for plan in recipe.allocation for kind in KINDS if plan.sizes(kind)), None)
    if foreign is not None:
        raise InputError(f"the moa format knows the kinds parallel and prompt, but the allocation names {foreign!r}: use --format yaml")
    targets, lora_layers, rank = _lora(recipe)
    flags: dict[str, str] = {}
    if targets:
        flags |= {
            "lora_layers": _spans(lora_layers),
            "lora_rank": str(rank),
            "lora_targets": ",".join(_TARGETS[name] for name in targets),
            "lora_alpha": text_of(recipe.alpha_of(rank)),
        }
    for kind, layers_flag, size_flag in (("parallel", "p_adapter_layers", "p_adapter_size"), ("prompt", "prompt_layers", "prompt_len")):
        layers, size = _block_kind(recipe, kind)
        if layers:
            flags |= {layers_flag: _spans(layers), size_flag: str(size)}
    if not flags:
        raise InputError("the moa format needs an expert in some layer, but all are frozen: export it with --format yaml")
    flags["swi_x"] = str(recipe.routing.swi_x)
    if recipe.routing.router == "threshold":
        flags |= {"max_threshold": str(MAX_THRESHOLD)}
    else:
        flags |= {"expert_num": "1"}
    script = "LLaMA3_sparse_moa" if recipe.routing.router == "threshold" else "LLaMA3_soft_moa"
    notes = [f"flags of main_finetune.py in {script}"]
    if not recipe.shape.architecture.startswith("Llama"):
        notes.append(f"that script trains Llama models; {recipe.shape.architecture} needs a port of it")
    line = " ".join(f"--{name} {value}" for name, value in flags.items()) + "\n"
    return Document({"moa.txt": line}, tuple(notes), line)


def _lora(recipe: Recipe) -> tuple[tuple[str, ...], list[int], int]:
    """The targets, layers and rank of the LoRA experts."""
    with_lora = {number: sites for number, sites in enumerate(recipe.layers) if sites}
    found = {tuple(site.name for site in sites): number for number, sites in reversed(with_lora.items())}
    if len(found) > 1:
        cases = " and ".join(
            f"{', '.join(names)} in layer {number}" for names, number in sorted(found.items(), key=lambda case: case[1])[:2]
        )
        raise InputError(f"the moa format takes one list of LoRA targets, but there are {cases}: export it with --format yaml")
    targets = next(iter(found), ())
    unknown = [name for name in targets if name not in _TARGETS]
    if unknown:
        raise InputError(
            f"the moa format knows the targets {', '.join(_TARGETS)}, but the allocation names {unknown[0]!r}: use --format yaml"
        )
    sizes = [(number, own) for number, sites in with_lora.items() for own in sites.values()]
    return targets, list(with_lora), _only_size(sizes, "LoRA", "rank")


def _block_kind(recipe: Recipe, kind: str) -> tuple[list[int], int]:
    sizes = [(number, plan.sizes(kind)) for number, plan in enumerate(recipe.allocation) if plan.sizes(kind)]
    return [number for number, _ in sizes], _only_size(sizes, kind, "size")


def _only_size(sizes: list[tuple[int, tuple[int, ...]]], kind: str, what: str) -> int:
    for number, own in sizes:
        if len(own) > 1:
            raise InputError(
                f"the moa format has one {kind} expert per place, but layer {number} has {len(own)}: export it with --format yaml"
            )
        if own != sizes[0][1]:
            raise InputError(
                f"the moa format has one {what} for all {kind} experts, but layer {sizes[0][0]} has {sizes[0][1][0]} and layer {number} "
                f"{own[0]}: export it with --format yaml"
            )
    return sizes[0][1][0] if sizes else 0


def _spans(layers: list[int]) -> str:
    """`0-8,24-32`: half-open ranges."""
    ends_here: Callable[[int], bool] = lambda i: i + 1 == len(layers) or layers[i + 1] != layers[i] + 1  # noqa: E731
    starts = [layer for i, layer in enumerate(layers) if i == 0 or ends_here(i - 1)]
    ends = [layer + 1 for i, layer in enumerate(layers) if ends_here(i)]
    return ",".join(f"{start}-{end}" for start, end in zip(starts, ends, strict=True))
