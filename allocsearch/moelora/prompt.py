"""Prompt experts (MoA): learned tokens that a block's queries attend to, added to the attention's output before its output linear.

They need the queries as attention sees them, rotated and with heads apart. transformers hands these to an exchangeable attention function.
So each attention module with a prompt gets a copy of its config that names our function; ours calls the one that the model's own config
names, and adds to its result.
"""

import copy
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from allocsearch.core.errors import InputError
from allocsearch.moelora.initial import fill_rows

IMPLEMENTATION: Final = "moelora_prompt"


@dataclass(frozen=True, slots=True)
class PromptSpec:
    """Lengths of a block's prompts, the number of the first among the block's experts, and where the frozen key and value linears are."""

    lengths: tuple[int, ...]
    first_gate: int
    num_heads: int
    key: str
    value: str


class PromptExperts(nn.Module):
    """Σ gⱼ · tⱼ · softmax(q Wk(Pⱼ)ᵀ · scale) Wv(Pⱼ), with tⱼ one number per head that starts at zero."""

    def __init__(self, dim: int, spec: PromptSpec, *, device: torch.device | None, dtype: torch.dtype) -> None:
        super().__init__()
        self.spec = spec
        self.tokens = nn.Parameter(torch.empty(sum(spec.lengths), dim, device=device, dtype=dtype))
        self.heads = nn.Parameter(torch.zeros(len(spec.lengths), spec.num_heads, device=device, dtype=dtype))

    def reset_parameters(self, *, seed: int, layer: int) -> None:
        """Draw tokens by expert and place, standard normal as an embedding's."""
        rows = [(expert, token) for expert, length in enumerate(self.spec.lengths) for token in range(length)]
        fill_rows(self.tokens, rows, seed=seed, layer=layer, target="prompt", normal=True)

    def forward(self, query: Tensor, gates: Tensor, *, attention: nn.Module, scaling: float) -> Tensor:
        """What to add to the attention's output (batch × tokens × heads × head size) for `query` (batch × heads × tokens × head size)."""
        batch, num_heads, length, head_size = query.shape
        tokens = self.tokens.to(query.dtype)
        # The frozen linears alone: prompts are the block's own, its other experts do not touch them.
        key, value = (_base(attention, name)(tokens).unflatten(-1, (-1, head_size)) for name in (self.spec.key, self.spec.value))
        repeats = num_heads // key.shape[1]
        keys, values = (part.to(query.dtype).repeat_interleave(repeats, dim=1).transpose(0, 1) for part in (key, value))
        weights = gates.reshape(batch, length, -1).to(query.dtype)
        added = torch.zeros((), dtype=query.dtype, device=query.device)
        offset = 0
        for expert, size in enumerate(self.spec.lengths):
            scores = query @ keys[:, offset : offset + size].transpose(1, 2) * scaling
            shares = torch.softmax(scores, dim=-1, dtype=torch.promote_types(query.dtype, torch.float32)).to(query.dtype)
            attended = (shares @ values[:, offset : offset + size]).transpose(1, 2)
            head_gates = self.heads[expert].to(query.dtype).view(1, 1, num_heads, 1)
            added = added + weights[:, :, expert, None, None] * head_gates * attended
            offset += size
        return added


def attention_of(model: nn.Module, query_name: str) -> nn.Module:
    """The attention module that holds the linear `query_name`.

    Raises:
        InputError: where its queries can't be seen by an exchangeable attention function.
    """
    attention = model.get_submodule(query_name.rpartition(".")[0])
    offers = any("ALL_ATTENTION_FUNCTIONS" in vars(sys.modules[cls.__module__]) for cls in type(attention).__mro__)
    normed = any(hasattr(attention, name) for name in ("k_norm", "k_layernorm", "key_layernorm"))
    if not offers or not hasattr(attention, "config") or normed:
        raise InputError(
            "a prompt expert needs an attention module with an exchangeable attention function and keys without a norm of their own, but"
            f" {type(attention).__name__} has not: leave `prompt` out of the allocation"
        )
    return attention


def divert(attention: nn.Module) -> Any:
    """Let the attention module call our attention function; returns the config to put back."""
    found: Any = attention
    original = found.config
    if original._attn_implementation != IMPLEMENTATION:  # noqa: SLF001
        found.config = copy.copy(original)
        found.config._attn_implementation_internal = IMPLEMENTATION  # noqa: SLF001
    return original


def _base(attention: nn.Module, name: str) -> Callable[[Tensor], Tensor]:
    found: Any = getattr(attention, name)
    return found.get_base_layer() if hasattr(found, "get_base_layer") else found


def _attend(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any) -> Any:
    """The attention function named `moelora_prompt`: the model's own, plus what the active adapters' prompts add."""
    host: Any = next(child for child in module.children() if getattr(child, "attention_config", None) is not None)
    eager = next(
        found
        for cls in type(module).__mro__
        if (found := getattr(sys.modules[cls.__module__], "eager_attention_forward", None)) is not None
    )
    usual = ALL_ATTENTION_FUNCTIONS.get_interface(host.attention_config._attn_implementation, eager)  # noqa: SLF001
    output, *rest = usual(module, query, key, value, attention_mask, **kwargs)
    scaling = kwargs.get("scaling")
    return host.add_prompts(output, query, attention=module, scaling=query.shape[-1] ** -0.5 if scaling is None else scaling), *rest


ALL_ATTENTION_FUNCTIONS.register(IMPLEMENTATION, _attend)
