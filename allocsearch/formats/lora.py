"""A plain LoRA adapter for PEFT, where an allocation has at most one expert everywhere: it can be merged, and served by what serves LoRA.

A layer's own rank goes into `rank_pattern`, and its α into `alpha_pattern` where α follows the rank.
"""

import tempfile
from collections import Counter
from pathlib import Path
from typing import Any, Final

from peft import LoraConfig
from safetensors.torch import load_file, save
from torch import Tensor

from allocsearch.core.errors import InputError
from allocsearch.formats.recipe import Document, Recipe, check_router, text_of

_FORM: Final = "lora"
_CONFIG: Final = "adapter_config.json"


def export(recipe: Recipe) -> Document:
    """The adapter's config, and `adapter_model.safetensors` where the trained weights were kept.

    Raises:
        InputError: where a linear has several experts, none has any, or a block router gates them by their input.
    """
    config = lora_config(recipe)
    with tempfile.TemporaryDirectory() as folder:
        config.save_pretrained(folder)  # PEFT knows which of its fields stay out of a file
        files: dict[str, str | bytes] = {_CONFIG: (Path(folder) / _CONFIG).read_text(encoding="utf-8")}
    if recipe.weights is None:
        return Document(files, ("the trial's weights were not kept: this is the config of an adapter to train",))
    return Document({**files, "adapter_model.safetensors": save(lora_tensors(load_file(recipe.weights)), {"format": "pt"})})


def lora_config(recipe: Recipe) -> LoraConfig:
    """The config that builds the allocation as PEFT's LoRA; see `export` for errors."""
    check_router(recipe, _FORM, ("topk", "dense"))
    ranks = {recipe.module(layer, site): sizes for layer, sites in enumerate(recipe.layers) for site, sizes in sites.items()}
    for module, sizes in ranks.items():
        if len(sizes) > 1:
            raise InputError(
                f"the lora format has one expert per linear, but {module!r} has {len(sizes)}: export it with --format peft, which keeps "
                "routers"
            )
    if not ranks:
        raise InputError("the lora format needs an expert in some layer, but all are frozen: pick another trial")
    common = Counter(sizes[0] for sizes in ranks.values()).most_common(1)[0][0]
    others = {module: sizes[0] for module, sizes in ranks.items() if sizes[0] != common}
    alphas = {module: recipe.alpha_of(rank) for module, rank in others.items()}
    return LoraConfig(
        task_type="CAUSAL_LM",
        base_model_name_or_path=recipe.base_model,
        r=common,
        lora_alpha=_number(recipe.alpha_of(common)),
        target_modules=_targets(recipe, list(ranks)),
        rank_pattern=others,
        alpha_pattern={module: _number(alpha) for module, alpha in alphas.items() if alpha != recipe.alpha_of(common)},
        lora_dropout=0.0,
        bias="none",
        inference_mode=recipe.weights is not None,
    )


def lora_tensors(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights of this package's tuner under the names of PEFT's LoRA; without a router, stacked A is A, and stacked B is B."""
    renamed = {"moelora_in": "lora_A.weight", "moelora_out": "lora_B.weight"}
    found = {}
    for key, tensor in tensors.items():
        stem, _, name = key.rpartition(".")
        if name not in renamed:
            raise InputError(f"weights of single experts must be `moelora_in` and `moelora_out`, but got {key!r}")
        found[f"{stem}.{renamed[name]}"] = tensor.contiguous()
    return found


def _targets(recipe: Recipe, modules: list[str]) -> list[str]:
    """Short names where they mean the same linears, else full ones."""
    short = sorted({module.rpartition(".")[2] for module in modules})
    every = [recipe.module(layer, site) for layer, sites in enumerate(recipe.shape.layers) for site in sites]
    reached = [module for module in every if module.rpartition(".")[2] in short]
    return short if sorted(reached) == sorted(modules) else modules


def _number(alpha: float) -> Any:
    """PEFT declares a whole α, and takes any."""
    return int(text_of(alpha)) if alpha == int(alpha) else alpha
