"""What scores look at: the frozen base, a few batches of the task, and the linears that may carry experts."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from allocsearch.core.geometry import ModelShape, Routing
from allocsearch.core.space import SearchSpace
from allocsearch.spec import ProxySpec
from allocsearch.training.collate import Batch, EncodedExample
from allocsearch.training.examples import Metric


@dataclass(frozen=True)
class Practice:
    """What a score that trains needs besides: the study's proxy on rows of the task.

    Attributes:
        space: where allocations are drawn from.
        proxy: how to train.
        train: rows to train on.
        search: rows to score on.
        metric: of the task; it says what a row's NLL is.
        pad_id: what fills rows up.
    """

    space: SearchSpace
    proxy: ProxySpec
    train: tuple[EncodedExample, ...]
    search: tuple[EncodedExample, ...]
    metric: Metric
    pad_id: int

    @property
    def seed(self) -> int:
        """The first of the proxy's: it decides rows, their order, initial weights and draws."""
        return self.proxy.seeds[0]


@dataclass(frozen=True)
class Probe:
    """A base model with batches to run it on; scores leave the model as it was.

    Attributes:
        model: a frozen causal language model.
        shape: its shape.
        routing: says which linears may carry experts.
        batches: training rows; a score that reads weights alone needs none.
        practice: for a score that trains.
    """

    model: Any
    shape: ModelShape
    routing: Routing
    batches: tuple[Batch, ...] = ()
    practice: Practice | None = None

    @property
    def layers(self) -> list[list[nn.Module]]:
        """The linears that may carry experts, by layer, bottom to top."""
        return [
            [self.block(layer).get_submodule(site.path) for site in sites if self.routing.admits(site)]
            for layer, sites in enumerate(self.shape.layers)
        ]

    def block(self, layer: int) -> nn.Module:
        """The transformer layer of that number."""
        found: nn.Module = self.model.get_submodule(f"{self.shape.stack}.{layer}")
        return found

    def forward(self) -> Iterator[tuple[Batch, Tensor]]:
        """Each batch with the logits that the model gives it."""
        for batch in self.batches:
            there = batch.to(self.model.device)
            yield there, self.model(**there.inputs, use_cache=False).logits

    @torch.no_grad()
    def watch(self, hooks: list[Any], see: Callable[[Batch], None]) -> None:
        """Run all batches without gradients, then take the hooks off. `see` is told each batch before it runs."""
        try:
            for batch in self.batches:
                there = batch.to(self.model.device)
                see(there)
                self.model(**there.inputs, use_cache=False)
        finally:
            for hook in hooks:
                hook.remove()


def real_tokens(hidden: Tensor, batch: Batch) -> Tensor:
    """The rows of `hidden` (rows × tokens × width) that are no padding, as one matrix."""
    return hidden[batch.attention_mask.bool()]
