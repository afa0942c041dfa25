"""The arithmetic of one adapted linear: all experts in two matrix products.

Every expert's A and the router's rows are stacked into one input matrix, every expert's B into one output matrix:

    [h, logits] = x · Wᵢₙᵀ                one product
    y = base + (h ⊙ gates · α / r) · Wₒᵤₜᵀ   one product; a gate is repeated over the ranks of its expert

That is Σ gᵢ · (α / rᵢ) · Bᵢ Aᵢ x without a loop, without gathering tokens and without a host sync. A linear with one expert has no gates
and is plain LoRA. Where a router serves a whole block, gates are given and Wᵢₙ has no router's rows.

Shapes: T tokens, N experts, R the sum of their ranks; Wᵢₙ is (R + N) × d_in, or R × d_in without a router; Wₒᵤₜ is d_out × R.

In memory, what is T × R or T × N is stored by column. Both are narrow: by row, a softmax over four experts or a product that repeats a
gate over eight ranks works on a few numbers at a time, which on a CPU takes three to seven times as long.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import linear

from allocsearch.core.geometry import BLOCK_ROUTERS, Router
from allocsearch.moelora.router import Gates, linear_gates, shares, softmax_backward


@dataclass(frozen=True, slots=True)
class Stack:
    """What the arithmetic needs to know of an adapted linear: ranks (largest first), α / r of each, and how gates are made."""

    ranks: tuple[int, ...]
    scaling: tuple[float, ...]
    router: Router = "topk"
    top_k: int = 2

    @property
    def num_experts(self) -> int:
        """Number of experts."""
        return len(self.ranks)

    @property
    def total_rank(self) -> int:
        """Sum of the experts' ranks."""
        return sum(self.ranks)

    @property
    def has_router(self) -> bool:
        """Whether Wᵢₙ ends in a router of its own: there is something to choose between, and no block router that chooses."""
        return len(self.ranks) > 1 and self.router not in BLOCK_ROUTERS

    @property
    def same_ranks(self) -> bool:
        """Whether all experts have one rank; then gates spread by a view, else through an index."""
        return len(set(self.ranks)) == 1

    def index(self) -> Tensor:
        """R numbers, the expert that each rank belongs to, then N ranks. Integers, so that no cast of a model can round them."""
        owners = [expert for expert, rank in enumerate(self.ranks) for _ in range(rank)]
        return torch.tensor([*owners, *self.ranks], dtype=torch.int64)


@dataclass(frozen=True, slots=True)
class Slice:
    """A smaller stack within the weights of a larger one: its rows of Wᵢₙ, its columns of Wₒᵤₜ, and its own `Stack.index()`."""

    stack: Stack
    rows: Tensor
    columns: Tensor
    index: Tensor

    def weights(self, w_in: Tensor, w_out: Tensor) -> tuple[Tensor, Tensor]:
        """The smaller stack's Wᵢₙ and Wₒᵤₜ."""
        return w_in.index_select(0, self.rows), w_out.index_select(1, self.columns)


class Mixture(NamedTuple):
    """The output, and of routed linears that are asked for it: Σ over tokens of each expert's probability, and how often it was chosen."""

    output: Tensor
    probability_sum: Tensor | None = None
    num_chosen: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Fixed:
    """What takes no part in differentiation.

    Attributes:
        stack: how to read the weights.
        index: `stack.index()` on the device.
        counted: whether to return the balance statistics.
        mask: T numbers, 0 for tokens that the statistics leave out; None counts all.
    """

    stack: Stack
    index: Tensor
    counted: bool = False
    mask: Tensor | None = None


def product_type(x: Tensor) -> torch.dtype:
    """The type that matrix products with `x` run in: its own, or autocast's."""
    return torch.get_autocast_dtype(x.device.type) if torch.is_autocast_enabled(x.device.type) else x.dtype


