"""Experts of plug-in kinds beside an FFN: Σ gⱼ · expertⱼ(h), on the FFN's input, for adding to its output."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from allocsearch.core.plugins import KINDS
from allocsearch.moelora.block import Cell
from allocsearch.moelora.initial import row_seed


@dataclass(frozen=True, slots=True)
class Beside:
    """Experts of one kind in a block: their sizes, and the number of the first among the block's gates."""

    kind: str
    sizes: tuple[int, ...]
    first_gate: int


class BesideExperts(nn.Module):
    """All of a block, by kind. Each runs in the type of its own weights."""

    def __init__(self, dim: int, kinds: tuple[Beside, ...], *, device: torch.device | None, dtype: torch.dtype) -> None:
        super().__init__()
        self.dim, self.kinds = dim, kinds
        place = torch.device("cpu") if device is None else device
        with torch.random.fork_rng(devices=[]), torch.device(place):
            made = {one.kind: nn.ModuleList(KINDS[one.kind].build(dim, size) for size in one.sizes) for one in kinds}
        self.experts = nn.ModuleDict(made).to(device=place, dtype=dtype)

    def reset_parameters(self, *, seed: int, layer: int) -> None:
        """Draw each expert under a seed of its kind and number, so that blocks that share experts start equal in them."""
        for one in self.kinds:
            for number, (size, expert) in enumerate(zip(one.sizes, self._of(one), strict=True)):
                if any(parameter.device.type == "meta" for parameter in expert.parameters()):
                    continue
                with torch.random.fork_rng(devices=[]):
                    torch.manual_seed(row_seed(seed, layer, one.kind, number))
                    expert.load_state_dict(KINDS[one.kind].build(self.dim, size).state_dict())

    def forward(self, x: Tensor, cell: Cell) -> Tensor:
        """What to add to the FFN's output (… × d), from its input `x` (… × d) and the gates in the block's cell."""
        tokens = x.reshape(-1, x.shape[-1])
        added: Any = 0
        for one in self.kinds:
            gates = cell.columns(one.first_gate, len(one.sizes))
            for number, expert in enumerate(self._of(one)):
                weight = next(expert.parameters())
                added = added + gates[:, number : number + 1].to(weight.dtype) * expert(tokens.to(weight.dtype))
        return added.reshape(x.shape)

    def _of(self, one: Beside) -> Any:
        return self.experts[one.kind]
