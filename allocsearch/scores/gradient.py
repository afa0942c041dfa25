"""Squared gradients, after LoRA-SMoE (arXiv 2505.06272): layers whose weights the task wants to change get more experts.

The score of a layer is Σ ‖∂loss/∂W‖² over its linears, the mean over batches. LoRA-SMoE ranks single matrices by gradients of a sample
of rows; ours adds a layer's up, since a layer is what the other scores allot to.
"""

from typing import Any

import torch
from torch import Tensor

from allocsearch.core.errors import InputError
from allocsearch.scores.probe import Probe
from allocsearch.training.likelihood import completion_loss


def scores(probe: Probe) -> tuple[float, ...]:
    """The mean squared gradient norm of every layer's linears. The memory of one linear's gradient is needed at a time."""
    if not probe.batches:
        raise InputError("a score from gradients needs at least one batch, but got none")
    sums = [0.0] * probe.shape.num_layers
    weights: dict[int, tuple[Tensor, int]] = {}
    for layer, linears in enumerate(probe.layers):
        for linear in linears:
            weight: Any = linear.weight
            weights[id(weight)] = (weight, layer)
    frozen = [(parameter, parameter.requires_grad) for parameter in probe.model.parameters()]

    def take(weight: Tensor) -> None:
        assert weight.grad is not None
        sums[weights[id(weight)][1]] += weight.grad.float().square().sum().item() / len(probe.batches)
        weight.grad = None

    hooks = []
    try:
        for parameter, _ in frozen:
            parameter.requires_grad_(id(parameter) in weights)
        hooks = [weight.register_post_accumulate_grad_hook(take) for weight, _ in weights.values()]
        with torch.enable_grad():
            for batch, logits in probe.forward():
                completion_loss(batch, logits).backward()
    finally:
        for hook in hooks:
            hook.remove()
        for parameter, required in frozen:
            parameter.requires_grad_(required)
    return tuple(sums)