def stacked_experts(
    base: Tensor, x: Tensor, dropped: Tensor | None, *, weights: tuple[Tensor, Tensor], fixed: Fixed, gates: Tensor | None = None
) -> Mixture:
    """Add all experts' contribution to `base`, the frozen linear's output (… × d_out).

    The router sees `x` (… × d_in), the experts see `dropped`, or `x` where that is None. `weights` are Wᵢₙ and Wₒᵤₜ; they are cast to the
    type that the products run in. `gates` (T × N) are those of a block router.
    """
    dtype = product_type(x)
    flat = x.reshape(-1, x.shape[-1]).to(dtype)
    flat_dropped = None if dropped is None else dropped.reshape(-1, x.shape[-1]).to(dtype)
    operands = (base.reshape(-1, base.shape[-1]), flat, flat_dropped, *weights, gates, fixed)
    # The compiler fuses and rematerialises by itself, and can only do so with operations that it sees.
    output, total, chosen = _composed(*operands) if torch.compiler.is_compiling() else _Fused.apply(*operands)
    return Mixture(output.reshape(base.shape), total, chosen)


def _composed(  # noqa: PLR0917 - the signature of `_Fused`
    base: Tensor, x: Tensor, dropped: Tensor | None, w_in: Tensor, w_out: Tensor, given: Tensor | None, fixed: Fixed
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    h, logits = _project(x, dropped, w_in.to(x.dtype), fixed.stack)
    gates = _gates(logits, given, fixed.stack)
    if gates is None:
        return _add_product(base, h, w_out.to(x.dtype), scale=fixed.stack.scaling[0]), None, None
    mixed = spread_multiply(h, _scaled(gates.weights, fixed).to(x.dtype), fixed)
    sums = _balance_sums(gates, fixed.mask) if fixed.counted else (None, None)
    return _add_product(base, mixed, w_out.to(x.dtype)), *sums


class _Fused(torch.autograd.Function):
    """`_composed` with a hand-written backward: it keeps x, [h, logits] and the gates, and nothing of width R or d_out besides."""

    @staticmethod
    def forward(  # noqa: PLR0917 - `Function.apply` takes no keywords
        ctx: Any, base: Tensor, x: Tensor, dropped: Tensor | None, w_in: Tensor, w_out: Tensor, given: Tensor | None, fixed: Fixed
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        ctx.fixed, ctx.dtypes = fixed, (base.dtype, w_in.dtype, w_out.dtype)
        h, logits = _project(x, dropped, w_in.to(x.dtype), fixed.stack)
        gates = _gates(logits, given, fixed.stack)
        ctx.save_for_backward(x, dropped, h, logits, None if gates is None else gates.weights, w_in, w_out)
        if gates is None:
            return _add_product(base, h, w_out.to(x.dtype), scale=fixed.stack.scaling[0]), None, None
        total, chosen = _balance_sums(gates, fixed.mask) if fixed.counted else (None, None)
        if chosen is not None:
            ctx.mark_non_differentiable(chosen)
        mixed = spread_multiply(h, _scaled(gates.weights, fixed).to(x.dtype), fixed)
        return _add_product(base, mixed, w_out.to(x.dtype)), total, chosen

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor, grad_total: Tensor | None, _: Tensor | None) -> tuple[Tensor | None, ...]:
        x, dropped, h, logits, weights, w_in, w_out = ctx.saved_tensors
        fixed: Fixed = ctx.fixed
        grad = grad.to(x.dtype)
        grad_h = _by_column(grad, w_out.to(x.dtype).t())
        grad_weights: Any = None
        if weights is None:
            mixed, grad_z = h * fixed.stack.scaling[0], grad_h * fixed.stack.scaling[0]
        else:
            gates = _scaled(weights, fixed).to(x.dtype)
            mixed, grad_z = spread_multiply(h, gates, fixed), spread_multiply(grad_h, gates, fixed)
            grad_weights = _scaled(_sum_per_expert(grad_h * h, weights.dtype, fixed), fixed)
        if logits is not None:
            grad_logits = softmax_backward(weights, grad_weights)
            if grad_total is not None:
                grad_logits += _balance_backward(logits, grad_total, fixed.mask)
            grad_z, grad_weights = torch.cat((grad_z.t(), grad_logits.to(x.dtype).t())).t(), None
        grads = _project_backward(grad_z, x, dropped, w_in.to(x.dtype), needs=ctx.needs_input_grad[1:4], rank=fixed.stack.total_rank)
        base_dtype, in_dtype, out_dtype = ctx.dtypes
        return (
            grad.to(base_dtype) if ctx.needs_input_grad[0] else None,
            *grads[:2],
            None if grads[2] is None else grads[2].to(in_dtype),
            (grad.t() @ mixed).to(out_dtype) if ctx.needs_input_grad[4] else None,
            grad_weights,
            None,
        )


def _gates(logits: Tensor | None, given: Tensor | None, stack: Stack) -> Gates | None:
    if given is not None:
        return Gates(given, given)
    return None if logits is None else linear_gates(logits, router=stack.router, top_k=stack.top_k)


def _project(x: Tensor, dropped: Tensor | None, w_in: Tensor, stack: Stack) -> tuple[Tensor, Tensor | None]:
    """Projections onto all ranks (T × R), and the logits (T × N) where there is a router."""
    rank = stack.total_rank
    if dropped is None:
        z = _by_column(x, w_in)
        return (z[:, :rank], z[:, rank:]) if stack.has_router else (z, None)
    return _by_column(dropped, w_in[:rank]), _by_column(x, w_in[rank:]) if stack.has_router else None


def _by_column(x: Tensor, weight: Tensor) -> Tensor:
    """The product x · weightᵀ, stored by column."""
    return (weight @ x.t()).t()


def _project_backward(
    grad_z: Tensor, x: Tensor, dropped: Tensor | None, w_in: Tensor, *, needs: tuple[bool, bool, bool], rank: int
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    if dropped is None:
        return grad_z @ w_in if needs[0] else None, None, grad_z.t() @ x if needs[2] else None
    grad_h, grad_logits = grad_z[:, :rank], grad_z[:, rank:]
    return (
        grad_logits @ w_in[rank:] if needs[0] else None,
        grad_h @ w_in[:rank] if needs[1] else None,
        torch.cat((grad_h.t() @ dropped, grad_logits.t() @ x)) if needs[2] else None,
    )


def _add_product(base: Tensor, mixed: Tensor, w_out: Tensor, *, scale: float = 1.0) -> Tensor:
    if base.dtype == mixed.dtype:
        return torch.addmm(base, mixed, w_out.t(), alpha=scale)
    return base + scale * linear(mixed, w_out).to(base.dtype)  # a base layer that answers in a type of its own, such as a quantised one


def _scaled(values: Tensor, fixed: Fixed) -> Tensor:
    """T × N values times α / r of each expert."""
    stack = fixed.stack
    if len(set(stack.scaling)) == 1:
        return values * stack.scaling[0]
    alpha = stack.scaling[0] * stack.ranks[0]
    return values * (alpha / fixed.index[stack.total_rank :].to(values.dtype))


def spread_multiply(h: Tensor, gates: Tensor, fixed: Fixed) -> Tensor:
    """T × R values times the gate (T × N) of the expert that each rank belongs to."""
    stack = fixed.stack
    if stack.same_ranks:
        return (h.unflatten(-1, (stack.num_experts, stack.ranks[0])) * gates.unsqueeze(-1)).flatten(-2)
    return h * gates.t().index_select(0, fixed.index[: stack.total_rank]).t()


def _sum_per_expert(values: Tensor, dtype: torch.dtype, fixed: Fixed) -> Tensor:
    """T × R values summed over the ranks of each expert: T × N."""
    stack = fixed.stack
    if stack.same_ranks:
        return values.unflatten(-1, (stack.num_experts, stack.ranks[0])).sum(-1, dtype=dtype)
    sums = torch.zeros(stack.num_experts, values.shape[0], dtype=dtype, device=values.device)
    return sums.index_add_(0, fixed.index[: stack.total_rank], values.to(dtype).t()).t()


def _balance_sums(gates: Gates, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    chosen = (gates.weights > 0).to(gates.probabilities.dtype)
    if mask is None:
        return gates.probabilities.sum(0), chosen.sum(0)
    mask = mask.to(gates.probabilities.dtype)
    return mask @ gates.probabilities, mask @ chosen


def _balance_backward(logits: Tensor, grad_total: Tensor, mask: Tensor | None) -> Tensor:
    grad_logits = softmax_backward(shares(logits).to(grad_total.dtype), grad_total)
    return grad_logits if mask is None else grad_logits * mask.to(grad_logits.dtype).unsqueeze(-1)
