"""Adapters that the authors' MoLA code has saved (arXiv 2402.08562), read into stacked parameters.

Such a folder holds `adapter_config.json`, with `r` a list of one rank per layer, and `adapter_model.safetensors` or `.bin` with
`….lora_A_{i}.weight`, `….lora_B_{i}.weight` and `….router.router.weight` for each adapted linear. It states neither how many experts a
layer has, which the tensors tell, nor how many a token uses, which the caller has to know.
"""

import json
import os
import pickle
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import torch
from peft import PeftModel, get_peft_model
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from allocsearch.core.allocation import Allocation
from allocsearch.core.errors import InputError, gist, quoted
from allocsearch.core.plans import plan_of
from allocsearch.core.targets import Location, locate
from allocsearch.moelora.config import MoeLoraConfig
from allocsearch.moelora.layer import linear_features

_CONFIG: Final = "adapter_config.json"
_WEIGHTS: Final = ("adapter_model.safetensors", "adapter_model.bin")
_KEY: Final = re.compile(r"^(?:base_model\.model\.)?(?P<module>.+)\.(?:lora_(?P<side>[AB])_(?P<expert>\d{1,4})|router\.router)\.weight$")


@dataclass(slots=True)
class _Linear:
    """What one adapted linear has in the checkpoint: A and B by expert number, and the router."""

    a: dict[int, Tensor] = field(default_factory=dict)
    b: dict[int, Tensor] = field(default_factory=dict)
    router: Tensor | None = None

    @property
    def num_experts(self) -> int:
        return len(self.a)

    @property
    def rank(self) -> int:
        return self.a[0].shape[0]


@dataclass(frozen=True, slots=True)
class _Settings:
    """The part of `adapter_config.json` that says what the tensors mean."""

    ranks: tuple[int, ...]
    alpha: float
    dropout: float
    task_type: str | None


def load_mola(
    model: nn.Module,
    folder: str | os.PathLike[str],
    *,
    top_k: int | Sequence[int] | None = None,
    adapter_name: str = "default",
    is_trainable: bool = False,
) -> PeftModel:
    """`model` with the experts of a MoLA checkpoint, as a PEFT model of this package's tuner: save it, and it can be loaded as any other.

    Expert numbers and ranks are read from the tensors. A layer with one expert loses its router: softmax over one is 1. A `.bin` is read
    without running any code that it might hold.

    Args:
        model: the base model that the checkpoint was trained on; its linears must have the names that the checkpoint's keys have.
        folder: holds `adapter_config.json` and the weights; `adapter_model.safetensors` is preferred to `.bin`.
        top_k: experts per token, one number or one per layer. The checkpoint does not say; MoLA's default is 2. More than a layer has
            means all.
        adapter_name: the adapter's name.
        is_trainable: whether to go on training it; otherwise it is frozen and in evaluation mode.

    Raises:
        InputError: where the folder is not such a checkpoint, or not one for `model`. `model` is then as it was.
    """
    path = Path(folder)
    settings = _settings(path / _CONFIG)
    linears = _linears(_tensors(path))
    where = {name: _location(name) for name in linears}
    for name, linear in linears.items():
        _check_linear(name, linear, layer=where[name].layer, ranks=settings.ranks)
        _check_fits(name, linear, model)
    config = MoeLoraConfig(
        allocation=str(_allocation(linears, where, model)),
        top_k=2 if top_k is None else top_k if isinstance(top_k, int) else list(top_k),
        target_modules=sorted({at.target for at in where.values()}),
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        task_type=settings.task_type,
        inference_mode=not is_trainable,
    )
    adapted = get_peft_model(model, config, adapter_name=adapter_name)
    for name, linear in linears.items():
        _copy(linear, adapted.base_model.model.get_submodule(name), adapter_name)
    return adapted if is_trainable else adapted.eval()


def _settings(file: Path) -> _Settings:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"a MoLA checkpoint must hold a JSON file {_CONFIG}, but {str(file)!r}: {gist(error)}") from error
    if not isinstance(content, dict):
        raise InputError(f"{_CONFIG} of a MoLA checkpoint must hold an object, but {str(file)!r} holds a {type(content).__name__}")
    ranks = content.get("r")
    if not isinstance(ranks, list) or not ranks or any(type(rank) is not int or rank < 1 for rank in ranks):
        raise InputError(
            f"`r` of a MoLA checkpoint must be a list of one rank per layer, but {str(file)!r} has {quoted(repr(ranks))}: "
            "a plain LoRA is loaded by peft.PeftModel.from_pretrained"
        )
    alpha, dropout = content.get("lora_alpha", 8), content.get("lora_dropout", 0.0)  # the defaults of MoLA's own config
    if not _is_number(alpha) or not alpha > 0 or not _is_number(dropout) or not 0 <= dropout < 1:
        raise InputError(f"`lora_alpha > 0` and `0 <= lora_dropout < 1` must hold, but {str(file)!r} has {alpha!r} and {dropout!r}")
    if content.get("bias", "none") != "none" or content.get("modules_to_save"):
        raise InputError(
            f"a MoLA checkpoint must hold experts and routers alone, but {str(file)!r} has `bias` {content.get('bias')!r} and "
            f"`modules_to_save` {content.get('modules_to_save')!r}: those cannot be loaded here"
        )
    return _Settings(tuple(ranks), alpha, dropout, content.get("task_type"))


