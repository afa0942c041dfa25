"""What is published, written as it runs: one expert after the other, each with matrix products and tensors of its own.

The arithmetic is that of `tests/moelora/reference.py` and `moa_reference.py`, over all tokens at a time. Both take over the weights of a
`MoeLoraLinear`, so that a benchmark can check that it compares equals.
"""

import torch
from torch import nn
from torch.nn.functional import linear


class MolaLoop(nn.Module):
    """MoLA: softmax, top-k, renormalise; every expert gathers the tokens that chose it and adds to their rows."""

    def __init__(self, layer):
        super().__init__()
        here = layer.placements["default"].stack
        experts, router = layer.expert_tensors("default")
        self.base, self.top_k, self.scaling = layer.base_layer, here.top_k, here.scaling
        self.a = nn.ParameterList([a.clone() for a, _ in experts])
        self.b = nn.ParameterList([b.clone() for _, b in experts])
        self.router = nn.Parameter(router.clone())

    def forward(self, x):
        output = self.base(x)
        flat, rows = x.reshape(-1, x.shape[-1]), output.reshape(-1, output.shape[-1])
        shares = torch.softmax(linear(flat, self.router.to(x.dtype)), dim=-1, dtype=torch.float32)
        best, chosen = shares.topk(min(self.top_k, len(self.a)), dim=-1)
        best = (best / best.sum(-1, keepdim=True)).to(x.dtype)
        added = torch.zeros_like(rows)
        for i, (a, b) in enumerate(zip(self.a, self.b, strict=True)):
            token, place = torch.where(chosen == i)
            update = linear(linear(flat[token], a.to(x.dtype)), b.to(x.dtype)) * self.scaling[i]
            added.index_add_(0, token, update * best[token, place, None])
        return (rows + added).reshape(output.shape)


class MoaLoop(nn.Module):
    """MoA on one linear: each expert by itself, its gate applied to its whole output."""

    def __init__(self, layer):
        super().__init__()
        self.base, self.role = layer.base_layer, layer.placements["default"].block
        stack = layer.placements["default"].stack
        experts, _ = layer.expert_tensors("default")
        self.scaling = () if stack is None else stack.scaling
        self.a = nn.ParameterList([a.clone() for a, _ in experts])
        self.b = nn.ParameterList([b.clone() for _, b in experts])
        for name in ("router", "parallel"):
            own = getattr(layer, f"moelora_{name}")
            setattr(self, name, dict(own.items()).get("default"))

    def forward(self, x):
        output, cell = self.base(x), self.role.cell
        if self.router is not None:
            cell.gates = self.router(x)
        if self.parallel is not None:
            beside = self.parallel
            hidden = nn.functional.silu(linear(x, beside.down.to(x.dtype), beside.down_bias.to(x.dtype)))
            gate = cell.columns(self.role.first_parallel, 1).reshape(*x.shape[:-1], 1).to(x.dtype)
            cell.parallel = gate * linear(hidden, beside.up.to(x.dtype), beside.up_bias[0].to(x.dtype))
        for i, (a, b) in enumerate(zip(self.a, self.b, strict=True)):
            gate = cell.columns(self.role.first_gate + i, 1).reshape(*x.shape[:-1], 1).to(x.dtype)
            output = output + gate * (linear(linear(x, a.to(x.dtype)), b.to(x.dtype)) * self.scaling[i])
        return output + cell.parallel if self.role.adds_parallel else output


def as_loops(model, kind):
    """Put loops in the place of all `MoeLoraLinear` of `model`."""
    from allocsearch.moelora import MoeLoraLinear

    for name, module in list(model.named_modules()):
        if isinstance(module, MoeLoraLinear):
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, kind(module))
    return model
