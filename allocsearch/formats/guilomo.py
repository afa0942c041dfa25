"""GuiLoMo's pair of files (arXiv 2506.14646): `expert.json` with a number per linear, `rank.json` with a rank per expert.

Linears have their full names. Its code writes an expert's key as `{linear}.expertlora_E_vector_{i}`; `{linear}.{i}` is read too.
"""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from allocsearch.core.allocation import Allocation
from allocsearch.core.errors import InputError, line_of, quoted, shown
from allocsearch.core.geometry import ModelShape
from allocsearch.core.plans import plan_of
from allocsearch.formats.recipe import Document, Recipe, check_frozen, check_router, check_same_targets

_FORM: Final = "guilomo"
_EXPERT: Final = re.compile(r"^(?P<module>.+)\.(?:expertlora_E_vector_)?(?P<number>\d{1,4})$")

Counts = Mapping[str, int] | str | os.PathLike[str]


def export(recipe: Recipe) -> Document:
    """`expert.json` and `rank.json`.

    Raises:
        InputError: where its training script would fail or mean something else: a target that only some layers adapt, another router, or
            linears of one layer that let a token use different numbers of experts.
    """
    check_router(recipe, _FORM, ("topk",))
    check_frozen(recipe, _FORM)
    check_same_targets(recipe, _FORM)
    counts: dict[str, int] = {}
    ranks: dict[str, int] = {}
    top_k: list[int] = []
    for layer, sites in enumerate(recipe.layers):
        used = {min(recipe.routing.top_k_of(layer), len(sizes)) for sizes in sites.values()}
        if len(used) > 1:
            raise InputError(
                f"the guilomo format has one number of experts per token and layer, but in layer {layer} linears use {sorted(used)} of "
                f"theirs (top_k {recipe.routing.top_k_of(layer)}): export it with --format yaml"
            )
        top_k += used
        for site, sizes in sites.items():
            module = recipe.module(layer, site)
            counts[module] = len(sizes)
            ranks |= {f"{module}.expertlora_E_vector_{i}": rank for i, rank in enumerate(sizes)}
    files = {"expert.json": _text(counts), "rank.json": _text(ranks)}
    return Document(files, (f"train with --top_k {','.join(map(str, top_k))}", *_scaling_notes(recipe)))


def allocation_from_guilomo(expert_json: Counts, rank_json: Counts, shape: ModelShape) -> Allocation:
    """The allocation that the two files state for a model of `shape`; linears that they do not name stay frozen.

    Ranks beyond a linear's number of experts are passed over: GuiLoMo's search writes a rank for each expert that it began with.

    Args:
        expert_json: `{linear: number}`, or a file that holds it.
        rank_json: `{linear.expert: rank}`, or a file that holds it.
        shape: the model's.

    Raises:
        InputError: for what is no such file, a linear that the model lacks, and an expert without a rank.
    """
    counts, ranks = _read(expert_json), _ranks(_read(rank_json))
    names = {f"{shape.stack}.{layer}.{site.path}" for layer, sites in enumerate(shape.layers) for site in sites}
    for module in (*counts, *ranks):
        if module not in names:
            raise InputError(
                f"each linear must be in the model, but {shape.architecture} has no {quoted(module)}: its linears are like "
                f"{shown(sorted(names), limit=2)}"
            )
    for module in ranks:
        if module not in counts:
            raise InputError(f"each linear with ranks must have a number of experts, but {module!r} has none in the first file")
    layers = []
    for layer, sites in enumerate(shape.layers):
        of_target = {site.name: _sizes(f"{shape.stack}.{layer}.{site.path}", counts, ranks) for site in sites}
        layers.append(plan_of(of_target))
    return Allocation(tuple(layers))


def _sizes(module: str, counts: Mapping[str, int], ranks: Mapping[str, Mapping[int, int]]) -> tuple[int, ...]:
    own = ranks.get(module, {})
    missing = [i for i in range(counts.get(module, 0)) if i not in own]
    if missing:
        raise InputError(f"each expert must have a rank, but expert {missing[0]} of {counts[module]} of {module!r} has none")
    return tuple(own[i] for i in range(counts.get(module, 0)))


def _ranks(entries: Mapping[str, int]) -> dict[str, dict[int, int]]:
    found: dict[str, dict[int, int]] = {}
    for key, rank in entries.items():
        match = _EXPERT.match(key)
        if match is None:
            raise InputError(f"a rank's key must be a linear's name and an expert's number, but got {quoted(key)}")
        found.setdefault(match["module"], {})[int(match["number"])] = rank
    return found


def _read(source: Counts) -> dict[str, int]:
    content: object = source
    if not isinstance(source, Mapping):
        try:
            content = json.loads(Path(source).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(f"a GuiLoMo file must be JSON, but {str(source)!r}: {line_of(error)}") from error
    if not isinstance(content, Mapping) or any(type(value) is not int or value < 1 for value in content.values()):
        raise InputError(f"a GuiLoMo file must hold one object of whole numbers >= 1, but got {quoted(repr(content))}")
    return {str(key): value for key, value in content.items()}


def _scaling_notes(recipe: Recipe) -> tuple[str, ...]:
    """Its code scales all experts of a linear by α over the rank of the last one."""
    scalings = {recipe.alpha_of(rank) / rank for sites in recipe.layers for sizes in sites.values() for rank in sizes}
    if len(scalings) == 1 and all(len(set(sizes)) == 1 for sites in recipe.layers for sizes in sites.values()) and _one_alpha(recipe):
        return ()
    return (
        f"GuiLoMo scales all experts of a linear by lora_alpha over its last expert's rank; the search used alpha {recipe.alpha} for each",
    )


def _one_alpha(recipe: Recipe) -> bool:
    return len({recipe.alpha_of(rank) for sites in recipe.layers for sizes in sites.values() for rank in sizes}) == 1


def _text(entries: Mapping[str, int]) -> str:
    return json.dumps(entries, indent=4) + "\n"
