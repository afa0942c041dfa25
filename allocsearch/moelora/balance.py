"""The balance loss: a pull towards experts that share the tokens (MoLA, arXiv 2402.08562).

Per layer N · Σᵢ fᵢ Pᵢ, with f the share of the top-k selections and P the mean router probability over the tokens that are not padding; a
layer's linears are pooled along tokens. Perfect balance gives 1. Where a layer's linears have different numbers of experts, each
number makes a group, and groups count by their tokens, so that perfect balance still gives 1 a layer.

Every routed linear returns two small sums per forward pass. A hook on the root module turns them into the loss of the pass.

Reentrant gradient checkpointing runs a block's first forward pass without a graph, so its sums cannot carry gradient. They then become
leaves of their own: the backward pass reaches them before it reaches any block, and when the block is run again, `_Attach` hands the
gradient that waits there to the sums that have a graph.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from inspect import signature
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers.loss.loss_utils import LOSS_MAPPING, ForCausalLMLoss

from allocsearch.core.errors import InputError

_IGNORED_LABEL: Final = -100


@dataclass(slots=True)
class _Entry:
    """What one adapted linear saw in one pass."""

    module: nn.Module
    adapter: str
    layer: int
    probability_sum: Tensor
    num_chosen: Tensor


class Book:
    """The sums of one forward pass of the root module: open during the pass, closed afterwards."""

    def __init__(self, ledger: "Ledger", attention_mask: Tensor | None) -> None:
        self.ledger = ledger
        self.entries: list[_Entry] = []
        self.leaves: dict[tuple[nn.Module, str], list[Tensor]] = defaultdict(list)
        self.closed = False
        self._attention_mask = attention_mask
        self._masks: dict[tuple[object, ...], Tensor | None] = {}

    def mask(self, x: Tensor) -> Tensor | None:
        """For each token of `x` whether it counts, in the order of `x` flattened; None counts all, also where shapes say nothing."""
        key = (x.shape[:-1], x.device)
        if key not in self._masks:
            self._masks[key] = token_mask(self._attention_mask, x)
        return self._masks[key]

    def enter(self, output: Tensor, probability_sum: Tensor, num_chosen: Tensor, *, module: nn.Module, adapter: str, layer: int) -> Tensor:
        """Note the sums of one linear; returns the linear's output, which carries their gradient if the pass is a replay."""
        if not self.closed:
            self.entries.append(_Entry(module, adapter, layer, probability_sum, num_chosen))
            return output
        leaf = self.leaves[module, adapter].pop()
        return output if leaf.grad is None else _Attach.apply(output, probability_sum, leaf.grad)

    def close(self) -> None:
        """End the pass: sums that a checkpoint cut off from the graph become leaves that collect its gradient."""
        self.closed = True
        if not torch.is_grad_enabled():
            return
        for entry in self.entries:
            if not entry.probability_sum.requires_grad:
                entry.probability_sum = entry.probability_sum.detach().requires_grad_()
                entry.probability_sum.register_post_accumulate_grad_hook(lambda _: self.ledger.replay(self))
                self.leaves[entry.module, entry.adapter].append(entry.probability_sum)

    def loss(self, adapter: str | None = None) -> Tensor:
        """Σ over layers of the balance loss, of one adapter or of all; 0 where no layer has a choice to balance."""
        if not self.entries:
            return torch.zeros(())
        groups: dict[tuple[str, int], list[_Entry]] = defaultdict(list)
        for entry in self.entries:
            if adapter in (None, entry.adapter):
                groups[entry.adapter, len(entry.num_chosen)].append(entry)
        device = self.entries[0].num_chosen.device
        num_layers = 1 + max(entry.layer for entry in self.entries)
        totals: dict[str, list[Tensor]] = defaultdict(list)
        for (name, num_experts), entries in groups.items():
            layers = self.ledger.index(tuple(entry.layer for entry in entries), device)
            sums = torch.stack([torch.cat((entry.probability_sum, entry.num_chosen)).to(device) for entry in entries])
            pooled = sums.new_zeros(num_layers, 2 * num_experts).index_add(0, layers, sums)
            probability, chosen = pooled.split(num_experts, dim=1)
            tokens = probability.detach().sum(1)  # a token's probabilities sum to 1
            share = chosen / chosen.sum(1, keepdim=True).clamp(min=1)
            totals[name].append(torch.stack((num_experts * (share * probability).sum(1), tokens)))
        pooled_groups = [torch.stack(parts).sum(0) for parts in totals.values()]
        return torch.stack([(value / tokens.clamp(min=1)).sum() for value, tokens in pooled_groups]).sum()


