"""What a router per transformer block needs (MoA, arXiv 2506.05928): the router, parallel adapters, and what its linears share.

The router stands on the block's first attention linear (`q`, or a fused `qkv`) and reads its input, the block's normalised hidden states.
The gates wait in the block's `Cell` for the linears that run later. A block is what gradient checkpointing runs again, so the cell is
always filled anew before it is read.

Shapes: T tokens, n experts of the block, d the hidden size.
"""

from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, silu

from allocsearch.core.allocation import Expert
from allocsearch.moelora.initial import fill_rows
from allocsearch.moelora.stacked import Fixed, Stack, product_type, spread_multiply

MAX_THRESHOLD: Final = 0.5
"""Γ_max, the largest threshold that a token can set."""


class Cell:
    """What the linears of one block hand on within a forward pass: the gates (T × n) and the output of the experts beside the FFN."""

    def __init__(self) -> None:
        self.gates: Tensor | None = None
        self.parallel: Tensor | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles carry no pass with them."""
        return {"gates": None, "parallel": None}

    def columns(self, first: int, count: int) -> Tensor:
        """The gates of `count` experts of the block, the first being number `first`."""
        assert self.gates is not None, "the block's first attention linear must run before its other linears"
        return self.gates[:, first : first + count]


@dataclass(frozen=True, slots=True)
class RouterSpec:
    """How a block router is built: the block's experts in gate order, and the router's form."""

    experts: tuple[Expert, ...]
    swi_x: int
    sparse: bool = False
    straight_through: bool = True


class BlockRouter(nn.Module):
    """Gates g = σ(W₂(SiLU(W₁ x) ⊙ W₃ x)) with biases and a hidden width of n · swi_x; swi_x = 0 is a single linear.

    Sparse: weights g · 1[g ≥ θ] with θ(x) = σ(wᵀx + b) · Γ_max. The comparison has no derivative. `straight_through` takes that of
    g − θ in its place, so that θ trains, and so does the gate of an expert that no token chose; without it θ stays as it was drawn,
    which is what the authors' code does.

    Tokens under the threshold get a weight of zero and are computed all the same. Training needs their products for the gradient of
    gates and threshold. Without gradients, on a CPU, gathering the others leaves an expert 0.5–1 of its time at 60 % skipped and
    0.25–0.8 at 90 % (`benchmarks/results/moelora_speed.md`), but an expert is a small part of its linear, and a new router skips nothing:
    gates start near ½, thresholds near ¼. On a GPU the count of active tokens would stop the host.

    It reads the block's normalised input, which is what attention reads too; the authors' code gives it the raw input of the block.

    Parameters: `inner` stacks W₁, W₃ and w, so that one product computes them; `outer` is W₂.
    """

    def __init__(self, dim: int, spec: RouterSpec, *, device: torch.device | None, dtype: torch.dtype) -> None:
        super().__init__()
        self.spec = spec
        made: dict[str, Any] = {"device": device, "dtype": dtype}
        num_experts = len(spec.experts)
        self.hidden = num_experts * spec.swi_x
        num_rows = (2 * self.hidden or num_experts) + spec.sparse
        self.inner = nn.Parameter(torch.empty(num_rows, dim, **made))
        self.inner_bias = nn.Parameter(torch.zeros(num_rows, **made))
        if self.hidden:
            self.outer = nn.Parameter(torch.empty(num_experts, self.hidden, **made))
            self.outer_bias = nn.Parameter(torch.zeros(num_experts, **made))

    def reset_parameters(self, *, seed: int, layer: int) -> None:
        """Draw rows by the expert that they serve, so that blocks that share experts start equal in them; biases stay zero."""
        names = _expert_names(self.spec.experts)
        units = [(matrix, *name, unit) for matrix in ("w1", "w3") for name in names for unit in range(self.spec.swi_x)]
        rows = units or [("w", *name) for name in names]
        fill_rows(self.inner, [*rows, *([("threshold",)] * self.spec.sparse)], seed=seed, layer=layer, target="block")
        if self.hidden:
            fill_rows(self.outer, [("w2", *name) for name in names], seed=seed, layer=layer, target="block")

    def forward(self, x: Tensor) -> Tensor:
        """The weights (T × n) of all experts for the tokens of `x` (… × d), in float32 at least."""
        dtype = product_type(x)
        z = linear(x.reshape(-1, x.shape[-1]).to(dtype), self.inner.to(dtype), self.inner_bias.to(dtype))
        logits = z[:, : len(self.spec.experts)]
        if self.hidden:
            hidden = silu(z[:, : self.hidden]) * z[:, self.hidden : 2 * self.hidden]
            logits = linear(hidden, self.outer.to(dtype), self.outer_bias.to(dtype))
        exact = torch.promote_types(dtype, torch.float32)
        gates = torch.sigmoid(logits.t().contiguous().to(exact)).t()  # by column, as linears multiply by them
        return self._sparse(gates, z[:, -1:].to(exact)) if self.spec.sparse else gates

    def _sparse(self, gates: Tensor, threshold_logits: Tensor) -> Tensor:
        margin = gates - torch.sigmoid(threshold_logits) * MAX_THRESHOLD
        passed = (margin >= 0).to(gates.dtype)
        return gates * (passed + (margin - margin.detach()) if self.spec.straight_through else passed)


class ParallelExperts(nn.Module):
    """Adapters beside the FFN: Σ gⱼ · Upⱼ(SiLU(Downⱼ(h))) with biases, on the FFN's input, for adding to its output.

    Up starts at zero, as a LoRA's B does, so that the block starts as the base model's; the authors draw both matrices with a gain of 1e-4.
    """

    def __init__(self, dim: int, widths: tuple[int, ...], *, device: torch.device | None, dtype: torch.dtype) -> None:
        super().__init__()
        made: dict[str, Any] = {"device": device, "dtype": dtype}
        self.stack = Stack(widths, (1.0,) * len(widths), router="sigmoid")
        self.down = nn.Parameter(torch.empty(sum(widths), dim, **made))
        self.down_bias = nn.Parameter(torch.zeros(sum(widths), **made))
        self.up = nn.Parameter(torch.zeros(dim, sum(widths), **made))
        self.up_bias = nn.Parameter(torch.zeros(len(widths), dim, **made))
        index = self.stack.index()
        self.register_buffer("index", index if device is None or device.type == "meta" else index.to(device), persistent=False)

    def reset_parameters(self, *, seed: int, layer: int) -> None:
        """Draw Down's rows by expert and unit."""
        rows = [(expert, unit) for expert, width in enumerate(self.stack.ranks) for unit in range(width)]
        fill_rows(self.down, rows, seed=seed, layer=layer, target="parallel")

    def forward(self, x: Tensor, gates: Tensor) -> Tensor:
        """What to add to the FFN's output (… × d), from its input `x` (… × d) and the experts' gates (T × their number)."""
        dtype = product_type(x)
        index: Any = self.index
        hidden = silu(linear(x.reshape(-1, x.shape[-1]).to(dtype), self.down.to(dtype), self.down_bias.to(dtype)))
        gates = gates.to(dtype)
        mixed = spread_multiply(hidden, gates, Fixed(self.stack, index))
        return (linear(mixed, self.up.to(dtype)) + gates @ self.up_bias.to(dtype)).reshape(x.shape)


def _expert_names(experts: tuple[Expert, ...]) -> list[tuple[str | int, ...]]:
    """Each expert's kind, target and number among its like: names that do not depend on the block's other experts."""
    seen: dict[tuple[str, str], int] = {}
    names: list[tuple[str | int, ...]] = []
    for expert in experts:
        kind = (expert.kind, expert.target)
        seen[kind] = seen.get(kind, -1) + 1
        names.append((*kind, seen[kind]))
    return names