def _tensors(folder: Path) -> Mapping[str, Tensor]:
    file = next((folder / name for name in _WEIGHTS if (folder / name).is_file()), None)
    if file is None:
        raise InputError(f"a MoLA checkpoint must hold {' or '.join(_WEIGHTS)}, but {str(folder)!r} holds neither")
    try:
        found = load_file(file) if file.suffix == ".safetensors" else torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise InputError(f"{str(file)!r} must hold tensors and nothing else, but reading it fails: {gist(error)}") from error
    if not isinstance(found, dict) or not found or not all(isinstance(value, Tensor) for value in found.values()):
        raise InputError(f"{str(file)!r} must hold named tensors, but holds {type(found).__name__}")
    return found


def _linears(tensors: Mapping[str, Tensor]) -> dict[str, _Linear]:
    linears: dict[str, _Linear] = {}
    for key, tensor in tensors.items():
        match = _KEY.match(key)
        if match is None or tensor.ndim != 2:  # noqa: PLR2004 - a matrix
            raise InputError(
                f"each tensor of a MoLA checkpoint must be a matrix under ….lora_A_i.weight, ….lora_B_i.weight or ….router.router.weight, "
                f"but got {quoted(key)} of shape {list(tensor.shape)}"
            )
        linear = linears.setdefault(match["module"], _Linear())
        if match["side"] is None:
            linear.router = tensor
        else:
            (linear.a if match["side"] == "A" else linear.b)[int(match["expert"])] = tensor
    return linears


def _location(name: str) -> Location:
    at = locate(name)
    if at is None:
        raise InputError(f"each module of a MoLA checkpoint must have a name that is known, but got {quoted(name)}: see core/targets.py")
    return at


def _check_linear(name: str, linear: _Linear, *, layer: int, ranks: tuple[int, ...]) -> None:
    numbers = list(range(linear.num_experts))
    if not numbers or sorted(linear.a) != numbers or sorted(linear.b) != numbers:
        raise InputError(
            f"the experts of a linear must be numbered from 0 and have an A and a B each, but {name!r} has A {sorted(linear.a)} and "
            f"B {sorted(linear.b)}: the file may be cut off"
        )
    if linear.router is None and linear.num_experts > 1:
        raise InputError(f"a linear with several experts must have a router, but {name!r} has {linear.num_experts} experts and none")
    if layer >= len(ranks):
        raise InputError(f"`r` must have a rank for every layer, but has {len(ranks)} and {name!r} is in layer {layer}")
    d_in, d_out = linear.a[0].shape[1], linear.b[0].shape[0]
    expected = {(ranks[layer], d_in), (d_out, ranks[layer])}
    for i in numbers:
        if {tuple(linear.a[i].shape), tuple(linear.b[i].shape)} != expected:
            raise InputError(
                f"each A must be r × d_in and each B d_out × r with the layer's rank {ranks[layer]} of {_CONFIG}, but expert {i} of "
                f"{name!r} has {list(linear.a[i].shape)} and {list(linear.b[i].shape)}"
            )
    if linear.router is not None and tuple(linear.router.shape) != (linear.num_experts, d_in):
        raise InputError(f"a router must be experts × d_in, {linear.num_experts} × {d_in} at {name!r}, but is {list(linear.router.shape)}")


def _check_fits(name: str, linear: _Linear, model: nn.Module) -> None:
    try:
        module = model.get_submodule(name)
    except AttributeError as error:
        raise InputError(
            f"each module of a MoLA checkpoint must be in the model, but {type(model).__name__} has no {name!r}: give the base model that "
            "it was trained on"
        ) from error
    offered = linear_features(module)
    needed = (linear.a[0].shape[1], linear.b[0].shape[0])
    if offered != needed:
        raise InputError(
            f"experts must fit their linear, but {name!r} has d_in, d_out {offered} and the checkpoint {needed}: it is for another model"
        )


def _allocation(linears: Mapping[str, _Linear], where: Mapping[str, Location], model: nn.Module) -> Allocation:
    """Targets that carry experts anywhere are all that routing will admit, so a layer's plan is about those alone."""
    stack = next(iter(where.values())).stack
    located = [at for name, _ in model.named_modules() if (at := locate(name)) is not None and at.stack == stack]
    targets = {at.target for at in where.values()}
    layers: list[dict[str, tuple[int, ...]]] = [{} for _ in range(max(at.layer for at in located) + 1)]
    for at in located:
        if at.target in targets:
            layers[at.layer][at.target] = ()
    for name, linear in linears.items():
        layers[where[name].layer][where[name].target] = (linear.rank,) * linear.num_experts
    return Allocation(tuple(plan_of(sizes) for sizes in layers))


@torch.no_grad()
def _copy(linear: _Linear, module: Any, adapter_name: str) -> None:
    experts, router = module.expert_tensors(adapter_name)
    for i, (a, b) in enumerate(experts):
        a.copy_(linear.a[i])
        b.copy_(linear.b[i])
    if router is not None:
        router.copy_(linear.router)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