class Ledger:
    """The balance statistics of a root module: its hooks open a book before each training pass and settle it afterwards."""

    def __init__(self) -> None:
        self.weights: dict[str, float] = {}
        self._handles: list[RemovableHandle] = []
        self._open: Book | None = None
        self._last: Book | None = None
        self._replayed: Book | None = None
        self._indices: dict[tuple[tuple[int, ...], torch.device], Tensor] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles carry no pass with them."""
        return {**self.__dict__, "_open": None, "_last": None, "_replayed": None, "_indices": {}}

    def install(self, root: nn.Module) -> None:
        """Put the hooks on `root`, once."""
        if not self._handles:
            self._handles = [
                root.register_forward_pre_hook(self._before, with_kwargs=True),
                root.register_forward_hook(self._after, with_kwargs=True),
            ]

    def uninstall(self) -> None:
        """Take the hooks off and forget all passes."""
        for handle in self._handles:
            handle.remove()
        self.__init__()  # type: ignore[misc]

    def book(self, module: nn.Module, adapter: str) -> Book | None:
        """The open book; when a checkpointed block is run again for its gradient, the book that waits for it; else None."""
        if self._open is not None:
            return self._open
        replayed = self._replayed
        waits = replayed is not None and torch.is_grad_enabled() and replayed.leaves.get((module, adapter))
        return replayed if waits else None

    def replay(self, book: Book) -> None:
        """Called when the backward pass has reached the sums of `book`: blocks that run again from now on belong to that pass."""
        self._replayed = book

    def index(self, layers: tuple[int, ...], device: torch.device) -> Tensor:
        """`layers` as a tensor; made once, for a copy to the device costs more than the sum that needs it."""
        if (layers, device) not in self._indices:
            self._indices[layers, device] = torch.tensor(layers, device=device)
        return self._indices[layers, device]

    def loss(self) -> Tensor:
        """The balance loss of the last training pass, unweighted."""
        if self._last is None:
            raise InputError(
                "a training forward pass must come before its balance loss, but there was none: call `model.train()` and the model"
            )
        return self._last.loss()

    def _before(self, root: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._last = self._replayed = None
        self._open = Book(self, attention_mask_of(root, args, kwargs)) if root.training else None

    def _after(self, root: nn.Module, _: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        book, self._open = self._open, None
        if book is None:
            return None
        self._last = book
        if not book.entries:
            return None
        book.close()
        loss = _loss_of(output, kwargs)
        if loss is None:
            return None
        adapters = {entry.adapter: None for entry in book.entries}
        extra = torch.stack([self.weights.get(name, 0.0) * book.loss(name) for name in adapters]).sum() * _share(root, kwargs)
        return _with_loss(output, loss + extra.to(loss))


class _Attach(torch.autograd.Function):
    """The identity on `output`, whose backward also hands `grad` to the sums."""

    @staticmethod
    def forward(ctx: Any, output: Tensor, probability_sum: Tensor, grad: Tensor) -> Tensor:  # noqa: ARG004
        ctx.grad = grad
        return output.view_as(output)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, Tensor, None]:
        return grad_output, ctx.grad, None


def token_mask(attention_mask: Tensor | None, x: Tensor) -> Tensor | None:
    """For each token of `x`, flattened, whether `attention_mask` counts it; None counts all, also where shapes say nothing."""
    if attention_mask is None:
        return None
    if x.dim() == 3 and attention_mask.shape[0] == x.shape[0] and attention_mask.shape[1] >= x.shape[1]:  # noqa: PLR2004
        attention_mask = attention_mask[:, -x.shape[1] :]  # a mask may cover cached tokens too
    elif attention_mask.numel() != x.numel() // x.shape[-1]:
        return None
    return attention_mask.reshape(-1).to(x.device, torch.promote_types(x.dtype, torch.float32))


def attention_mask_of(root: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
    """The two-dimensional mask that `root` was called with, if any."""
    mask = kwargs.get("attention_mask")
    if mask is None and args:
        mask = dict(zip(signature(root.forward).parameters, args, strict=False)).get("attention_mask")
    return mask if isinstance(mask, Tensor) and mask.dim() == 2 else None  # noqa: PLR2004


def _loss_of(output: Any, kwargs: dict[str, Any]) -> Tensor | None:
    if isinstance(output, Mapping):
        loss = output.get("loss")
    else:
        loss = output[0] if isinstance(output, tuple) and output and kwargs.get("labels") is not None else None
    return loss if isinstance(loss, Tensor) and loss.is_floating_point() and loss.dim() == 0 else None


def _with_loss(output: Any, loss: Tensor) -> Any:
    if isinstance(output, tuple):
        return (loss, *output[1:])
    output["loss"] = loss
    return output


def _share(root: nn.Module, kwargs: dict[str, Any]) -> Tensor | float:
    """This pass's share of the label tokens of the whole accumulated batch.

    A trainer that passes `num_items_in_batch` sums the losses of the micro-batches instead of averaging them, so the balance loss must
    count each by the share that its tokens have.
    """
    num_items, labels = kwargs.get("num_items_in_batch"), kwargs.get("shift_labels")
    if labels is None and kwargs.get("labels") is not None:
        causal = LOSS_MAPPING.get(getattr(root, "loss_type", None)) is ForCausalLMLoss
        shifted = causal and not getattr(root.config, "is_encoder_decoder", False)
        labels = kwargs["labels"][..., 1:] if shifted else kwargs["labels"]
    if num_items is None or labels is None:
        return 1.0
    count: Tensor = (labels != _IGNORED_LABEL).sum()
    return count / num_items.to(count.device) if isinstance(num_items, Tensor) else count / num_items
