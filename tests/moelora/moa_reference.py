"""MoA's formulas (soft and sparse), one token at a time."""

import torch
from torch.nn.functional import silu

MAX_THRESHOLD = 0.5


def moa_gates(tokens, *, w1, w3=None, w2=None, threshold=None, straight_through=True):
    """g = σ(W2(SiLU(W1 x) ⊙ W3 x)), or σ(W1 x) without W2 and W3; each matrix comes with its bias. `threshold` is (w, b)."""
    rows = []
    for x in tokens:
        hidden = w1[0] @ x + w1[1]
        if w2 is not None:
            hidden = w2[0] @ (silu(hidden) * (w3[0] @ x + w3[1])) + w2[1]
        gates = torch.sigmoid(hidden)
        if threshold is not None:
            theta = torch.sigmoid(threshold[0] @ x + threshold[1]) * MAX_THRESHOLD
            kept = []
            for gate in gates:
                passed = 1.0 if gate >= theta else 0.0
                # The comparison's value in the forward pass, the derivative of `gate − theta` in the backward pass.
                surrogate = (gate - theta) - (gate - theta).detach() if straight_through else 0.0
                kept.append(gate * (passed + surrogate))
            gates = torch.stack(kept)
        rows.append(gates)
    return torch.stack(rows)


def moa_lora(tokens, base, experts, gates, *, scalings):
    """W x + Σ g (α/r) B A x, for the base's outputs of the same tokens."""
    rows = []
    for x, y, g in zip(tokens, base, gates, strict=True):
        rows.append(y + sum(g[i] * scalings[i] * (b @ (a @ x)) for i, (a, b) in enumerate(experts)))
    return torch.stack(rows)


def moa_parallel(tokens, adapters, gates):
    """Σ g · Up(SiLU(Down h)); adapters are (down, down bias, up, up bias)."""
    rows = []
    for h, g in zip(tokens, gates, strict=True):
        rows.append(sum(g[i] * (up @ silu(down @ h + bias) + up_bias) for i, (down, bias, up, up_bias) in enumerate(adapters)))
    return torch.stack(rows)


def moa_prompt(queries, prompts, head_gates, gates, *, key, value):
    """g · t · softmax(q Wk(P)ᵀ/√d) Wv(P) per token and head.

    queries: T × heads × d; key and value: functions from a prompt (length × hidden) to length × key heads × d.
    """
    rows = []
    for token, g in zip(queries, gates, strict=True):
        heads = []
        for head, q in enumerate(token):
            added = 0.0
            for i, prompt in enumerate(prompts):
                keys, values = key(prompt), value(prompt)
                group = head // (len(token) // keys.shape[1])
                shares = torch.softmax(keys[:, group] @ q / q.shape[0] ** 0.5, dim=0)
                added = added + g[i] * head_gates[i][head] * (shares @ values[:, group])
            heads.append(added)
        rows.append(torch.stack(heads))
    return torch.stack(rows)
