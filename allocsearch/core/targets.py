"""How transformer families name their linears, mapped to one vocabulary: `q k v o qkv`, `gate up down gate_up`.

Pure string logic, so that reading a shape from a config and injecting adapters into a model can never disagree.
"""

import re
from dataclasses import dataclass
from typing import Final

GROUPS: Final = ("attn", "ffn")

# Canonical order: the order in which a text form lists targets.
GROUP_OF: Final = {
    "q": "attn", "k": "attn", "v": "attn", "qkv": "attn", "o": "attn",
    "gate": "ffn", "up": "ffn", "gate_up": "ffn", "down": "ffn",
}  # fmt: skip

# The families' own names for a target; a name that means two targets in one family (`c_proj`, `dense`) is left out.
ALIASES: Final = {
    "q_proj": "q", "k_proj": "k", "v_proj": "v", "o_proj": "o", "out_proj": "o",
    "query": "q", "key": "k", "value": "v", "q_lin": "q", "k_lin": "k", "v_lin": "v", "out_lin": "o",
    "qkv_proj": "qkv", "c_attn": "qkv", "query_key_value": "qkv",
    "gate_proj": "gate", "up_proj": "up", "down_proj": "down", "gate_up_proj": "gate_up",
    "c_fc": "up", "fc1": "up", "fc2": "down", "lin1": "up", "lin2": "down",
    "dense_h_to_4h": "up", "dense_4h_to_h": "down",
}  # fmt: skip

# Path below one layer -> target, for every family. Paths are matched whole, so they are unambiguous.
_TARGET_OF_PATH: Final = {
    **{f"self_attn.{m}": t for m, t in {
        "q_proj": "q", "k_proj": "k", "v_proj": "v", "o_proj": "o", "qkv_proj": "qkv",  # Llama and kin, Phi-3
        "dense": "o", "out_proj": "o",  # Phi, OPT
    }.items()},
    **{f"mlp.{m}": t for m, t in {
        "gate_proj": "gate", "up_proj": "up", "down_proj": "down", "gate_up_proj": "gate_up",
        "fc1": "up", "fc2": "down",  # Phi
        "c_fc": "up", "c_proj": "down",  # GPT-2
        "dense_h_to_4h": "up", "dense_4h_to_h": "down",  # GPT-NeoX
    }.items()},
    "fc1": "up", "fc2": "down",  # OPT
    "attn.c_attn": "qkv", "attn.c_proj": "o",  # GPT-2
    "attention.query_key_value": "qkv", "attention.dense": "o",  # GPT-NeoX
    "self_attention.query_key_value": "qkv", "self_attention.dense": "o",  # Falcon, BLOOM
    "attention.self.query": "q", "attention.self.key": "k", "attention.self.value": "v",  # BERT and kin
    "attention.output.dense": "o", "intermediate.dense": "up", "output.dense": "down",
    "attention.q_lin": "q", "attention.k_lin": "k", "attention.v_lin": "v", "attention.out_lin": "o",  # DistilBERT
    "ffn.lin1": "up", "ffn.lin2": "down",
}  # fmt: skip

_LAYERED: Final = re.compile(r"^(?P<stack>.+?)\.(?P<layer>\d+)\.(?P<path>.+)$")


@dataclass(frozen=True, slots=True)
class Location:
    """Where a linear sits: `stack` ("model.layers"), `layer` (from 0, bottom to top), `path` below it, and its target name."""

    stack: str
    layer: int
    path: str
    target: str

    @property
    def group(self) -> str:
        """`attn` or `ffn`."""
        return GROUP_OF[self.target]


def locate(module_name: str) -> Location | None:
    """The target that a module's dotted name stands for, or None where the name is not one that we know."""
    match = _LAYERED.match(module_name)
    if match is None:
        return None
    target = _TARGET_OF_PATH.get(match["path"])
    return None if target is None else Location(match["stack"], int(match["layer"]), match["path"], target)


def canonical_selector(name: str) -> str | None:
    """A group, target, or a family's own name for one (`q_proj`, `c_attn`), as the canonical name; None if unknown."""
    if name in GROUPS or name in GROUP_OF:
        return name
    return ALIASES.get(name)
