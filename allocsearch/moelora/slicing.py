"""An adapter that acts as a smaller allocation: of each linear the first experts, and of each of these the first ranks.

Initial weights are keyed by place (`initial`), so a fresh adapter of the smaller allocation holds what the slices of a fresh larger one
hold. What a slice computes is what an adapter of its own with these weights would: the same α / r, routers that choose among the
experts that are left, no router where one is left, and a balance loss over these alone. Gradients reach the whole adapter, zero outside of
the slice.
"""

from itertools import accumulate
from typing import Any

from torch import Tensor

from allocsearch.core.allocation import Allocation
from allocsearch.core.errors import InputError
from allocsearch.core.plans import covering
from allocsearch.moelora.config import MoeLoraConfig
from allocsearch.moelora.layer import MoeLoraLinear
from allocsearch.moelora.stacked import Slice, Stack


def act_as(model: Any, allocation: Allocation | None, *, adapter_name: str = "default") -> None:
    """Make the adapter of a PEFT model act as `allocation`; None: as itself.

    Raises:
        InputError: where the adapter does not hold the allocation, or has a router per block, whose hidden units belong to no one expert.
    """
    config: MoeLoraConfig = model.peft_config[adapter_name]
    if config.routing.per_block:
        raise InputError(f"an adapter must have a router per linear to act as a smaller one, but it has {config.router!r}")
    if allocation is not None and (len(allocation) != len(config.plans) or covering((config.plans, allocation)) != config.plans):
        raise InputError(f"an adapter must hold the allocation that it acts as, but {config.allocation} does not hold {allocation}")
    for module in model.modules():
        if isinstance(module, MoeLoraLinear) and adapter_name in module.placements:
            here = module.placements[adapter_name]
            module.slices.pop(adapter_name, None)
            if allocation is not None:
                assert here.stack is not None, "without a block router, a linear is wrapped for its experts alone"
                ranks = allocation.layers[here.layer].sizes(here.target)
                scaling = tuple(config.scaling(rank) for rank in ranks)
                module.slices[adapter_name] = slice_of(here.stack, ranks, scaling, like=module.moelora_index[adapter_name])


def slice_of(stack: Stack, ranks: tuple[int, ...], scaling: tuple[float, ...], *, like: Tensor) -> Slice | None:
    """Where experts of these `ranks` lie in the weights of `stack`, on the device of `like`; None where there are none."""
    if not ranks:
        return None
    starts = list(accumulate(stack.ranks, initial=0))
    columns = [start + row for start, rank in zip(starts, ranks, strict=False) for row in range(rank)]
    own = Stack(ranks, scaling, router=stack.router, top_k=stack.top_k)
    routers = [stack.total_rank + expert for expert in range(len(ranks) if own.has_router else 0)]
    return Slice(own, like.new_tensor([*columns, *routers]), like.new_tensor(columns), own.index().to(like.device))
