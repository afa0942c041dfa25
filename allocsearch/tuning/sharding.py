"""A model whose layers are spread over the processes (PyTorch's FSDP2), as accelerate's settings ask for it.

Frozen weights are what takes the memory, so what counts is that each device holds its share of every layer and the whole of one or two at a
time. accelerate's own preparation is not used: it shards on GPUs alone, and takes the model from the root that PEFT puts around it, whose
hooks `generate` passes by.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from accelerate.utils import disable_fsdp_ram_efficient_loading, parse_flag_from_env
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard

from allocsearch.core.errors import InputError

_REFUSED: Final = {
    "FSDP_OFFLOAD_PARAMS": "keep the shards on the devices: leave fsdp_offload_params out",
    "FSDP_ACTIVATION_CHECKPOINTING": "ask for --gradient-checkpointing instead of fsdp_activation_checkpointing",
}


def is_asked_for() -> bool:
    """Whether accelerate was launched with FSDP.

    Raises:
        InputError: for its first version, and for options of it that would be passed over.
    """
    if not parse_flag_from_env("ACCELERATE_USE_FSDP"):
        return False
    version = os.environ.get("FSDP_VERSION", "1")
    if version != "2":
        raise InputError(f"sharding must be by FSDP2, but accelerate is set to version {version}: launch with --fsdp_version 2")
    for name, remedy in _REFUSED.items():
        if parse_flag_from_env(name):
            raise InputError(f"sharding must leave {name} off, but accelerate has it on: {remedy}")
    # Every process maps the same file of weights; nothing is gained by one that sends them to the others.
    disable_fsdp_ram_efficient_loading()
    return True


def shard(base: Any, layers: Any, accelerator: Any) -> None:
    """Spread `base`, of which `layers` are the decoder's or the encoder's, over all processes' devices, in place."""
    mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
    reshard = parse_flag_from_env("FSDP_RESHARD_AFTER_FORWARD", default=True)
    for layer in layers:
        fully_shard(layer, mesh=mesh, reshard_after_forward=reshard)
    fully_shard(base, mesh=mesh)


def is_sharded(model: Any) -> bool:
    """Whether the base under the adapted `model` is."""
    return isinstance(model.get_base_model(), FSDPModule)


@contextmanager
def without_exchange(model: Any) -> Iterator[None]:
    """Backward passes in here leave their gradients where they arise, to be added to those of a later pass."""
    base = model.get_base_model()
    base.set_requires_gradient_sync(False)
    try:
        yield
    finally:
        base.set_requires_gradient_sync(True)
