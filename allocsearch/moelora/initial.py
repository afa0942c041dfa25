"""Initial weights that depend on nothing but a seed and an expert's place: common random numbers.

Two allocations that are compared start from the same weights wherever they share experts, so the difference between their results
is due to the allocation, not to the draw. Growing a rank or adding an expert leaves the others' rows as they were.
"""

import math
from collections.abc import Iterable
from hashlib import blake2b

import torch

RowKey = tuple[str | int, ...]


def row_seed(*key: str | int) -> int:
    """A stable 63-bit seed for `key`; the same on every machine and in every Python."""
    digest = blake2b("\x1f".join(map(str, key)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def expert_rows(ranks: Iterable[int]) -> list[RowKey]:
    """Keys of the rows of all experts' A, stacked."""
    return [(expert, row) for expert, rank in enumerate(ranks) for row in range(rank)]


def router_rows(num_experts: int) -> list[RowKey]:
    """Keys of a router's rows; none where there is nothing to choose from."""
    return [("router", expert) for expert in range(num_experts)] if num_experts > 1 else []


@torch.no_grad()
def fill_rows(weight: torch.Tensor, keys: Iterable[RowKey], *, seed: int, layer: int, target: str, normal: bool = False) -> None:
    """Draw each row of `weight` from U(−1/√d, 1/√d), which is what kaiming_uniform(a=√5) gives a linear of d inputs.

    With `normal` rows are standard normal, as an embedding's. Weights on the meta device wait for a checkpoint.
    """
    if weight.device.type == "meta":
        return
    rows = list(keys)
    bound = 1 / math.sqrt(weight.shape[1])
    generator = torch.Generator("cpu")
    drawn = torch.empty(len(rows), weight.shape[1], dtype=torch.float32, device="cpu")
    for row, key in zip(drawn.unbind(0), rows, strict=True):
        generator.manual_seed(row_seed(seed, layer, target, *key))
        if normal:
            row.normal_(generator=generator)
        else:
            row.uniform_(-bound, bound, generator=generator)
    weight.copy_(drawn)
