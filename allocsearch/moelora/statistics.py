"""What routers do: how they share tokens among experts, and how alike a linear's experts are. Costs nothing unless asked for.

with watch_routers(model) as watched:
    for batch in batches:
        model(**batch)
for router in watched.summary():
    print(router.name, router.share, router.dead)
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Final

import torch
from torch import Tensor, nn

from allocsearch.moelora.balance import attention_mask_of, token_mask
from allocsearch.moelora.block import BlockRouter
from allocsearch.moelora.layer import MoeLoraLinear
from allocsearch.moelora.router import linear_gates

_DEAD_SHARE: Final = 0.01


@dataclass(frozen=True, slots=True)
class RouterSummary:
    """One router over all tokens that it saw, padding left out.

    Attributes:
        name: the adapted linear, or the linear that hosts a block's router.
        num_tokens: tokens counted.
        load: per expert the share of tokens that use it.
        share: per expert its share of the gates' sum; shares sum to 1.
        entropy: of a token's gates, as a distribution, in nats; the mean over tokens.
    """

    name: str
    num_tokens: int
    load: tuple[float, ...]
    share: tuple[float, ...]
    entropy: float

    @property
    def dead(self) -> tuple[int, ...]:
        """Experts with less than a hundredth of an even share."""
        return tuple(i for i, share in enumerate(self.share) if share < _DEAD_SHARE / len(self.share))


class Watched:
    """Sums that grow with every forward pass."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._attention_mask: Tensor | None = None

    def summary(self) -> list[RouterSummary]:
        """One entry per router that has seen tokens, in the model's order."""
        return [_summarise(name, sums.tolist()) for name, sums in self._sums.items() if sums[-1] > 0]

    def start(self, root: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Called before each forward pass of the model."""
        self._attention_mask = attention_mask_of(root, args, kwargs)

    @torch.no_grad()
    def add(self, name: str, x: Tensor, gates: Tensor, probabilities: Tensor) -> None:
        """Count the tokens of `x`, with T × N gates and probabilities."""
        mask = token_mask(self._attention_mask, x)
        counted = torch.ones(len(gates), dtype=torch.float64, device=x.device) if mask is None else mask.double()
        gates = gates.double()
        logs = torch.special.entr(probabilities.double() / probabilities.double().sum(-1, keepdim=True)).sum(-1, keepdim=True)
        sums = counted @ torch.cat(((gates > 0).double(), gates, logs, torch.ones_like(logs)), dim=-1)
        self._sums[name] = self._sums.get(name, torch.zeros_like(sums)) + sums


@contextmanager
def watch_routers(model: nn.Module, adapter_name: str = "default") -> Iterator[Watched]:
    """Watch one adapter's routers during the forward passes inside the `with`."""
    watched = Watched()
    handles = [_root(model).register_forward_pre_hook(watched.start, with_kwargs=True)]
    for name, module in model.named_modules():
        if isinstance(module, MoeLoraLinear) and adapter_name in module.placements:
            handles += _watch(module, name, adapter_name, watched)
    try:
        yield watched
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def expert_similarity(layer: MoeLoraLinear, adapter_name: str = "default") -> Tensor:
    """Cosine similarity of the experts' updates BᵢAᵢ as vectors (N × N); zero where an expert's B is still zero."""
    experts, _ = layer.expert_tensors(adapter_name)
    w_in, w_out = torch.cat([a for a, _ in experts]), torch.cat([b for _, b in experts], dim=1)
    owners = torch.arange(len(experts), device=w_in.device).repeat_interleave(
        torch.tensor([len(a) for a, _ in experts], device=w_in.device)
    )
    spread = torch.nn.functional.one_hot(owners, len(experts)).to(w_in.dtype)
    products = spread.t() @ ((w_out.t() @ w_out) * (w_in @ w_in.t())) @ spread
    norms = products.diagonal().clamp(min=0).sqrt()
    scale = torch.outer(norms, norms)
    return torch.where(scale > 0, products / scale.clamp(min=torch.finfo(scale.dtype).tiny), torch.zeros_like(products))


def router_statistics(model: nn.Module, watched: Watched, adapter_name: str = "default") -> dict[str, float]:
    """One adapter's routers in a few numbers, each left out where there is nothing to measure it on.

    `load_imbalance`: coefficient of variation of the experts' shares, 0 when they are equal; the mean over routers.
    `entropy`: of a token's gates, as a share of its maximum; the mean over routers.
    `dead_experts`: how many experts are hardly ever used, over all routers.
    `expert_similarity`: cosine similarity of two experts of a linear; the mean over pairs, then over linears.
    `skipped_share`: share of tokens that an expert skips, the mean over experts; of threshold routers alone.
    """
    layers = [module for module in model.modules() if isinstance(module, MoeLoraLinear) and adapter_name in module.placements]
    routers = [router for router in watched.summary() if len(router.share) > 1]
    found: dict[str, float] = {}
    if routers:
        found["load_imbalance"] = fmean(math.sqrt(max(0.0, len(r.share) * sum(s * s for s in r.share) - 1)) for r in routers)
        found["entropy"] = fmean(r.entropy / math.log(len(r.share)) for r in routers)
        found["dead_experts"] = float(sum(len(r.dead) for r in routers))
    if any(module.spec.sparse for module in model.modules() if isinstance(module, BlockRouter)) and watched.summary():
        found["skipped_share"] = fmean(1 - load for router in watched.summary() for load in router.load)
    mixed = [layer for layer in layers if len(layer.expert_tensors(adapter_name)[0]) > 1]
    if mixed:
        found["expert_similarity"] = fmean(_mean_off_diagonal(expert_similarity(layer, adapter_name)) for layer in mixed)
    return found


def _mean_off_diagonal(square: Tensor) -> float:
    num_pairs = len(square) * (len(square) - 1)
    return float((square.sum() - square.diagonal().sum()) / num_pairs)


def _watch(module: MoeLoraLinear, name: str, adapter_name: str, watched: Watched) -> list[Any]:
    stack = module.placements[adapter_name].stack
    if adapter_name in module.moelora_router:
        router: Any = module.moelora_router[adapter_name]
        assert isinstance(router, BlockRouter)
        return [router.register_forward_hook(lambda _, args, gates: watched.add(name, args[0], gates, gates + _tiny(gates)))]
    if stack is None or not stack.has_router:
        return []

    def note(_: nn.Module, args: tuple[Any, ...], __: Any) -> None:
        x: Tensor = args[0]
        router = module.expert_tensors(adapter_name)[1]
        if router is not None:  # computed anew: the fused arithmetic does not show its gates
            logits = nn.functional.linear(x.detach().reshape(-1, x.shape[-1]), router.to(x.dtype))
            gates = linear_gates(logits, router=stack.router, top_k=stack.top_k)
            watched.add(name, x, gates.weights, gates.probabilities)

    return [module.register_forward_hook(note)]


def _tiny(gates: Tensor) -> float:
    """Keeps tokens that no expert takes from dividing by zero."""
    return torch.finfo(gates.dtype).tiny


def _root(model: Any) -> nn.Module:
    found = model.get_base_model() if hasattr(model, "get_base_model") else model
    assert isinstance(found, nn.Module)
    return found


def _summarise(name: str, sums: list[float]) -> RouterSummary:
    num_experts = (len(sums) - 2) // 2
    uses, gates, entropy, tokens = sums[:num_experts], sums[num_experts:-2], sums[-2], sums[-1]
    total = sum(gates) or 1.0
    return RouterSummary(
        name,
        num_tokens=round(tokens),
        load=tuple(use / tokens for use in uses),
        share=tuple(gate / total for gate in gates),
        entropy=entropy / tokens,
    )
