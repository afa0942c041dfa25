"""Representational complexity: layers that change their input more get more experts.

HILO (arXiv 2502.03884) allots by how complex a layer's representations are, without public code that says how it is measured. Ours is
the angular distance between a layer's input and output, arccos(cos(x, y)) / π, the mean over tokens (arXiv 2403.17887 measures blocks of
layers so, to find those that can go). A layer that passes its input on scores 0.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from allocsearch.core.errors import InputError
from allocsearch.scores.probe import Probe, real_tokens
from allocsearch.training.collate import Batch


def scores(probe: Probe) -> tuple[float, ...]:
    """The mean angular distance of every layer, 0 to 1."""
    if not probe.batches:
        raise InputError("a score from activations needs at least one batch, but got none")
    sums = [0.0] * probe.shape.num_layers
    now: dict[str, Any] = {"tokens": 0}

    def hook(layer: int) -> Any:
        def see(_module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any], output: Any) -> None:
            before = inputs[0] if inputs else named["hidden_states"]
            after = output[0] if isinstance(output, tuple) else output
            sums[layer] += angles(real_tokens(before, now["batch"]), real_tokens(after, now["batch"])).sum().item()

        return see

    def see_batch(batch: Batch) -> None:
        now["batch"] = batch
        now["tokens"] += int(batch.attention_mask.sum())

    hooks = [probe.block(layer).register_forward_hook(hook(layer), with_kwargs=True) for layer in range(probe.shape.num_layers)]
    probe.watch(hooks, see_batch)
    return tuple(total / now["tokens"] for total in sums)


def angles(x: Tensor, y: Tensor) -> Tensor:
    """Angles between rows, in half turns; by the half-angle formula, which is exact where arccos is not: near 0."""
    u, v = normalize(x.double(), dim=-1), normalize(y.double(), dim=-1)
    return 2 / math.pi * torch.atan2((u - v).norm(dim=-1), (u + v).norm(dim=-1))
