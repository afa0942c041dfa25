"""Gates: how much each expert counts for each token.

Shapes: T tokens, N experts of one linear, R the sum of their ranks.
"""

from dataclasses import dataclass

import torch

from allocsearch.core.geometry import Router


@dataclass(frozen=True, slots=True)
class Gates:
    """Weights of the experts (T × N, zero where an expert is not chosen) and the softmax over all of them (T × N), in float32 at least."""

    weights: torch.Tensor
    probabilities: torch.Tensor


def linear_gates(logits: torch.Tensor, *, router: Router, top_k: int) -> Gates:
    """Gates of a per-linear router from its logits (T × N).

    MoLA takes the softmax over all experts, keeps the k largest and renormalises them. Exactly k experts are kept, ties or not; a k
    of N or more keeps all, which is the dense router.
    """
    probabilities = shares(logits)
    if router == "dense" or top_k >= logits.shape[-1]:
        return Gates(probabilities, probabilities)
    rows = probabilities.t()
    kept, chosen = rows.topk(top_k, dim=0)
    weights = torch.zeros_like(rows).scatter(0, chosen, kept / kept.sum(0, keepdim=True)).t()
    return Gates(weights, probabilities)


def shares(logits: torch.Tensor) -> torch.Tensor:
    """The softmax over experts of logits (T × N), in float32 at least, stored by column: by row it takes seven times as long."""
    return torch.softmax(logits.t().contiguous(), dim=0, dtype=torch.promote_types(logits.dtype, torch.float32)).t()


def softmax_backward(weights: torch.Tensor, grad: torch.Tensor) -> torch.Tensor:
    """Gradient for the logits of renormalised softmax weights.

    It serves both routers: renormalising the k best of a softmax is the softmax over their logits, and where a weight is zero its logit
    gets nothing.
    """
    product = weights * grad
    return product - weights * product.sum(-1, keepdim=True)
