"""A training in one safetensors file: the trained parameters, AdamW's two moments of each, and how many steps are done.

The order of the rows and the learning rate are functions of the seed and the step, and nothing of ours is drawn at random during training.
Of a sharded model the file holds whole tensors, so the number of processes may change in between.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch.distributed.tensor import DTensor, distribute_tensor

from allocsearch.core.errors import InputError, line_of

FILE: Final = "checkpoint.safetensors"
_MOMENTS: Final = ("exp_avg", "exp_avg_sq")
_CHECKSUM: Final = "checksum"


class UnfitError(InputError):
    """A checkpoint is whole, and of another model than the one in training."""


class _UncheckedError(Exception):
    """A checkpoint comes from a time when none had a checksum."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A checkpoint that has been read whole.

    Attributes:
        step: how many steps are done.
        identity: what a training must share with it to go on from it.
        notes: what else was kept, as JSON values.
        tensors: by kind and parameter, on the CPU.
    """

    step: int
    identity: Mapping[str, Any]
    notes: Mapping[str, Any]
    tensors: dict[str, torch.Tensor]


def trained_parameters(model: Any) -> dict[str, torch.nn.Parameter]:
    """By name, in the model's order."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """`tensor` without its graph; one that is spread over processes is put together, for which all of them must ask."""
    tensor = tensor.detach()
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).contiguous()


def tensors_of(model: Any, optimiser: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """What `save` writes of a training; where the model is sharded, all processes must ask."""
    tensors = {}
    for name, parameter in trained_parameters(model).items():
        tensors[f"parameter/{name}"] = whole(parameter)
        for moment in _MOMENTS:
            if parameter in optimiser.state:
                tensors[f"{moment}/{name}"] = whole(optimiser.state[parameter][moment])
    return tensors


def save(
    path: Path, tensors: dict[str, torch.Tensor], *, step: int, identity: Mapping[str, Any], notes: Mapping[str, Any] | None = None
) -> None:
    """Replace the checkpoint at `path`; a death while writing leaves the one before."""
    draft = path.with_name(f".{path.name}.part")
    header = {"step": str(step), "identity": json.dumps(identity), "notes": json.dumps(notes or {})}
    save_file(tensors, draft, metadata={**header, _CHECKSUM: _checksum(header, tensors)})
    with draft.open("rb") as written:
        os.fsync(written.fileno())
    draft.replace(path)


def load(path: Path) -> Stored:
    """Read a checkpoint whole, so that one which breaks off half-way changes nothing.

    Raises:
        InputError: where there is no checkpoint, it is damaged, or an earlier version wrote it.
    """
    if not path.is_file():
        raise InputError(f"a resumed training must have a checkpoint, but {path} is not there: leave --resume out")
    try:
        with safe_open(path, "pt") as stored:
            header = dict(stored.metadata())
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 - it is no mapping
        _check_whole(header, tensors)
        return Stored(int(header["step"]), json.loads(header["identity"]), json.loads(header["notes"]), tensors)
    except _UncheckedError as error:
        raise InputError(
            f"a checkpoint must have a checksum, but {path} was written by an earlier version, without: remove it and leave --resume out"
        ) from error
    except Exception as error:  # the reason: a header of any kind makes safetensors and PyTorch raise errors of many kinds
        raise InputError(f"a checkpoint must be whole, but {path} is not ({line_of(error)}): remove it and leave --resume out") from error


@torch.no_grad()
def restore(stored: Stored, model: Any, optimiser: torch.optim.Optimizer) -> int:
    """Put parameters and moments back; returns the number of steps that are done.

    Raises:
        UnfitError: where they are of another model; nothing has changed then.
    """
    _check_fits(stored, model)
    for name, parameter in trained_parameters(model).items():
        parameter.copy_(_spread_as(parameter, stored.tensors[f"parameter/{name}"]))
        if f"exp_avg/{name}" in stored.tensors:
            moments = {moment: _spread_as(parameter, stored.tensors[f"{moment}/{name}"]) for moment in _MOMENTS}
            optimiser.state[parameter] = {"step": torch.tensor(float(stored.step)), **moments}
    return stored.step


def _spread_as(parameter: torch.Tensor, stored: torch.Tensor) -> torch.Tensor:
    """`stored` on the device of `parameter`, and sharded as that is."""
    here = stored.to(parameter.device)
    return distribute_tensor(here, parameter.device_mesh, parameter.placements) if isinstance(parameter, DTensor) else here


def _check_whole(header: dict[str, str], tensors: Mapping[str, torch.Tensor]) -> None:
    if _CHECKSUM not in header and "identity" in header:
        raise _UncheckedError
    if header.pop(_CHECKSUM) != _checksum(header, tensors):
        raise ValueError("its checksum is of other content")


def _check_fits(stored: Stored, model: Any) -> None:
    found = {name.partition("/")[2]: tuple(tensor.shape) for name, tensor in stored.tensors.items() if name.startswith("parameter/")}
    wanted = {name: tuple(parameter.shape) for name, parameter in trained_parameters(model).items()}
    for name in sorted(found.keys() | wanted.keys()):
        there, here = found.get(name, "not"), wanted.get(name, "not")
        if there != here:
            raise UnfitError(
                f"a checkpoint must be of the model in training, but {name!r} is {there} in it and {here} in the model: "
                "the base or the allocation has changed; remove the checkpoint"
            )


def _checksum(header: Mapping[str, str], tensors: Mapping[str, torch.Tensor]) -> str:
    """Of everything in the file: safetensors would not notice a byte that a disk has changed, and the training would go on from it."""
    hashed = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        hashed.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        hashed.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return hashed.hexdigest()
