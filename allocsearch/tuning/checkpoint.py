"""A training in one safetensors file: the trained parameters, AdamW's two moments of each, and how many steps are done.

Nothing else is needed: the order of the rows and the learning rate are functions of the seed and the step, and nothing is drawn at random
during training.
"""

import json
import os
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from allocsearch.core.errors import InputError

FILE: Final = "checkpoint.safetensors"
_MOMENTS: Final = ("exp_avg", "exp_avg_sq")


def trained_parameters(model: Any) -> dict[str, torch.nn.Parameter]:
    """By name, in the model's order."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def save(path: Path, model: Any, optimiser: torch.optim.Optimizer, *, step: int, identity: dict[str, Any]) -> None:
    """Replace the checkpoint at `path`; a death while writing leaves the one before."""
    tensors: dict[str, torch.Tensor] = {}
    for name, parameter in trained_parameters(model).items():
        tensors[f"parameter/{name}"] = parameter.detach().contiguous()
        for moment in _MOMENTS:
            if parameter in optimiser.state:
                tensors[f"{moment}/{name}"] = optimiser.state[parameter][moment].contiguous()
    draft = path.with_name(f".{path.name}.part")
    save_file(tensors, draft, metadata={"step": str(step), "identity": json.dumps(identity)})
    with draft.open("rb") as written:
        os.fsync(written.fileno())
    draft.replace(path)


def read_identity(path: Path) -> dict[str, Any]:
    """What `save` was told.

    Raises:
        InputError: where there is no checkpoint, or it is damaged.
    """
    if not path.is_file():
        raise InputError(f"a resumed training must have a checkpoint, but {path} is not there: leave --resume out")
    try:
        with safe_open(path, "pt") as stored:
            found: dict[str, Any] = json.loads(stored.metadata()["identity"])
    except (SafetensorError, TypeError, KeyError, ValueError) as error:
        raise InputError(f"a checkpoint must be whole, but {path} is not ({error}): remove it and leave --resume out") from error
    return found


@torch.no_grad()
def restore(path: Path, model: Any, optimiser: torch.optim.Optimizer) -> int:
    """Put parameters and moments back; returns the number of steps that are done."""
    with safe_open(path, "pt") as stored:
        step = int(stored.metadata()["step"])
        held = set(stored.keys())
        for name, parameter in trained_parameters(model).items():
            parameter.copy_(stored.get_tensor(f"parameter/{name}"))
            if f"exp_avg/{name}" in held:
                moments = {moment: stored.get_tensor(f"{moment}/{name}").to(parameter.device) for moment in _MOMENTS}
                optimiser.state[parameter] = {"step": torch.tensor(float(step)), **moments}
    return step
