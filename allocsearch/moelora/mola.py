"""Reads adapters that MoLA's own code saved (GCYZSL/MoLA).

Their folder names every expert's tensors and the rank of each layer, but not how many experts a token uses: that must be given. Expert
counts are read off the tensors' names. A layer with one expert has a router there too; it decides nothing and is left behind.
"""

import json
import os
import re
from pathlib import Path
from typing import Any, Final

import peft
from peft.utils import load_peft_weights
from torch import Tensor, nn

from allocsearch.core.allocation import Allocation, LayerPlan
from allocsearch.core.errors import InputError
from allocsearch.core.targets import locate
from allocsearch.moelora.config import MoeLoraConfig
from allocsearch.moelora.layer import MoeLoraLinear

_PREFIX: Final = "base_model.model."
_TENSOR: Final = re.compile(r"^(?P<linear>.+)\.(?:lora_(?P<side>[AB])_(?P<expert>\d+)|router\.router)\.weight$")


def load_mola(
    model: nn.Module, folder: str | os.PathLike[str], *, top_k: int | list[int], adapter_name: str = "default", is_trainable: bool = False
) -> Any:
    """`model` with the adapter that MoLA's code saved in `folder`, as a `PeftModel`.

    Args:
        model: the base model, without adapters.
        folder: holds `adapter_config.json` and `adapter_model.bin` (or `.safetensors`).
        top_k: experts per token, one number or one per layer, as the adapter was trained.
        adapter_name: name of the adapter in the result.
        is_trainable: whether to go on training it.

    Raises:
        InputError: where the folder is not such an adapter, or does not fit the model.
    """
    where = Path(folder)
    settings, linears = _settings(where), _linears(_tensors(where))
    num_layers = 1 + max((at.layer for name, _ in model.named_modules() if (at := locate(name)) is not None), default=-1)
    config = MoeLoraConfig(
        allocation=str(_allocation(linears, num_layers=num_layers)),
        top_k=top_k,
        lora_alpha=settings["lora_alpha"],
        lora_dropout=settings.get("lora_dropout", 0.0),
        task_type=settings.get("task_type"),
        inference_mode=not is_trainable,
    )
    adapted = peft.get_peft_model(model, config, adapter_name=adapter_name)
    modules = {name.removeprefix(_PREFIX): module for name, module in adapted.named_modules() if isinstance(module, MoeLoraLinear)}
    for name, parts in linears.items():
        _copy(modules[name], parts, adapter_name=adapter_name)
    return adapted


def _settings(where: Path) -> dict[str, Any]:
    path = where / "adapter_config.json"
    settings: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    if "lora_alpha" not in settings:
        raise InputError(f"a MoLA folder must have an adapter_config.json with lora_alpha, but {path} has none")
    return settings


def _tensors(where: Path) -> dict[str, Tensor]:
    if not any((where / f"adapter_model.{kind}").is_file() for kind in ("safetensors", "bin")):
        raise InputError(f"a MoLA folder must have adapter_model.bin or adapter_model.safetensors, but {where} has neither")
    tensors: dict[str, Tensor] = load_peft_weights(str(where), device="cpu")  # reads tensors alone from a pickle: no code runs
    return tensors


def _linears(tensors: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Tensors by linear, under `A0`, `B0`, … and `router`."""
    linears: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        match = _TENSOR.match(name.removeprefix(_PREFIX))
        if match is None or locate(match["linear"]) is None:
            raise InputError(f"a MoLA adapter's tensors must be lora_A_i, lora_B_i and router.router of known linears, but got {name!r}")
        linears.setdefault(match["linear"], {})[f"{match['side']}{match['expert']}" if match["side"] else "router"] = tensor
    return linears


def _allocation(linears: dict[str, dict[str, Tensor]], *, num_layers: int) -> Allocation:
    plans: list[dict[str, tuple[int, ...]]] = [{} for _ in range(num_layers)]
    for name, parts in linears.items():
        at = locate(name)
        if at is None or at.layer >= num_layers:
            raise InputError(f"an adapter's layers must be the model's, but {name!r} is not among its {num_layers} layers")
        plans[at.layer][at.target] = tuple(len(parts[f"A{i}"]) for i in range(_num_experts(parts)))
    return Allocation(tuple(LayerPlan(tuple(plan.items())) for plan in plans))


def _num_experts(parts: dict[str, Tensor]) -> int:
    return sum(name.startswith("A") for name in parts)


def _copy(module: MoeLoraLinear, parts: dict[str, Tensor], *, adapter_name: str) -> None:
    experts, router = module.expert_tensors(adapter_name)
    for i, (a, b) in enumerate(experts):
        a.copy_(parts[f"A{i}"])
        b.copy_(parts[f"B{i}"])
    if router is not None:
        router.copy_(parts["router"])
